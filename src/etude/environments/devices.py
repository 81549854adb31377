"""Devices that refuse without saying why: a user asks for one thing after another, and each kind wants something first.

The question of Lu et al. 2025, "Don't Just Fine-tune the Agent, Tune the Environment", arXiv:2510.10197, in small: a
gate is opened once it is unlocked, a drone flies once it is charged, and who does not know is told `not allowed`. What
is called is run; a message without calls ends the user's turn. Turn t is right where the devices are as the right calls
would have left them, and the results of those are among the turn's results:  r_t = state_t * results_t.  The reward is
their mean over the turns that want calls; a turn that wants none, because something was not said or a tool is not there
yet, must leave the devices alone, and is judged with the next. The four domains are those of the Berkeley
Function-Calling Leaderboard's conversations (see `environments/bfcl_turns`):

base    all that is needed is said and there
param   the user says only in the second turn how far
func    the tool comes only in the second turn
long    results carry a long log

`lesson` says of a refused call which precondition failed and which tool meets it, or which rule an argument broke; the
agent reads it where `environments/lessons` has the world teach.

The splits `train`, `dev` and `test` have eight kinds of device, `domains` three others, with other tools. In `start`
what a device does and wants first is drawn anew for each task, so that nobody can know it: its expert tries, reads why
not, and mends it.
"""

import copy
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from etude.core.errors import PartError, suggest
from etude.core.parts import part
from etude.environments.base import LazyTasks, Tasks, ToolSession
from etude.environments.functions import ToolError
from etude.protocols import Observation, Task
from etude.trajectory import Message, ToolCall

Kinds = dict[str, tuple[str, str]]
State = dict[str, dict[str, Any]]
KINDS: Kinds = {
    "gate": ("open", "unlock"),
    "crane": ("lift", "unlock"),
    "drone": ("fly", "charge"),
    "lamp": ("light", "charge"),
    "pump": ("run", "clean"),
    "lens": ("scan", "clean"),
    "oven": ("bake", "heat"),
    "press": ("stamp", "heat"),
}
"""Device -> what it does, and what it wants first."""
UNSEEN: Kinds = {"kiln": ("fire", "fill"), "winch": ("pull", "grease"), "valve": ("drain", "prime")}
MORE = [
    ["clock", "door", "fan", "boat", "bell", "tank", "robot", "train"],
    ["turn", "move", "ring", "show", "send", "play", "check", "spin"],
    ["lock", "wash", "warm", "load", "wake", "test", "plug", "oil"],
]
"""Words for further devices, what they do, and what they want first; they are in `start` alone."""
DOMAINS = ("base", "param", "func", "long")
HIGHEST = 9
STEPS = 5
"""Messages with calls in one turn."""
REFUSED, OK = "not allowed", "ok"
READ = {
    "name": "read",
    "description": "read a device",
    "parameters": {"type": "object", "properties": {"device": {"type": "string"}}, "required": ["device"]},
}
DONE, ASK, LACK = "Done.", "How far?", "I cannot do that yet."


