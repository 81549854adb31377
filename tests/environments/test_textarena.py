"""environments/textarena: the suite's own games, alone and against others."""

import importlib.util
import random

import pytest

from etude.agents.loops import native
from etude.core.errors import EnvironmentFault, MissingExtra, PartError
from etude.environments.base import acts
from etude.environments.textarena import EXPERTS, FAMILY, GAMES, INSTALL, Table, best, take, textarena
from etude.policies import scripted
from etude.protocols import Action, Sampling
from etude.rollout.collect import collect
from etude.trajectory import Message, ToolCall

HERE = importlib.util.find_spec("textarena") is not None
needs_suite = pytest.mark.skipif(not HERE, reason=INSTALL)


@pytest.fixture
def make():
    worlds = []

    def make(*args, **settings):
        worlds.append(textarena(*args, **settings))
        return worlds[-1]

    yield make
    for world in worlds:
        world.crew.close()
        world.solvers.close()


@pytest.fixture(scope="module")
def table():
    kept = random.getstate()
    yield Table()
    random.setstate(kept)


async def play(world, task, messages):
    """Steps of these messages, until the game is over."""
    session = world.open()
    steps = []
    await session.reset(task, 0)
    for message in messages:
        steps.append(await session.step(message))
        if steps[-1].done:
            break
    await session.close()
    return steps


class Sayer:
    """Says what it is given, in turn, and keeps what it was shown."""

    name, version = "sayer", 0

    def __init__(self, *said):
        self.said, self.shown = list(said), []

    async def act(self, trajectory, leaf, *, sampling, seed):
        self.shown.append([(m.role, m.content) for m in trajectory.dialogue(leaf)])
        return leaf, Action(self.said[len(self.shown) - 1])


def say(text):
    return Message("assistant", text)


@needs_suite
@pytest.mark.parametrize("id", [id for id in FAMILY if GAMES[FAMILY[id]].players == 2])
def test_two_random_players_come_to_an_end_within_the_rules(table, id):
    for seat in (0, 1):
        heard, moves = table.begin(id, 7, seat), 0
        while heard["score"] is None and moves < 200:
            heard, moves = table.act(table._random_move()), moves + 1
        assert heard["score"] in (-1.0, 0.0, 1.0)
        invalid = any(info["invalid_move"] for info in table.game.state.game_info.values())
        assert not invalid or FAMILY[id] == "Breakthrough"  # where one can be stuck


@needs_suite
@pytest.mark.parametrize("id", [id for id in FAMILY if GAMES[FAMILY[id]].players == 1])
def test_each_game_played_alone_starts_and_a_rule_broken_again_and_again_ends_it(table, id):
    first = table.begin(id, 7, 0)
    assert first == table.begin(id, 7, 0)
    told, heard = set(), first
    for _ in range(30):  # Secretary and 2048 go on after some
        heard = table.act("nonsense")
        told.add(heard["text"])
        if heard["score"] is not None:
            break
    assert heard["score"] is not None
    assert 0.0 <= heard["score"] < 1.0


@needs_suite
@pytest.mark.parametrize("family", [family for family, game in GAMES.items() if game.players == 1])
def test_a_game_played_alone_differs_from_seed_to_seed(table, family):
    states = set()
    for seed in range(3):
        heard = table.begin(GAMES[family].ids[0], seed, 0)
        if family == "Minesweeper":
            table.act("[2 2]")  # which lays the mines
        states.add(heard["text"] + str(table.game.state.game_state))
    assert len(states) == 3


@needs_suite
@pytest.mark.parametrize("family", EXPERTS)
async def test_experts_win(make, family):
    world = make(family)
    for task in world.tasks("test")[: 2 * len(world.ids)]:
        if task.data["id"] == "Mastermind-v0-extreme":
            with pytest.raises(EnvironmentFault, match="too many codes"):
                world.solve(task, 0)
        else:
            solution = world.solve(task, 0)
            assert solution == world.solve(task, 1)
            assert (await play(world, task, solution))[-1].reward == 1.0, task.id


def test_tictactoe_s_values_and_nim_s_move_are_right():
    assert best("." * 9, "O")[0] == 0
    assert best("OO.XX....", "O") == (1, 2)
    assert best("OO..X....", "X") == (0, 2)  # which would be three

    class Piles:
        class state:
            game_state = {"piles": [3, 4, 5]}  # noqa: RUF012

    assert take(Piles) == "[0 2]"  # 1 ^ 4 ^ 5 = 0


@needs_suite
async def test_an_opponent_sees_the_game_from_its_seat_and_loses_what_we_win(make):
    call = Message("assistant", "", (ToolCall("act", {"command": "[3]"}, "call_9"),))
    opponent = Sayer(call, say("I take [4]."))
    world = make("TicTacToe", opponent=opponent)
    task = world.tasks("test")[0]
    steps = await play(world, task, acts(["[0]", "[1]", "[2]"]))
    assert [step.reward for step in steps] == [None, None, 1.0]
    first, second = opponent.shown
    assert first[1][0] == "user"
    assert "You are Player 1" in first[1][1]
    assert "placed their symbol (O) in cell 0" in first[1][1]
    assert [role for role, _ in second] == ["system", "user", "assistant", "tool"]
    assert "Player 0 has won!" in steps[-1].observation.messages[0].content
    assert world.speakers == [opponent]
    with pytest.raises(EnvironmentFault, match="leave out `opponent`"):
        world.solve(task, 0)


