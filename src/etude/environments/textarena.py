"""TextArena: games in words, alone or against an opponent, who may be any policy or the one that is being trained.

Guertler et al. 2025, "TextArena", arXiv:2504.11442; https://github.com/LeonGuertler/TextArena, MIT, as are its texts.
Self-play with roles that change as in Liu et al. 2025, "SPIRAL", arXiv:2506.24119.

The agent has one tool, `act(command)`; what the suite's rules ask to be written in square brackets goes there. An
episode's reward is the game's, at its end: alone 0 to 1, for a part of a puzzle a part; against an opponent 1 for a
win, -1 for a loss, 0 for a draw. Who breaks the rules twice in a row ends the game, and loses it. Who stops before the
end has 0 alone, and -1 against an opponent, so that nothing is better than playing on.

The opponent is one of

- nobody in particular: seeded random moves that the rules allow, which each game tries on a copy of itself;
- `opponent`, any policy. It sits in the world as a `Speaker`, with the same tool and a dialogue of its own;
- with `self_play`, the policy that plays, as it is at that moment. Two tasks in a row are the same game from either
  seat, and each is an episode with a reward of its own, so that both sides are trained. What the opponent says in one
  episode is not trained there. Two equal players earn 0 on average: measure against something else.

Departures: the suite shows all that happened again at each turn; here the agent is shown what is new. The ids below are
the suite's that start on this Python without a language model as a judge and without NLTK's corpora, that differ from
seed to seed where they are played alone (`TowerOfHanoi`, `PegJump`, `Countdown` and `Cryptarithm` are one puzzle each,
of which none could be held out), and whose rewards are sound: `Bandit` pays the regret of a wrong answer, `Set` points
without a limit, and `Slitherlink` fails at a wrong move. Rewards below 0 for a broken rule in games played alone are 0.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import copy
import importlib.util
import itertools
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, TypedDict

from etude.core.errors import EnvironmentFault, PartError, missing_extra, suggest
from etude.core.parts import part
from etude.environments.base import LazyTasks, Speaker, Tasks, acts
from etude.environments.hosted import HostedSession
from etude.protocols import Observation, Policy, Sampling, Task
from etude.tools.process import Crew
from etude.trajectory import Message

INSTALL = "pip install 'etude[textarena]'"
VERSION = "0.7.4"
FIRST_SEED = {"train": 0, "dev": 10**6, "test": 2 * 10**6}
CODES = 10_000  # most codes of Mastermind that its expert goes through


class Game(NamedTuple):
    """A family of the suite's ids."""

    players: int
    skills: tuple[str, ...]
    ids: tuple[str, ...]
    """From easy to hard; the place is the difficulty."""
    moves: tuple[str, ...] = ()
    """All that can ever be a move, for an opponent who plays at random."""


def _ids(family: str, *variants: str) -> tuple[str, ...]:
    return tuple(f"{family}-v0{variant}" for variant in variants)


