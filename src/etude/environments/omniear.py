"""A house in words: things with weights and other properties, tools that bind actions, and loads that take two.

OmniEAR, Wang et al. 2025, "OmniEAR: Benchmarking Agent Reasoning in Embodied Tasks", arXiv:2508.05614, code at
https://github.com/ZJU-REAL/OmniEmbodied (not used). A scene is a graph: rooms with doors, things that are in a room, on
furniture or held, and agents. Properties are numbers. What an agent may do depends on what it holds: a brush binds
`clean`. A thing moves when those who hold on to it lift its weight together. Seven kinds of tasks:

direct      put a thing on furniture in another room
tool        change a property; which tool does it, and where it is, is not said
attribute   bring the thing that is heaviest, hottest, … of several
compound    change a property of such a thing, and bring it
explicit    bring a load together with the other agent
implicit    bring a load; that it takes two is not said
joint       change a property of the heaviest of several loads, and bring it

The reward is 1 where the final scene fulfils all conditions of the task, else 0. The other agent does what it is asked,
or is a policy that says what it does. Tools and actions of the split `domains` are in no other split.

Departures: scenes are drawn by rules instead of written by a model, and are small; one load at a time for each agent;
one other agent.
"""

import copy
import random
from dataclasses import dataclass, field
from typing import Any

from etude.core.errors import PartError, suggest
from etude.core.parts import part
from etude.environments.base import LazyTasks, Speaker, Tasks, ToolSession, acts
from etude.environments.functions import ToolError
from etude.protocols import Observation, Policy, Task
from etude.trajectory import Message

SINGLE, TOGETHER = ("direct", "tool", "attribute", "compound"), ("explicit", "implicit", "joint")
KINDS = (*SINGLE, *TOGETHER)
ACT = {
    "name": "act",
    "description": "do something",
    "parameters": {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]},
}
COMMANDS = "go ROOM, take THING, put THING, put THING on THING"
PARTNER = f"You are robot, in a house. You are asked for something. Answer with one command: {COMMANDS}, or no."
ROOMS = ["hall", "kitchen", "office", "garage", "cellar", "attic"]
FURNITURE = ["table", "shelf", "desk", "bench", "rack", "cabinet"]
SMALL = ["cup", "plate", "bowl", "lamp", "vase", "book", "pot", "jar"]
LARGE = ["crate", "chest", "barrel", "sofa", "safe", "engine"]
SUPERLATIVES = {"weight": "heaviest", "temperature": "hottest", "fragility": "most fragile", "hardness": "hardest"}
# action -> tools that bind it, the property that it sets, and to what; the last three are in `domains` alone
ACTIONS = {
    "clean": (["brush", "sponge", "mop"], "dirt", 0.0),
    "dry": (["towel", "fan"], "moisture", 0.0),
    "mend": (["glue", "kit"], "damage", 0.0),
    "heat": (["burner", "torch"], "temperature", 90.0),
    "sharpen": (["whetstone", "file"], "sharpness", 1.0),
    "charge": (["charger", "dynamo"], "charge", 1.0),
    "polish": (["wax", "cloth"], "gloss", 1.0),
    "cool": (["ice", "chiller"], "temperature", 4.0),
}
HELD_IN = 5
LIMITS = (30, 60)  # kilos that an agent lifts, at least and at most
UNITS = {"weight": " kg", "temperature": " C"}