@part
@dataclass(eq=False)
class devices(Tasks):
    """Two devices, one or two wishes, hidden preconditions.

    >>> devices().tasks("test")[0].id
    'devices/test/0'
    """

    progress: bool = True
    """Whether the reward is the share of right turns; else it is 1 where all were right and 0 otherwise."""
    size: int = 400
    """Tasks in the split `train`, and in `start`; the others have half."""
    name = "devices"
    reward_range = (0.0, 1.0)

    def tasks(self, split: str) -> LazyTasks:
        """Tasks of `train`, `dev`, `test`, `domains` or `start`. Raises PartError for another split."""
        sizes = dict.fromkeys(("train", "start"), self.size) | dict.fromkeys(("dev", "test", "domains"), self.size // 2)
        if split not in sizes:
            raise PartError(f"environments/devices has no split {split!r}; {suggest(split, sizes)}")
        return LazyTasks(lambda i: self._make(split, i), sizes[split])

    def _make(self, split: str, i: int) -> Task:
        rng = random.Random(f"devices/{split}/{i}")
        domain = "base" if split == "start" else DOMAINS[i % len(DOMAINS)]
        kinds = UNSEEN if split == "domains" else _by_chance(rng) if split == "start" else KINDS
        data: dict[str, Any] = {**_draw(rng, kinds, domain), "tries": split == "start"}
        skills = tuple(sorted({data["kinds"][device][1] for device in data["kinds"]}))
        turns = float(len(data["turns"]))
        return Task(f"devices/{split}/{i}", self, split, data, domain, turns, skills, "devices.py")

    def open(self) -> "DevicesSession":
        return DevicesSession(self.progress)

    def solve(self, task: Task, seed: int) -> list[Message]:
        """The right calls, one a message; in `start` each is tried before what it wants first."""
        said = list[Message]()
        for turn in task.data["turns"]:
            calls = [ToolCall(name, arguments) for name, arguments in turn["calls"]]
            if task.data["tries"] and len(calls) == 2:
                calls.insert(0, calls[-1])
            said += [Message("assistant", tool_calls=(call,)) for call in calls]
            said.append(Message("assistant", DONE if calls else ASK if task.domain == "param" else LACK))
        return said


def _draw(rng: random.Random, kinds: Kinds, domain: str) -> dict[str, Any]:
    """Two devices, the first of which wants something first, and what is asked of them."""
    mine = rng.sample(sorted(kinds), 2)
    state = {device: {"ready": False, "level": rng.randint(1, HIGHEST)} for device in mine}
    state[mine[1]]["ready"] = rng.random() < 0.5
    right, turns = copy.deepcopy(state), list[dict[str, Any]]()
    wishes = mine[:1] if domain in ("param", "func") else [mine[0], *rng.sample(mine, rng.randint(0, 1))]
    for n, device in enumerate(wishes):
        action, first = kinds[device]
        if n and rng.random() < 0.5:
            turns.append({"asked": f"What is the {device} at?", "calls": [("read", {"device": device})]})
            continue
        level = rng.choice([one for one in range(1, HIGHEST + 1) if one != right[device]["level"]])
        calls: list[tuple[str, dict[str, Any]]] = [] if right[device]["ready"] else [(first, {"device": device})]
        calls.append((action, {"device": device, "level": level}))
        right[device] = {"ready": True, "level": level}
        please = rng.choice([f"Please {action}", action.capitalize()])
        whole = f"{please} the {device} to {level}."
        if domain == "param":
            turns += [{"asked": f"{please} the {device}.", "calls": []}, {"asked": f"To {level}.", "calls": calls}]
        elif domain == "func":
            now = f"You have the tool {action}, with device and level, now."
            turns += [{"asked": whole, "calls": []}, {"asked": now, "calls": calls}]
        else:
            turns.append({"asked": whole, "calls": calls})
    firsts = sorted({first for _, first in kinds.values()})
    return {
        "kinds": {device: list(kinds[device]) for device in mine},
        "state": state,
        "turns": turns,
        "firsts": rng.sample(firsts, len(firsts)),
        "later": kinds[mine[0]][0] if domain == "func" else "",
        "log": " ".join(f"{rng.choice(mine)} {rng.randint(1, HIGHEST)};" for _ in range(12))
        if domain == "long"
        else "",
    }


def _by_chance(rng: random.Random) -> Kinds:
    """Four kinds of the words that there are, put together by chance."""
    known = [sorted(KINDS), *(sorted(set(words)) for words in zip(*KINDS.values(), strict=True))]
    device, action, first = (rng.sample([*some, *more], 4) for some, more in zip(known, MORE, strict=True))
    return {d: (a, f) for d, a, f in zip(device, action, first, strict=True)}


def schema(name: str, description: str, *, level: bool) -> dict[str, Any]:
    """A tool for a device."""
    properties = {"device": {"type": "string"}} | ({"level": {"type": "integer"}} if level else {})
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"name": name, "description": description, "parameters": parameters}


