"""environments/arcade: rules worked out by hand, what the oracle and chance earn, the same game through MCP."""

import asyncio
import itertools
import random

import pytest

from etude.core.errors import EnvironmentFault, PartError
from etude.environments.arcade import GAMES, HELD, Four, Nim, Table, TicTacToe, Town, arcade, begun
from etude.evaluation.normalise import by_chance, known, measure, normalised
from etude.policies.scripted import scripted
from etude.rollout.collect import collect
from etude.trajectory import Message, ToolCall

GENRES = {"adventure", "action", "puzzle", "cards", "management", "board"}


def act(word):
    return Message("assistant", tool_calls=(ToolCall("act", {"action": word}, "call_1"),))


async def play(task, words):
    """Rewards and what was said, until the words or the game end."""
    session = task.environment.open()
    first = await session.reset(task, 0)
    rewards, said = [], [m.content for m in first.messages]
    for word in words:
        step = await session.step(act(word))
        rewards.append(step.reward)
        said += [m.content for m in step.observation.messages]
        if step.done:
            break
    return rewards, said


def game(name, **state):
    made = GAMES[name](random.Random(0))
    for key, value in state.items():
        setattr(made, key, value)
    return made


def test_there_are_games_of_six_genres_and_some_are_held_out():
    world = arcade()
    assert {rules.genre for rules in GAMES.values()} == GENRES
    assert {t.domain for t in world.tasks("test")} == {*GAMES} - {*HELD}
    assert {t.domain for t in world.tasks("domains")} == {*HELD}
    with pytest.raises(PartError, match=r"no game 'nym'; did you mean 'nim'"):
        arcade(games=["nym"])
    with pytest.raises(PartError, match="'nim' is among games and held"):
        arcade(games=["nim", "town"], held=["nim"])
    with pytest.raises(PartError, match="no split 'tests'; did you mean 'test'"):
        world.tasks("tests")


@pytest.mark.parametrize("name", GAMES)
async def test_every_state_tells_what_is_legal_and_nothing_else_is_done(name):
    world = arcade(games=[name], held=[])
    for task in world.tasks("dev")[:5]:
        session = world.open()
        await session.reset(task, 0)
        chance, done = random.Random(task.id), False
        while not done:
            before, legal = session.game.told(), [m.tool_calls[0].arguments["action"] for m in session.legal()]
            assert before.splitlines()[-1] == f"can: {' '.join(legal)}"
            step = await session.step(act(chance.choice(legal)))
            done = step.done
        session = world.open()
        await session.reset(task, 0)
        before = session.game.told()
        step = await session.step(act("fly"))
        assert step.observation.messages[0].content == f"error: no action 'fly'\n{before}"
        assert step.reward == 0


def test_town_by_hand():
    town = game("town", paths=[("bank", "port"), ("port", "shop")], at="bank", key="shop", box="port")
    assert town.legal() == ["port"]
    assert town.aim() == "port shop take"
    for word, score in (("port", 0), ("shop", 0), ("take", 0.5), ("port", 0.5), ("open", 1)):
        assert (town.best(), town.over) == (word, False)
        town.act(word)
        assert town.score() == score
    assert town.over
    assert isinstance(town, Town)


def test_errand_by_hand():
    errand = game("errand", wants={"guard": "ink", "owner": "bag"}, here=["pen", "ink", "bag"])
    for word in ("ink", "owner"):  # the wrong one: the ink is gone
        errand.act(word)
    assert (errand.score(), errand.over, errand.best()) == (0, False, "bag")
    for word in ("bag", "owner"):
        errand.act(word)
    assert (errand.score(), errand.over) == (0.5, True)


def test_dodge_by_hand():
    rows = [[True, False, True], [False, True, True], *[[False] * 3] * 6]
    dodge = game("dodge", rows=rows, lane=2)
    assert dodge.view() == "you right; next block free block; then free block block"
    assert (dodge.best(), dodge.legal()) == ("left", ["left", "wait"])
    dodge.act("left")
    assert dodge.best() == "left"
    dodge.act("wait")
    assert (dodge.over, dodge.score()) == (True, 1 / 6)