FILES = "abcdefghij"
STEPS = [(f, g, r) for r in range(1, 11) for f, g in itertools.product(range(10), repeat=2) if abs(f - g) < 2]
GAMES = {
    "GuessTheNumber": Game(1, ("search",), _ids("GuessTheNumber", "", "-hardcore")),
    "Mastermind": Game(1, ("deduction",), _ids("Mastermind", "", "-hard", "-extreme")),
    "Minesweeper": Game(1, ("deduction",), _ids("Minesweeper", "-small", "", "-medium", "-hard")),
    "Sudoku": Game(1, ("deduction",), _ids("Sudoku", "-very-easy", "-easy", "", "-medium")),
    "LogicPuzzle": Game(1, ("deduction",), _ids("LogicPuzzle", "", "-hard")),
    "Crosswords": Game(1, ("words",), _ids("Crosswords", "", "-hardcore")),
    "FrozenLake": Game(1, ("navigation",), _ids("FrozenLake", "", "-random", "-hardcore")),
    "LightsOut": Game(1, ("planning",), _ids("LightsOut", "")),
    "FifteenPuzzle": Game(1, ("planning",), _ids("FifteenPuzzle", "")),
    "Sokoban": Game(1, ("planning",), _ids("Sokoban", "")),
    "2048": Game(1, ("planning",), _ids("2048", "-ultra-easy", "-mega-easy", "-super-easy", "-very-easy", "-easy", "")),
    "Secretary": Game(1, ("chance",), _ids("Secretary", "", "-long")),
    "Blackjack": Game(1, ("chance",), _ids("Blackjack", "", "-long")),
    "ThreeCardMonte": Game(1, ("tracking",), _ids("ThreeCardMonte", "")),
    "TicTacToe": Game(2, ("board games",), _ids("TicTacToe", ""), tuple(f"[{n}]" for n in range(9))),
    "WildTicTacToe": Game(
        2, ("board games",), _ids("WildTicTacToe", ""), tuple(f"[{mark} {n}]" for mark in "XO" for n in range(9))
    ),
    "ConnectFour": Game(
        2, ("board games",), _ids("ConnectFour", "", "-large", "-blind"), tuple(f"[col {n}]" for n in range(15))
    ),
    "Nim": Game(
        2,
        ("board games",),
        _ids("Nim", "", "-medium", "-large"),
        tuple(f"[{pile} {n}]" for pile in range(5) for n in range(1, 12)),
    ),
    "Othello": Game(
        2,
        ("board games",),
        _ids("Othello", "-tiny", "-small", "", "-hard", "-big"),
        tuple(f"[{row}, {column}]" for row in range(10) for column in range(10)),
    ),
    "Breakthrough": Game(
        2,
        ("board games",),
        _ids("Breakthrough", "-tiny", "-small", "", "-large", "-blind"),
        tuple(f"[{FILES[f]}{r}{FILES[g]}{r + up}]" for f, g, r in STEPS for up in (1, -1) if 0 < r + up < 11),
    ),
    "Chopsticks": Game(
        2,
        ("board games",),
        _ids("Chopsticks", "", "-medium", "-long"),
        tuple(f"[attack {a} {b}]" for a in range(2) for b in range(2))
        + tuple(f"[split {a} {b}]" for a in range(5) for b in range(5)),
    ),
    "KuhnPoker": Game(
        2,
        ("bluffing", "chance"),
        _ids("KuhnPoker", "", "-short", "-medium", "-long", "-extreme"),
        ("[check]", "[bet]", "[call]", "[fold]"),
    ),
    "PigDice": Game(2, ("chance",), _ids("PigDice", "-short", "-50", ""), ("[roll]", "[hold]")),
    "GameOfPureStrategy": Game(
        2, ("bidding",), _ids("GameOfPureStrategy", ""), tuple(f"[{card}]" for card in (*"A23456789JQK", "10"))
    ),
    "IteratedRockPaperScissors": Game(
        2, ("reading an opponent",), _ids("IteratedRockPaperScissors", ""), ("[rock]", "[paper]", "[scissors]")
    ),
    "IteratedMatchingPennies": Game(
        2, ("reading an opponent",), _ids("IteratedMatchingPennies", ""), ("[heads]", "[tails]")
    ),
    "IteratedPrisonersDilemma": Game(
        2, ("negotiation",), _ids("IteratedPrisonersDilemma", ""), ("[Cooperate]", "[Defect]")
    ),
    "IteratedUltimatumGame": Game(
        2,
        ("negotiation",),
        _ids("IteratedUltimatumGame", "", "-alternate"),
        ("[Accept]", "[Reject]", *(f"[Offer: ${n}]" for n in range(51))),
    ),
}
FAMILY = {id: family for family, game in GAMES.items() for id in game.ids}
ACT = {
    "name": "act",
    "description": "make your move, or say something, as the rules of the game ask for",
    "parameters": {
        "type": "object",
        "properties": {"command": {"type": "string", "description": "such as: [4]"}},
        "required": ["command"],
    },
}
INSTRUCTION = """You play a game: act with one command at a time until it is over. What the rules ask you to write in \
square brackets belongs in the command, brackets included. Breaking the rules twice in a row ends the game."""
SAMPLING = Sampling(max_tokens=256, temperature=1.0)
"""Of an opponent."""