@part
@dataclass(eq=False)
class omniear(Tasks):
    """Errands in a house, alone or with another agent.

    >>> omniear(kinds=["tool"]).tasks("test")[0].id
    'omniear/3/tool/test/0'
    """

    kinds: list[str] = field(default_factory=lambda: list(KINDS))
    """Of tasks, drawn evenly."""
    information: str = "partial"
    """`partial`: the agent sees the room it is in. `full`: it is told at first what is in every room."""
    partner: Policy | None = None
    """Who the other agent is; by default it does what it is asked."""
    rooms: int = 3
    """In a house, 2 to 6."""
    size: int = 2100
    """Tasks in the split `train`; `dev`, `test` and `domains` have a tenth."""
    name = "omniear"
    reward_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        for kind in self.kinds:
            if kind not in KINDS:
                raise PartError(f"environments/omniear: no kind {kind!r}; {suggest(kind, KINDS)}")
        if not 2 <= self.rooms <= len(ROOMS):
            raise PartError(f"environments/omniear: rooms is {self.rooms!r}; give 2 to {len(ROOMS)}")
        if self.information not in (allowed := ("partial", "full")):
            raise PartError(
                f"environments/omniear: no information {self.information!r}; {suggest(self.information, allowed)}"
            )
        self.speakers = [self.partner] if self.partner is not None else []

    def tasks(self, split: str) -> LazyTasks:
        """Tasks of `train`, `dev`, `test` or `domains`. Raises PartError for another split."""
        sizes = {"train": self.size, "dev": self.size // 10, "test": self.size // 10, "domains": self.size // 10}
        if split not in sizes:
            raise PartError(f"environments/omniear has no split {split!r}; {suggest(split, sizes)}")
        return LazyTasks(
            lambda i: self._make(split, self.kinds[i % len(self.kinds)], i // len(self.kinds)), sizes[split]
        )

    def _make(self, split: str, kind: str, n: int) -> Task:
        identity = f"omniear/{self.rooms}/{kind}/{split}/{n}"
        data = draw(random.Random(identity), kind, self.rooms, unseen=split == "domains")
        steps = float(len(expert(data, seen=set(data["rooms"]))))
        side = "single" if kind in SINGLE else "together"
        return Task(identity, self, split, data, kind, steps, (side, kind), "omniear.py")

    def open(self) -> "HouseSession":
        return HouseSession(self)

    def solve(self, task: Task, seed: int) -> list[Message]:
        """Look for what is needed, nearest rooms first, and do it; then say so."""
        start = task.data["agents"]["you"]["room"]
        commands = expert(task.data, seen=set(task.data["rooms"]) if self.information == "full" else {start})
        return [*acts(commands), Message("assistant", "Done.")]


# -- the simulator ---------------------------------------------------------------------------------------------------


class Scene:
    """Rooms, things and agents, and what commands make of them."""

    def __init__(self, data: dict[str, Any]):
        self.rooms: dict[str, list[str]] = data["rooms"]
        self.things: dict[str, dict[str, Any]] = copy.deepcopy(data["things"])
        self.agents: dict[str, dict[str, Any]] = copy.deepcopy(data["agents"])

    def act(self, who: str, command: str) -> str:
        """What comes of an agent's command. ToolError says why nothing did."""
        verb, _, rest = " ".join(command.split()).partition(" ")
        if verb == "look" and not rest:
            return self.describe(self.agents[who]["room"])
        if verb == "go":
            return self._go(who, rest)
        if verb == "take":
            return self._take(who, rest)
        if verb == "put":
            return self._put(who, *rest.partition(" on ")[::2])
        if verb not in self.actions(who):
            bound = ", ".join(self.actions(who)) or "nothing more"
            raise ToolError(f"you cannot {verb or 'do that'}; you can: {COMMANDS}, look; what you hold binds: {bound}")
        thing = self._near(who, rest)
        _, key, value = ACTIONS[verb]
        if key not in thing:
            raise ToolError(f"{rest} has no {key} to change")
        thing[key] = value
        return f"The {key} of {rest} is {value:g}{UNITS.get(key, '')}."

    def actions(self, who: str) -> list[str]:
        """Actions that what the agent holds up binds to it."""
        held = self.agents[who]["holds"]
        return [self.things[held]["binds"]] if held and self.lifted(held) and "binds" in self.things[held] else []

    def holders(self, name: str) -> list[str]:
        return [who for who, agent in self.agents.items() if agent["holds"] == name]

    def lifted(self, name: str) -> bool:
        """Whether those who hold on to a thing lift its weight together."""
        holders = self.holders(name)
        return bool(holders) and sum(self.agents[who]["limit"] for who in holders) >= self.things[name]["weight"]

    def room_of(self, name: str) -> str:
        """The room that a thing is in, on furniture there, or held there."""
        if holders := self.holders(name):
            return self.agents[holders[0]]["room"]
        place = self.things[name]["place"]
        return place if place in self.rooms else self.room_of(place)

    def _go(self, who: str, room: str) -> str:
        agent = self.agents[who]
        if room not in self.rooms[agent["room"]]:
            raise ToolError(
                f"no door from {agent['room']} to {room or 'there'}; {suggest(room, self.rooms[agent['room']])}"
            )
        held = agent["holds"]
        if held and not self.lifted(held):
            raise ToolError(f"{held} is too heavy to move; put it down, or find help to take it")
        for one in self.holders(held) if held else [who]:
            self.agents[one]["room"] = room
        return self.describe(room) if who == "you" else f"{who} is in {room}."

    def _near(self, who: str, name: str) -> dict[str, Any]:
        if name not in self.things or self.room_of(name) != self.agents[who]["room"]:
            raise ToolError(f"no {name or 'such thing'} in {self.agents[who]['room']}")
        return self.things[name]

    def _take(self, who: str, name: str) -> str:
        agent, thing = self.agents[who], self._near(who, name)
        if thing.get("fixed"):
            raise ToolError(f"{name} cannot be taken")
        if agent["holds"]:
            raise ToolError(f"you hold {agent['holds']}; put it down first")
        if self.lifted(name):
            raise ToolError(f"{name} is held by {self.holders(name)[0]}")
        agent["holds"] = name
        if not self.lifted(name):
            able = sum(self.agents[one]["limit"] for one in self.holders(name))
            return f"You hold on to {name}, but it weighs {thing['weight']:g} kg and you lift {able:g} kg."
        return f"You hold {name}." + (f" You can {thing['binds']} now." if "binds" in thing else "")

    def _put(self, who: str, name: str, on: str) -> str:
        if not name or self.agents[who]["holds"] != name:
            raise ToolError(f"you do not hold {name or 'anything'}")
        if on and (on == name or not self._near(who, on).get("fixed")):
            raise ToolError(f"nothing can be put on {on}")
        if self.lifted(name):  # what did not move stays where it was
            self.things[name]["place"] = on or self.agents[who]["room"]
            released = self.holders(name)
        else:
            released = [who]
        for one in released:
            self.agents[one]["holds"] = None
        return f"{name} is {'on ' + on if on else 'in ' + self.agents[who]['room']}."

    def describe(self, room: str) -> str:
        """A room: its doors, and all that is in it."""
        there = [f"{room}: doors to {', '.join(self.rooms[room])}."]
        there += [f"{who} is here." for who, agent in self.agents.items() if who != "you" and agent["room"] == room]
        return " ".join([*there, *(self._told(name) for name in self.things if self.room_of(name) == room)])

    def _told(self, name: str) -> str:
        thing = self.things[name]
        told = [f"{key} {value:g}{UNITS.get(key, '')}" for key, value in thing.items() if isinstance(value, float)]
        told += [f"binds {thing['binds']}"] if "binds" in thing else []
        told += [f"held by {' and '.join(holders)}"] if (holders := self.holders(name)) else []
        told += [f"on {thing['place']}"] if not holders and thing["place"] not in self.rooms else []
        return f"{name} ({', '.join(told)})." if told else f"{name}."

    def fulfils(self, goal: list[list[Any]]) -> bool:
        """Whether all conditions hold: `[at, thing, room or furniture]`, put down there; `[is, thing, key, value]`."""
        return all(
            self._at(rest[0], rest[1]) if word == "at" else self.things[rest[0]].get(rest[1]) == rest[2]
            for word, *rest in goal
        )

    def _at(self, name: str, place: str) -> bool:
        return not self.holders(name) and place in (self.things[name]["place"], self.room_of(name))


class HouseSession(ToolSession):
    """One errand."""

    def __init__(self, world: omniear):
        super().__init__()
        self.world = world

    async def begin(self, task: Task, seed: int) -> Observation:
        self.tools, self.goal, self.scene = [ACT], task.data["goal"], Scene(task.data)
        you, others = self.scene.agents["you"], [who for who in self.scene.agents if who != "you"]
        self.max_steps = 2 * len(expert(task.data, seen={you["room"]})) + 4
        self.speaker = None
        if others and self.world.partner is not None:
            self.speaker = Speaker(self.world.partner, PARTNER, task=task.id, seed=seed, said=self.said)
        told = [f"You are in a house. You can: {COMMANDS}, look. What you hold may let you do more."]
        told += [f"You lift {you['limit']:g} kg."]
        told += [f"ask {who} COMMAND: {who} lifts {self.scene.agents[who]['limit']:g} kg." for who in others]
        rooms = self.scene.rooms if self.world.information == "full" else [you["room"]]
        seen = [*map(self.scene.describe, rooms), *(f"{who} is in {self.scene.agents[who]['room']}." for who in others)]
        user = " ".join([task.data["request"], f"You are in {you['room']}.", *seen])
        return Observation((Message("system", " ".join(told)), Message("user", user)))

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        verb, _, rest = " ".join(arguments["command"].split()).partition(" ")
        if verb != "ask":
            return self.scene.act("you", arguments["command"])
        who, _, wish = rest.partition(" ")
        others = [one for one in self.scene.agents if one != "you"]
        if who not in others or not wish:
            raise ToolError(f"ask whom for what? there is {' and '.join(others) or 'nobody'}; write: ask NAME COMMAND")
        if self.speaker is not None:
            seen = self.scene.describe(self.scene.agents[who]["room"])
            wish = (await self.speaker.answer(Message("user", f"{seen} You are asked: {wish}"))).message.content
        try:
            return f"{who}: {self.scene.act(who, wish)}"
        except ToolError as error:
            raise ToolError(f"{who} says {wish!r}: {error}") from None

    async def finish(self, answer: str) -> float:
        return self.current_reward()

    def current_reward(self) -> float:
        """Whether the scene is as it should be."""
        return float(self.scene.fulfils(self.goal))

    def save(self) -> Any:
        return copy.deepcopy((self.scene.things, self.scene.agents)) if self.speaker is None else None

    def load(self, state: Any) -> None:
        self.scene.things, self.scene.agents = copy.deepcopy(state)


# -- scenes, tasks and their solutions -------------------------------------------------------------------------------


def draw(rng: random.Random, kind: str, count: int, *, unseen: bool) -> dict[str, Any]:
    """A scene of so many rooms, what is asked, its conditions, and the plan of the expert; JSON values."""
    names = rng.sample(ROOMS, count)
    rooms: dict[str, list[str]] = {name: [] for name in names}
    for n, name in enumerate(names[1:], 1):  # a tree
        other = rng.choice(names[:n])
        rooms[name].append(other)
        rooms[other].append(name)
    agents = {
        who: {"room": rng.choice(names), "limit": float(rng.randrange(*LIMITS, 5)), "holds": None}
        for who in (("you", "robot") if kind in TOGETHER else ("you",))
    }
    verbs = list(ACTIONS)[HELD_IN:] if unseen else list(ACTIONS)[:HELD_IN]
    verb = rng.choice(verbs)
    tools, changed, value = ACTIONS[verb]
    furniture = dict(zip(names, rng.sample(FURNITURE, count), strict=True))
    things: dict[str, dict[str, Any]] = {piece: {"place": room, "fixed": True} for room, piece in furniture.items()}

    def add(name: str, room: str, weight: float, **more: Any) -> None:
        things[name] = {"place": rng.choice([room, furniture[room]]), "weight": weight, **more}

    goal_room = rng.choice(names)
    start = rng.choice([name for name in names if name != goal_room])
    sort = rng.choice(LARGE if kind in TOGETHER else SMALL)
    several = kind in ("attribute", "compound", "joint")
    names_of = [f"{sort}_{n}" for n in (1, 2, 3)] if several else [sort]
    key = "weight" if kind in TOGETHER else rng.choice([k for k in SUPERLATIVES if k != changed])
    limits = [agent["limit"] for agent in agents.values()]
    heavy = range(int(max(limits)) + 5, int(sum(limits)) + 1, 5)  # what one cannot lift, and both can
    weights = (
        [float(w) for w in rng.sample(heavy, 3)] if kind in TOGETHER else [w / 10 for w in rng.sample(range(3, 30), 3)]
    )
    for name, weight in zip(names_of, weights, strict=False):
        more = {} if key == "weight" else {key: rng.randrange(1, 100) / (1 if key == "temperature" else 100)}
        if kind in ("tool", "compound", "joint"):
            more[changed] = rng.randrange(10, 80) / (1 if changed == "temperature" else 100)
        add(name, start, weight, **more)
    values = [things[name][key] for name in names_of if key in things[name]]
    if len(set(values)) < len(values):
        return draw(rng, kind, count, unseen=unseen)  # which is the one must be clear
    one = max(names_of, key=lambda name: things[name].get(key, 0))
    described = f"the {SUPERLATIVES[key]} {sort}" if several else sort
    if kind in ("tool", "compound", "joint"):
        add(rng.choice(tools), rng.choice(names), 0.5, binds=verb)
    other = rng.choice([v for v in verbs if v != verb])
    add(rng.choice(ACTIONS[other][0]), rng.choice(names), 0.5, binds=other)  # a tool of no use
    place = furniture[goal_room] if kind == "direct" else goal_room
    change = f"Set the {changed} of {described} to {value:g}"
    bring = f"Bring {described} to {goal_room}"
    request, plan = {
        "direct": (f"Put {sort} on {place}, in {goal_room}.", [["bring", one, place]]),
        "tool": (f"{change}.", [[verb, one, ""]]),
        "attribute": (f"{bring}.", [["bring", one, place]]),
        "compound": (f"{change}, and bring it to {goal_room}.", [[verb, one, ""], ["bring", one, place]]),
        "explicit": (f"{bring} together with robot.", [["bring", one, place]]),
        "implicit": (f"{bring}.", [["bring", one, place]]),
        "joint": (f"{change}, and bring it to {goal_room}.", [[verb, one, ""], ["bring", one, place]]),
    }[kind]
    goal = [["is", one, changed, value] if step == verb else ["at", one, place] for step, *_ in plan]
    for name in names_of:  # the others stay as they are
        if name != one:
            goal += [["at", name, things[name]["place"]]]
            goal += [["is", name, changed, things[name][changed]]] if changed in things[name] else []
    order = list(things)
    rng.shuffle(order)
    return {
        "rooms": rooms, "things": {name: things[name] for name in order}, "agents": agents, "request": request,
        "goal": goal, "plan": plan,
    }  # fmt: skip


def expert(data: dict[str, Any], *, seen: set[str]) -> list[str]:
    """Commands that carry out the plan, of an agent that has seen these rooms at first."""
    scene, seen, commands = Scene(data), set(seen), list[str]()
    you = scene.agents["you"]

    def do(command: str) -> None:
        commands.append(command)
        if command.startswith("ask "):
            scene.act(*command.split(" ", 2)[1:])
        else:
            scene.act("you", command)
        seen.add(you["room"])

    def reach(room: str) -> None:
        for step in way(scene.rooms, you["room"], room):
            do(f"go {step}")

    def find(wanted: list[str]) -> str:
        """Go to one of these things."""
        while not (known := [name for name in wanted if scene.room_of(name) in seen]):
            reach(min(scene.rooms.keys() - seen, key=lambda room: (len(way(scene.rooms, you["room"], room)), room)))
        reach(scene.room_of(known[0]))
        return known[0]

    for step, name, place in data["plan"]:
        if step != "bring":
            tool = find([tool for tool, thing in scene.things.items() if thing.get("binds") == step])
            do(f"take {tool}")
            find([name])
            do(f"{step} {name}")
            if len(data["plan"]) > 1:
                do(f"put {tool}")
            continue
        find([name])
        if scene.things[name]["weight"] > you["limit"]:
            for room in way(scene.rooms, scene.agents["robot"]["room"], you["room"]):
                do(f"ask robot go {room}")
            do(f"ask robot take {name}")
        do(f"take {name}")
        if place in scene.rooms:
            reach(place)
            do(f"put {name}")
        else:
            find([place])
            do(f"put {name} on {place}")
    return commands


def way(rooms: dict[str, list[str]], start: str, goal: str) -> list[str]:
    """Rooms to go through, the goal last; there is one way."""
    ways = [[start]]
    while ways[0][-1] != goal:
        first = ways.pop(0)
        ways += [[*first, room] for room in rooms[first[-1]] if room not in first]
    return ways[0][1:]