@needs_suite
async def test_the_second_seat_moves_second_and_hears_what_was_said(make):
    opponent = Sayer(say("Peace? I am Bob."), say("[Defect]"), say("Sorry."))
    world = make("IteratedPrisonersDilemma", opponent=opponent)
    task = world.tasks("test")[1]
    assert task.id == "textarena/IteratedPrisonersDilemma-v0/2000000/1"
    session = world.open()
    first = await session.reset(task, 0)
    assert "Peace? I am Bob." in first.messages[1].content
    await session.step(acts(["Peace."])[0])
    step = await session.step(acts(["[Cooperate]"])[0])
    assert "Sorry." in step.observation.messages[0].content
    await session.close()


@needs_suite
async def test_an_unfinished_game_is_lost_and_a_fork_plays_on(make):
    world = make("TicTacToe")
    task = world.tasks("test")[0]
    (step,) = await play(world, task, [say("I give up.")])
    assert (step.done, step.reward) == (True, -1.0)
    (cut,) = await collect(scripted(acts(["[0]"])), [task], agent=native(), max_turns=1)
    assert cut.episodes[0].reward == -1.0
    solution = world.solve(task, 0)
    session, fork = world.open(), world.open()
    await session.reset(task, 0)
    await session.step(solution[0])
    await fork.restore(await session.snapshot())
    for message in solution[1:]:
        assert await fork.step(message) == await session.step(message)
    assert fork.done
    await session.close()
    await fork.close()
    alone = make("GuessTheNumber")
    (step,) = await play(alone, alone.tasks("test")[0], [say("7?")])
    assert (step.done, step.reward) == (True, 0.0)


@needs_suite
async def test_who_breaks_the_rules_twice_loses_and_is_told_after_the_first_time(make):
    world = make("Nim")
    steps = await play(world, world.tasks("test")[0], acts(["[9 9]", "[9 9]"]))
    assert "invalid move" in steps[0].observation.messages[0].content
    assert [step.reward for step in steps] == [None, -1.0]


@needs_suite
async def test_in_self_play_the_same_policy_has_both_seats_and_is_trained_in_either(make, tiny_policy):
    world = make("KuhnPoker-v0", self_play=True)
    tasks = world.tasks("train")[:2]
    assert [task.data["seat"] for task in tasks] == [0, 1]
    assert len({task.data["seed"] for task in tasks}) == 1
    with pytest.raises(EnvironmentFault, match="needs to know who plays"):
        await world.open().reset(tasks[0], 0)
    made = await collect(
        tiny_policy, tasks, agent=native(), group=2, sampling=Sampling(max_tokens=8), max_turns=4, seed=3
    )
    assert world.speakers == [tiny_policy]
    assert [e.failure for t in made for e in t.episodes] == [None] * 4
    for t in made:
        assert {e.reward for e in t.episodes} <= {-1.0, 0.0, 1.0}
        sampled = [n for n in t.nodes if n.sampled_T is not None and n.sampled_T.any()]
        assert sampled
        assert {t.messages[n.message].role for n in sampled} == {"assistant"}


@needs_suite
async def test_an_opponent_that_breaks_the_rules_loses_even_before_our_first_move(make):
    world = make("TicTacToe", opponent=Sayer(say("Hello?"), say("Hello?")))
    steps = await play(world, world.tasks("test")[1], acts(["[0]"]))
    assert (steps[0].done, steps[0].reward) == (True, 1.0)


@needs_suite
def test_tasks_are_fixed_and_wrong_settings_refused(make):
    world = make(["Nim", "TicTacToe-v0"])
    tasks = {split: world.tasks(split) for split in ("train", "dev", "test")}
    assert [len(split) for split in tasks.values()] == [8000, 800, 800]
    assert len({task.id for split in tasks.values() for task in split}) == 9600
    assert tasks["dev"][5].id == "textarena/Nim-v0-medium/1000000/1"
    assert tasks["dev"][5].difficulty == 1.0
    assert (world.reward_range, make("Sudoku").reward_range) == ((-1.0, 1.0), (0.0, 1.0))
    with pytest.raises(PartError, match=r"no game 'TicTacTo'; did you mean 'TicTacToe'"):
        make("TicTacTo")
    with pytest.raises(PartError, match="GuessTheNumber-v0 has no opponent"):
        make(self_play=True)
    with pytest.raises(PartError, match="leave out `opponent`"):
        make("Nim", opponent=Sayer(), self_play=True)
    with pytest.raises(PartError, match="no split 'tests'"):
        world.tasks("tests")


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'etude\[textarena\]'"):
        textarena()