@part
@dataclass(eq=False)
class textarena(Tasks):
    """Games of TextArena; task n of a split is the n-th seed. A task's difficulty is its place in its family.

    Raises PartError for an unknown game or settings that do not fit, MissingExtra where the suite is not installed.
    """

    games: list[str] | str = "GuessTheNumber"
    """Families such as `TicTacToe`, or the suite's ids such as `TicTacToe-v0`; in turn where there are several."""
    opponent: Policy | None = None
    """Who sits opposite: a part of `policies`, or the name of a local model. None: seeded random moves."""
    self_play: bool = False
    """Whether the policy that plays sits opposite, too."""
    size: int = 2000
    """Tasks of each id in the split `train`; `dev` and `test` have a tenth."""
    max_steps: int = 100
    """Messages of the agent after which a game is unfinished."""
    optimal = False
    at_once = 8

    def __post_init__(self) -> None:
        named = [self.games] if isinstance(self.games, str) else self.games
        for game in named:
            if game not in GAMES and game not in FAMILY:
                raise PartError(f"environments/textarena: no game {game!r}; {suggest(game, [*GAMES, *FAMILY])}")
        self.ids = [id for game in named for id in (GAMES[game].ids if game in GAMES else [game])]
        alone = [id for id in self.ids if GAMES[FAMILY[id]].players == 1]
        if self.opponent is not None and self.self_play:
            raise PartError("environments/textarena: self_play seats the policy that plays; leave out `opponent`")
        if alone and (self.opponent is not None or self.self_play):
            raise PartError(f"environments/textarena: {alone[0]} has no opponent; leave out `opponent` and `self_play`")
        if importlib.util.find_spec("textarena") is None:
            raise missing_extra("textarena", "textarena")
        self.name = f"textarena/{'+'.join(named)}"
        self.reward_range = (0.0, 1.0) if len(alone) == len(self.ids) else (-1.0, 1.0)
        worker: dict[str, Any] = {"target": f"{__name__}:Table", "env": {"PYTHONHASHSEED": "0"}}
        self.crew, self.solvers = Crew(**worker, size=self.at_once), Crew(**worker, size=1)

    @property
    def speakers(self) -> list[Policy]:
        return [self.opponent] if self.opponent is not None else []

    def meet(self, policy: Policy) -> None:
        """Told by `rollout` who plays."""
        if self.self_play:
            self.opponent = policy

    def tasks(self, split: str) -> LazyTasks:
        """Tasks of `train`, `dev` or `test`. Raises PartError for another split."""
        if split not in FIRST_SEED:
            raise PartError(f"{self.name} has no split {split!r}; {suggest(split, FIRST_SEED)}")
        size = self.size if split == "train" else self.size // 10
        return LazyTasks(lambda i: self._make(split, i), size * len(self.ids))

    def _make(self, split: str, i: int) -> Task:
        id, n = self.ids[i % len(self.ids)], i // len(self.ids)
        game = GAMES[FAMILY[id]]
        seed, seat = divmod(n, game.players)
        data = {"id": id, "seed": FIRST_SEED[split] + seed, "seat": seat}
        place = float(game.ids.index(id))
        name = f"textarena/{id}/{data['seed']}" + (f"/{seat}" if game.players > 1 else "")
        return Task(name, self, split, data, FAMILY[id], place, game.skills, f"textarena {VERSION}")

    def open(self) -> GameSession:
        return GameSession(self)

    def solve(self, task: Task, seed: int) -> list[Message]:
        """How an expert plays it: perfectly in TicTacToe and Nim, where the opponent may still reach a draw or win; by
        halving and by deduction in GuessTheNumber and Mastermind; by what it knows in FrozenLake and Sudoku.

        Raises EnvironmentFault for other games, and against a policy, whose moves nobody knows.
        """
        if self.opponent is not None or self.self_play:
            raise EnvironmentFault(
                f"{task.id}: what a policy will do is not known; leave out `opponent` for a solution"
            )
        if task.domain not in EXPERTS:
            raise EnvironmentFault(
                f"{task.id}: there is no expert for {task.domain}; there is for {', '.join(EXPERTS)}"
            )
        return acts(self.solvers.ask("solution", **task.data))


class Heard(TypedDict):
    """What happened since."""

    text: str
    """What the agent is shown; '' while it is not its turn."""
    opposite: str
    """What the opponent is shown where it is its turn and the world has to ask it; else ''."""
    score: float | None
    """The agent's, once the game is over."""


