"""BabyAI in words: a small grid of rooms, an instruction, a view of seven by seven cells, six actions.

Chevalier-Boisvert et al. 2019, "BabyAI: A Platform to Study the Sample Efficiency of Grounded Language Learning",
arXiv:1810.08272, in its version for Minigrid 3 (Apache-2.0). What is seen is told in words, as Carta et al. 2023 do,
arXiv:2302.02662. The suite's own bot is the expert; difficulty is the number of actions it takes.

Departures: the reward is success, 1 or 0, and not less for a longer way; the action `done`, which nothing needs, is
left out. A grid on which the bot gets lost, as it does on a third of UnlockToUnlock, is replaced by the next one. Left
out are levels that the bot does not play at all: those that begin with something in hand (`…Carrying`), KeyInBox, and
those that allow no mistake (`…Debug`).
"""

import contextlib
import io
import os
import pickle
from dataclasses import dataclass
from functools import cache
from typing import Any

from etude.core.errors import EnvironmentFault, PartError, missing_extra, suggest
from etude.core.parts import part
from etude.environments.base import LazyTasks, Tasks, ToolSession
from etude.protocols import Observation, Task
from etude.trajectory import Message, ToolCall

INSTALL = "pip install 'etude[babyai]'"
PAPER = [
    "GoToObj", "GoToRedBallGrey", "GoToRedBall", "GoToLocal", "PutNextLocal", "PickupLoc", "GoToObjMaze",
    "GoTo", "Pickup", "UnblockPickup", "Open", "Unlock", "PutNextS7N4", "Synth", "SynthLoc", "GoToSeq",
    "SynthSeq", "GoToImpUnlock", "BossLevel",
]  # fmt: skip
ACTIONS = {  # in the order of minigrid's numbers
    "turn_left": "turn left on the spot",
    "turn_right": "turn right on the spot",
    "move_forward": "go one step ahead, where nothing is in the way",
    "pick_up": "pick up what is one step ahead; you can carry one thing",
    "drop": "put down what you carry one step ahead, where nothing is",
    "toggle": "open or close the door one step ahead, or a box; a locked door needs the key of its colour in your hand",
}
TOOLS = [
    {"name": name, "description": told, "parameters": {"type": "object", "properties": {}}}
    for name, told in ACTIONS.items()
]
FIRST_SEED = {"train": 0, "dev": 10**9, "test": 2 * 10**9}
TRIES = 100  # seeds of a task; the first that the bot solves is its grid
SEARCHES = 200  # that the bot may need for one action: where it is lost it searches for ever