def test_hunt_by_hand():
    hunt = game("hunt", you=(0, 0), gem=(2, 0), wolf=(3, 3), moves=0, near=2, start=2)
    hunt.act("east")  # the wolf waits at the first move
    assert (hunt.wolf, hunt.score()) == ((3, 3), 0.25)
    hunt.act("south")
    assert hunt.wolf == (2, 3) or hunt.wolf == (3, 2)
    hunt = game("hunt", you=(0, 0), gem=(3, 0), wolf=(1, 0), moves=0)
    hunt.act("east")
    assert (hunt.over, hunt.caught) == (True, True)


def test_lights_by_hand():
    lights = game("lights", on=[True, True, True, False])
    assert lights.rest() == ["2"]
    lights.act("4")
    assert lights.on == [True, True, False, True]
    lights.act("4")
    lights.act("2")
    assert (lights.over, lights.score()) == (True, 1)


def test_blackjack_by_hand():
    hands = game("blackjack")
    assert [hands.total(cards) for cards in ([11, 11], [11, 5, 9], [10, 9, 5])] == [12, 15, 24]
    assert sum(hands.dealt((6,)).values()) == pytest.approx(1)
    for mine, bank, best in (([10, 9], 10, "stand"), ([5, 6], 6, "draw"), ([10, 2], 5, "stand"), ([10, 6], 10, "draw")):
        hands.yours, hands.bank = mine, bank
        assert hands.best() == best, (mine, bank)


def test_duel_takes_what_can_be_won_whatever_the_order():
    for seed in range(30):
        duel = GAMES["duel"](random.Random(seed))
        orders = itertools.permutations(duel.yours)
        most = max(sum(a > b for a, b in zip(order, duel.foe, strict=True)) for order in orders)
        assert duel.most == most
        while not duel.over:
            duel.act(duel.best())
        assert duel.won == most


def test_management_by_hand():
    stock = game("stock", have=2, asked=[5, 1, 4, 4, 4])
    for order in ("3", "3", "2"):  # met; two too many, which stay; met
        stock.act(order)
    assert (stock.missed, stock.have, stock.score()) == (1.0, 0, 2 / 5)
    farm = game("farm", sky=["sun", "rain", "sun", "sun", "rain", "rain", "sun", "sun"], most=2)
    for word, stage in (("sow", 1), ("wait", 2), ("water", 3), ("pick", 0), ("sow", 2), ("water", 0)):
        farm.act(word)  # the last one drowns
        assert farm.stage == stage
    assert (farm.picked, farm.score()) == (1, 0.5)


def test_nim_is_won_by_whoever_leaves_nothing_to_the_binary_sum():
    def won(piles):
        """Whether the side to move wins, by trying everything."""
        return any(
            not won((*piles[:i], piles[i] - n, *piles[i + 1 :])) for i in range(3) for n in range(1, piles[i] + 1)
        )

    for piles in itertools.product(range(4), repeat=3):
        if any(piles) and won(piles):
            nim = game("nim", piles=list(piles))
            nim.move(nim.best())
            assert not won(tuple(nim.piles)), piles


def test_the_oracle_never_loses_tictactoe():
    def meet(board, mine):
        if board.over:
            assert board.winner in (None, mine)
            return
        words = [board.best()] if board.turn == mine else board.legal()
        for word in words:
            after = game("tictactoe", cells=board.cells, turn=board.turn)
            after.move(word)
            meet(after, mine)

    for mine in (0, 1):
        meet(game("tictactoe"), mine)
    assert isinstance(game("four"), TicTacToe)


def test_stones_fall_and_three_in_a_row_win():
    four = game("four", turn=0, seat=0)
    for word in ("1", "2", "1", "2"):
        four.move(word)
    assert four.best() == "1"
    four.move("1")
    assert (four.over, four.winner, four.score()) == (True, 0, 1)
    assert four.view().splitlines() == [". . . .", "x . . .", "x o . .", "x o . ."]
    assert Four.has_won("0   " + " 0  " + "  0 " + "    ", 0)