class GameSession(HostedSession):
    """One seat at one game, which is in the worker."""

    def __init__(self, world: textarena):
        super().__init__(world.crew, max_steps=world.max_steps, max_chars=20_000, call_seconds=300.0)
        self.world = world

    async def begin(self, task: Task, seed: int) -> Observation:
        self.tools, self.score, self.waiting = [ACT], None, list[str]()
        self.least = 1.0 - GAMES[task.domain].players  # 0 alone, -1 against an opponent
        self.speaker = None
        if (opponent := self.world.opponent) is not None:
            self.speaker = Speaker(
                opponent, INSTRUCTION, task=task.id, tools=[ACT], sampling=SAMPLING, seed=seed, said=self.said
            )
        elif self.world.self_play:
            raise EnvironmentFault(f"{task.id}: self_play needs to know who plays; play it by `collect` or `practise`")
        told = await self._until_our_turn(await self.ask("begin", **task.data, hosted=self.speaker is not None))
        return Observation((Message("system", INSTRUCTION), Message("user", told)))

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        if self.score is None:
            told = await self._until_our_turn(await self.ask("act", command=arguments["command"]))
        else:
            told = "The game is over."  # an opponent may lose before our first move
        self.done = self.score is not None
        return told

    async def finish(self, answer: str) -> float:
        return self.current_reward()

    def current_reward(self) -> float:
        """Of an episode that was cut: mostly a game that is not over."""
        return self.least if self.score is None else self.score

    async def _until_our_turn(self, heard: Heard) -> str:
        while heard["opposite"] and self.speaker is not None:
            command = await self._ask_opponent(self.speaker, heard["opposite"])
            heard = await self.ask("act", command=command)
        self.score = heard["score"]
        return heard["text"]

    async def _ask_opponent(self, speaker: Speaker, text: str) -> str:
        """Its move: the command of its call, or its words, for it may be a policy that writes no calls."""
        asked = [Message("tool", text, tool_call_id=id, name="act") for id in self.waiting] or [Message("user", text)]
        action = await speaker.answer(*asked)
        message = action.message
        if action.truncated and not message.content and not message.tool_calls:
            task = speaker.dialogue.task
            raise EnvironmentFault(f"{task}: the opponent had no room to say anything; give it more context")
        self.waiting = [call.id for call in message.tool_calls]
        given = [call.arguments for call in message.tool_calls if call.name == "act"]
        command = given[0].get("command") if given and isinstance(given[0], dict) else None
        return command if isinstance(command, str) else message.content


class Table:
    """The suite, in a worker process, for its games share Python's random numbers: one game at a time."""

    def __init__(self) -> None:
        import textarena  # noqa: F401  (takes seconds, which are not the first episode's)

    def begin(self, id: str, seed: int, seat: int, hosted: bool = False) -> Heard:
        """hosted: whether the opponent's moves come from outside, by `act`."""
        import numpy as np
        from textarena.envs.registration import ENV_REGISTRY, make

        if id not in ENV_REGISTRY:
            raise EnvironmentFault(f"textarena has no {id!r}; run:  {INSTALL}")
        random.seed(seed)
        np.random.seed(seed)
        self.kind, self.seat, self.hosted = GAMES[FAMILY[id]], seat, hosted
        self.luck = random.Random(f"opponent {seed} {seat}")
        self.wrapped = make(id)
        self.wrapped.reset(num_players=self.kind.players, seed=seed)
        return self._play_on()

    def act(self, command: str) -> Heard:
        """The move of whose turn it is."""
        self.wrapped.step(command)
        return self._play_on()

    @property
    def game(self) -> Any:
        """The game without the wrappers that repeat all that was said."""
        game = self.wrapped
        while hasattr(game, "env"):
            game = game.env
        return game

    def _play_on(self) -> Heard:
        state = self.game.state
        while not state.done and state.current_player_id != self.seat:
            if self.hosted:
                return {"text": "", "opposite": self._hear(1 - self.seat) or "It is your turn.", "score": None}
            self.wrapped.step(self._random_move())
        text = self._hear(self.seat)
        if not state.done:
            return {"text": text or "It is your turn.", "opposite": "", "score": None}
        reward = state.rewards[self.seat]
        if isinstance(reward, str):  # ThreeCardMonte gives the reason for the reward of a wrong move
            reward = 0.0
        score = min(1.0, max(1.0 - self.kind.players, float(reward)))
        reason = state.game_info[self.seat].get("reason", "")
        return {"text": f"{text}\nThe game is over. {reason}".strip(), "opposite": "", "score": score}

    def _hear(self, player: int) -> str:
        """What is new to a player, less its own words."""
        state = self.game.state
        new, state.observations[player] = state.observations[player], []
        lines = []
        for sender, text, kind in new:
            if kind.name != "PLAYER_ACTION":
                lines.append(text.strip())
            elif sender not in (player, -1):
                lines.append(f"[{state.role_mapping.get(sender, f'Player {sender}')}] {text.strip()}")
        return "\n".join(lines)

    def _random_move(self) -> str:
        """One of the moves that the rules allow now. In Breakthrough there may be none; whoever is stuck there loses by
        a wrong one, for the suite has no rule for it."""
        player = self.game.state.current_player_id
        for move in self.luck.sample(self.kind.moves, len(self.kind.moves)):
            chance, trial = random.getstate(), copy.deepcopy(self.game)
            trial.step(move)
            random.setstate(chance)
            if not trial.state.error_count and not trial.state.game_info[player]["invalid_move"]:
                return move
        if self.kind is GAMES["Breakthrough"]:
            return self.kind.moves[0]
        raise EnvironmentFault(
            f"{self.wrapped.env_id}: no move of the table is allowed in {self.game.state.game_state}"
        )

    def solution(self, id: str, seed: int, seat: int) -> list[str]:
        expert, commands = EXPERTS[FAMILY[id]], list[str]()
        heard = self.begin(id, seed, seat)
        while heard["score"] is None:
            commands.append(expert(self.game))
            heard = self.act(commands[-1])
        return commands