@part
@dataclass(eq=False)
class babyai(Tasks):
    """Levels of BabyAI; the tasks of a split take them in turn.

    Making a task has the bot solve it, which takes 5 ms in a small room and a second in the largest mazes.
    """

    levels: list[str] | str = ""
    """Such as `GoToLocal` or `[GoTo, BossLevel]`; by default those of the paper, from easy to hard."""
    size: int = 2000
    """Tasks in the split `train`; `dev` and `test` have a tenth."""
    name = "babyai"
    reward_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        self.levels = [self.levels] if isinstance(self.levels, str) and self.levels else list(self.levels) or PAPER
        for level in self.levels:
            if level not in playable():
                raise PartError(f"environments/babyai: no level {level!r}; {suggest(level, playable())}")

    def tasks(self, split: str) -> LazyTasks:
        """Tasks of `train`, `dev` or `test`. Raises PartError for another split."""
        if split not in FIRST_SEED:
            raise PartError(f"environments/babyai has no split {split!r}; {suggest(split, FIRST_SEED)}")
        return LazyTasks(lambda i: self._make(split, i), self.size if split == "train" else self.size // 10)

    def _make(self, split: str, i: int) -> Task:
        n, which = divmod(i, len(self.levels))
        level = self.levels[which]
        seed, solution = solvable(level, FIRST_SEED[split] + n * TRIES)
        data = {"level": level, "seed": seed, "solution": solution}
        skills = tuple(sorted({action for action in solution if action not in ("turn_left", "turn_right")}))
        return Task(f"babyai/{level}/{split}/{n}", self, split, data, level, float(len(solution)), skills, "minigrid")

    def open(self) -> "BabyaiSession":
        return BabyaiSession()

    def solve(self, task: Task, seed: int) -> list[Message]:
        """What the bot does."""
        return [
            Message("assistant", tool_calls=(ToolCall(action, {}, f"call_{n}"),))
            for n, action in enumerate(task.data["solution"], 1)
        ]


@cache
def playable() -> dict[str, str]:
    """Level -> id in Gymnasium's registry."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        import minigrid  # noqa: F401  # pyright: ignore[reportMissingImports]
        from gymnasium import registry  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise missing_extra("babyai", "minigrid") from error
    ids = {id.removeprefix("BabyAI-")[:-3]: id for id in registry if id.startswith("BabyAI-")}
    return {level: id for level, id in ids.items() if not level.endswith(("Carrying", "Debug", "KeyInBox"))}


def begun(level: str, seed: int) -> Any:
    """The suite's environment at its start."""
    import gymnasium  # pyright: ignore[reportMissingImports]

    env = gymnasium.make(playable()[level], disable_env_checker=True).unwrapped
    with contextlib.redirect_stdout(io.StringIO()):  # it prints each grid that it draws and rejects
        env.reset(seed=seed)
    return env


@cache
def solvable(level: str, first: int) -> tuple[int, list[str]]:
    """The first seed from `first` on that the bot solves, and its actions."""
    for seed in range(first, first + TRIES):
        if solution := solved(begun(level, seed)):
            return seed, solution
    raise EnvironmentFault(f"level {level!r}: the bot solves none of the seeds {first} to {first + TRIES - 1}")


def solved(env: Any) -> list[str]:
    """The actions by which the bot fulfils the mission; none where it gets lost or fails."""
    from minigrid.utils.baby_ai_bot import BabyAIBot  # pyright: ignore[reportMissingImports]

    bot, names, actions, action = BabyAIBot(env), list(ACTIONS), list[str](), None
    search, searches = bot._breadth_first_search, 0

    def counted(*arguments: Any, **settings: Any) -> Any:
        nonlocal searches
        searches += 1
        if searches > SEARCHES * (len(actions) + 1):
            raise AssertionError("lost")
        return search(*arguments, **settings)

    bot._breadth_first_search = counted
    over, reward = False, 0.0
    while not over:
        try:
            action = bot.replan(action)
        except AssertionError:  # its own plans end so, too, where they find no way
            return []
        if action >= len(names):  # it believes that it is done
            return []
        actions.append(names[action])
        _, reward, terminated, truncated, _ = env.step(action)
        over = terminated or truncated
    return actions if reward > 0 else []


# -- what is seen, in words ------------------------------------------------------------------------------------------


def view(env: Any) -> str:
    """What the agent sees from where it stands, nearest first, how far the walls are, and what it carries."""
    grid, visible = env.gen_obs_grid()
    column, row = grid.width // 2, grid.height - 1  # where the agent stands, facing row 0
    seen = []
    for x in range(grid.width):
        for y in range(grid.height):
            thing = grid.get(x, y)
            if visible[x, y] and thing is not None and thing.type != "wall" and (x, y) != (column, row):
                seen.append((row - y + abs(column - x), row - y, column - x, called(thing)))
    things = [f"{name} {place(ahead, left)}" for _, ahead, left, name in sorted(seen)]

    def wall(dx: int, dy: int) -> int:
        """Steps to the wall in this direction; 0 where none is in view, or something hides it."""
        x, y, steps = column + dx, row + dy, 1
        while 0 <= x < grid.width and y >= 0 and visible[x, y]:
            if (thing := grid.get(x, y)) is not None and not thing.can_overlap():
                return steps if thing.type == "wall" else 0
            x, y, steps = x + dx, y + dy, steps + 1
        return 0

    walls = [place(ahead, 0) for ahead in [wall(0, -1)] if ahead]
    walls += [place(0, left) for left in (wall(-1, 0), -wall(1, 0)) if left]
    lines = [f"You see {', '.join(things)}." if things else "You see nothing but the floor."]
    lines += [f"Walls: {', '.join(walls)}."] if walls else []
    return " ".join([*lines, f"You carry {called(env.carrying) if env.carrying else 'nothing'}."])


def called(thing: Any) -> str:
    state = ""
    if thing.type == "door":
        state = "open " if thing.is_open else "locked " if thing.is_locked else "closed "
    words = f"{state}{thing.color} {thing.type}"
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def place(ahead: int, left: int) -> str:
    """Where something is, seen from the agent.

    >>> place(2, -1), place(0, 1), place(1, 0)
    ('2 steps ahead and 1 to the right', '1 step to the left', '1 step ahead')
    """
    side = f"to the {'left' if left > 0 else 'right'}"
    if not ahead:
        return f"{_steps(abs(left))} {side}"
    return f"{_steps(ahead)} ahead" + (f" and {abs(left)} {side}" if left else "")


def _steps(count: int) -> str:
    return "1 step" if count == 1 else f"{count} steps"


def touched(env: Any) -> Any:
    """All that an action can change: where the agent stands and looks, what it carries, what is in front of it."""
    front = env.grid.get(*env.front_pos)
    return tuple(env.agent_pos), env.agent_dir, env.carrying, front and front.encode()


# -- an episode ------------------------------------------------------------------------------------------------------


class BabyaiSession(ToolSession):
    """One mission. The grid depends on the task alone: the seed of `reset` changes nothing."""

    async def begin(self, task: Task, seed: int) -> Observation:
        self.tools, self.env, self.success = TOOLS, begun(task.data["level"], task.data["seed"]), False
        told = f"You move through rooms on a grid, one step at a time. Your mission: {self.env.mission}. "
        told += f"It ends when you have fulfilled it, after {self.env.max_steps} actions, or when you no longer act."
        return Observation((Message("system", told), Message("user", view(self.env))))

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        before = touched(self.env)
        _, reward, terminated, truncated, _ = self.env.step(list(ACTIONS).index(name))
        self.success = reward > 0
        self.done = bool(terminated or truncated)
        return f"{'Nothing changed. ' if touched(self.env) == before else ''}{view(self.env)}"

    async def finish(self, answer: str) -> float:
        return float(self.success)

    def current_reward(self) -> float:
        """Nothing, for what fulfils the mission ends it."""
        return 0.0

    def save(self) -> bytes:
        return pickle.dumps((self.env, self.success))

    def load(self, state: bytes) -> None:
        self.env, self.success = pickle.loads(state)