async def test_rewards_add_up_to_the_score():
    world = arcade()
    for task in world.tasks("test")[:20]:
        words = [m.tool_calls[0].arguments["action"] for m in world.solve(task, 0)]
        rewards, _ = await play(task, words)
        fresh = begun(task)
        for word in words:
            fresh.act(word)
        assert sum(rewards) == pytest.approx(fresh.score())


def test_a_solution_says_how_it_went_and_what_it_aims_for_and_may_err():
    world = arcade(games=["stock"], held=[], slips=0.5)
    task = world.tasks("train")[0]
    said = world.solve(task, 0)
    assert said == world.solve(task, 0)
    assert said != arcade(games=["stock"], held=[]).solve(task, 0)
    assert [m.thought.splitlines()[0].split(":")[0] for m in said] == ["planning"] + ["reflection"] * 4
    went = {m.thought.splitlines()[0].split()[1] for m in said[1:]}
    assert went == {"good", "bad,"}


# -- the scale -------------------------------------------------------------------------------------------------------


@pytest.mark.exact(34)
@pytest.mark.parametrize("name", GAMES)
async def test_chance_is_about_0_and_the_oracle_100_on_seeds_that_the_references_were_not_measured_on(name):
    reference, n = known("arcade")[name], 100
    world = arcade(games=[name], held=[], size=5 * n)
    found = (await measure(world, world.tasks("test")))[name]
    gap = reference["oracle"] - reference["random"]
    assert gap > 0.1
    noise = (
        4 * 0.5 * (1 / n + 1 / reference["episodes"]) ** 0.5 / gap * 100
    )  # scores within 0 to 1 spread at most by 1/2
    assert abs(normalised(found["random"], reference)) < noise
    assert abs(normalised(found["oracle"], reference) - 100) < (noise if reference["oracle"] < 1 else 1e-9)


async def test_the_references_are_what_the_command_measures():
    world = arcade(games=["stock"], held=["duel"], size=1000)
    tasks = [*world.tasks("dev"), *world.tasks("domains")]
    found = await measure(world, tasks)
    assert found == {name: pytest.approx(known("arcade")[name]) for name in ("stock", "duel")}
    assert 0 <= await by_chance(world, tasks[0]) <= 1


# -- a table for two -------------------------------------------------------------------------------------------------


def says(words):
    return scripted([act(word) for word in words])


async def battle(one, other, table):
    from etude.agents.loops import native

    policies = (one, other)
    return await asyncio.gather(
        *(collect(policies[seat], [table.tasks[seat]], agent=native()) for seat in (0, 1)),
    )


async def test_two_agents_play_one_game_and_see_it_from_their_sides():
    table = Table("tictactoe", 0)
    ((one,), (other,)) = await battle(says(["1", "2", "3"]), says(["4", "5"]), table)
    assert (one.episodes[0].reward, other.episodes[0].reward) == (1, 0)
    assert one.episodes[0].failure is other.episodes[0].failure is None
    assert other.messages[1].content == "o . .\n. . .\n. . .\ncan: 2 3 4 5 6 7 8 9"
    assert one.messages[3].content == "x . .\no . .\n. . .\ncan: 2 3 5 6 7 8 9"
    assert (table.score(0), table.score(1)) == (1, 0)


async def test_who_leaves_or_breaks_the_rules_three_times_loses():
    for words in ([], ["9", "9", "9", "9"]):  # an empty script fails: its agent leaves
        table = Table("tictactoe", 0)
        said = says(words) if words else scripted(lambda dialogue: Message("assistant", "I give up"))
        await battle(says(["9", "1", "2"]), said, table)
        assert (table.score(0), table.score(1)) == (1, 0)
    table = Table("nim", 3)
    ((one,), _) = await battle(scripted([]), says([begun_word(table), "a1", "a1"]), table)
    assert one.episodes[0].failure
    assert (table.score(0), table.score(1)) == (0, 1)
    with pytest.raises(PartError, match="no game 'town' for two"):
        Table("town", 0)
    with pytest.raises(EnvironmentFault, match="has no snapshot"):
        await table.tasks[0].environment.open().snapshot()


def begun_word(table):
    assert isinstance(table.game, Nim)
    return table.game.legal()[0]