# -- experts: a game -> the next move --------------------------------------------------------------------------------


def guess(game: Any) -> str:
    """The middle of what is left."""
    low, high = game.min_number, game.max_number
    for number, hint in game.state.game_state["guess_history"]:
        low, high = (max(low, number + 1), high) if hint == "higher" else (low, min(high, number - 1))
    return f"[{(low + high) // 2}]"


def crack(game: Any) -> str:
    """The first code that would have been answered as all guesses were."""
    state = game.state.game_state
    size, digits, past = state["code_length"], range(1, state["num_numbers"] + 1), state["history"]
    if len(digits) ** size > CODES:
        raise EnvironmentFault(f"Mastermind: {len(digits)} digits in {size} places are too many codes to go through")
    codes = (
        itertools.product(digits, repeat=size) if state["duplicate_numbers"] else itertools.permutations(digits, size)
    )
    code = next(c for c in codes if all(pegs(c, p["guess"]) == (p["black"], p["white"]) for p in past))
    return f"[{' '.join(map(str, code))}]"


def pegs(code: Sequence[int], guessed: Sequence[int]) -> tuple[int, int]:
    """Digits in their place, and right digits elsewhere."""
    black = sum(a == b for a, b in zip(code, guessed, strict=True))
    return black, sum(min(code.count(d), guessed.count(d)) for d in set(guessed)) - black


def fill(game: Any) -> str:
    board = game.state.game_state["board"]
    row, column = next((r, c) for r in range(9) for c in range(9) if board[r][c] == 0)
    return f"[{row + 1} {column + 1} {game.full_grid[row][column]}]"


def walk(game: Any) -> str:
    """The first step of a shortest way that keeps off the holes."""
    state = game.state.game_state
    ways, seen = deque([(state["player_pos"], "")]), {state["player_pos"]}
    while ways:
        (row, column), first = ways.popleft()
        if (row, column) == state["goal_pos"]:
            return f"[{first}]"
        for name in ("up", "down", "left", "right"):
            down, right = game.actions[name]
            to = row + down, column + right
            on = 0 <= to[0] < game.size and 0 <= to[1] < game.size and state["grid"][to[0]][to[1]] != "H"
            if on and to not in seen:
                seen.add(to)
                ways.append((to, first or name))
    raise EnvironmentFault("FrozenLake: no way leads to the goal")


def take(game: Any) -> str:
    """Leaves piles whose sizes' exclusive or is 0 where that can be done, else takes one."""
    piles = game.state.game_state["piles"]
    total = 0
    for pile in piles:
        total ^= pile
    for n, pile in enumerate(piles):
        if pile ^ total < pile:
            return f"[{n} {pile - (pile ^ total)}]"
    return f"[{max(range(len(piles)), key=piles.__getitem__)} 1]"


def mark(game: Any) -> str:
    board = "".join(cell or "." for row in game.state.game_state["board"] for cell in row)
    return f"[{best(board, 'OX'[game.state.current_player_id])[1]}]"


LINES = ((0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6))


@cache
def best(board: str, mine: str) -> tuple[int, int]:
    """What TicTacToe is worth to who is to move, by minimax, and the first square that reaches it."""
    other = "O" if mine == "X" else "X"
    if any(board[a] == board[b] == board[c] == other for a, b, c in LINES):
        return -1, -1
    free = [n for n in range(9) if board[n] == "."]
    worth = [(-best(board[:n] + mine + board[n + 1 :], other)[0], -n) for n in free]
    value, square = max(worth, default=(0, 1))
    return value, -square


EXPERTS: dict[str, Callable[[Any], str]] = {
    "GuessTheNumber": guess,
    "Mastermind": crack,
    "Sudoku": fill,
    "FrozenLake": walk,
    "Nim": take,
    "TicTacToe": mark,
}