class DevicesSession(ToolSession):
    """One conversation: the devices as they are, and as they should be after the turns so far."""

    def __init__(self, progress: bool):
        super().__init__()
        self.progress = progress

    async def begin(self, task: Task, seed: int) -> Observation:
        self.data = task.data
        self.state, self.right = (copy.deepcopy(self.data["state"]) for _ in range(2))
        self.turn, self.results, self.alone, self.matched = 0, list[str](), True, list[bool]()
        self.tools = []
        return Observation((Message("system", "You run the devices."), *self._next_turn()))

    def _next_turn(self) -> tuple[Message, ...]:
        self.max_steps, self.results = len(self.actions) + STEPS + 1, []
        self._offer()
        return (Message("user", self.data["turns"][self.turn]["asked"]),)

    def _offer(self) -> None:
        """Set the tools of this turn; in place, for the agent's loop looks at the same list."""
        absent = self.data["later"] if self.turn == 0 else ""
        actions = [schema(a, f"{a} the {d}", level=True) for d, (a, _) in self.data["kinds"].items() if a != absent]
        firsts = [schema(first, f"{first} a device", level=False) for first in self.data["firsts"]]
        self.tools[:] = [*actions, *firsts, READ]

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        if _why_not(self.data["kinds"], self.state, name, arguments):
            raise ToolError(REFUSED)
        self.results.append(_run(self.state, name, arguments))
        return f"{self.results[-1]} {self.data['log']}".strip()

    def lesson(self, name: str, arguments: dict[str, Any], result: str) -> str:
        """Why a call was refused; a refusal changes nothing, so the devices are as they were."""
        return _why_not(self.data["kinds"], self.state, name, arguments) if result == f"error: {REFUSED}" else ""

    async def reply(self, said: str) -> Sequence[Message] | None:
        wanted = self.data["turns"][self.turn]["calls"]
        results = [_run(self.right, name, arguments) for name, arguments in wanted]
        match = self.state == self.right and all(result in (OK, *self.results) for result in results)
        if wanted:
            self.matched.append(match and self.alone)
        self.alone = match or bool(wanted)
        self.turn += 1
        return self._next_turn() if self.turn < len(self.data["turns"]) else None

    def current_reward(self) -> float:
        """A turn that is not over has earned nothing yet."""
        turns = sum(bool(turn["calls"]) for turn in self.data["turns"])
        share = sum(self.matched) / turns
        return share if self.progress else float(share == 1)

    async def finish(self, answer: str) -> float:
        return self.current_reward()

    def save(self) -> Any:
        state = self.state, self.right, self.turn, self.results, self.alone, self.matched, self.max_steps
        return copy.deepcopy(state)

    def load(self, state: Any) -> None:
        self.state, self.right, self.turn, self.results, self.alone, self.matched, self.max_steps = copy.deepcopy(state)
        self._offer()


def _why_not(kinds: dict[str, Any], state: State, name: str, arguments: dict[str, Any]) -> str:
    """What forbids a call; '' where nothing does."""
    device = arguments["device"]
    if device not in kinds:
        return f"there is no {device}; there are {' and '.join(kinds)}"
    action, first = kinds[device]
    ready = state[device]["ready"]
    if name == action and not 1 <= arguments["level"] <= HIGHEST:
        return f"level is 1 to {HIGHEST}"
    if name == action and not ready:
        return f"call {first} first"
    if name == first and ready:
        return f"the {device} is ready"
    return "" if name in (action, first, "read") else f"{name} is not for the {device}"


def _run(state: State, name: str, arguments: dict[str, Any]) -> str:
    """What an allowed call does and answers."""
    device = arguments["device"]
    if "level" in arguments:
        state[device] = {"ready": True, "level": arguments["level"]}
    elif name != "read":
        state[device]["ready"] = True
        return OK
    return f"{device} at {state[device]['level']}"
