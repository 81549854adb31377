"""Thirteen small games of six genres behind one tool, with an oracle, a scripted opponent and a table for two.

The suite of Orak in small: Park et al. 2025, "Orak: A Foundational Benchmark for Training and Evaluating LLM Agents on
Diverse Video Games", arXiv:2506.03610: text adventures, grid action, puzzles, cards, management and board games. A game
server is `etude env serve arcade`: it begins a game, tells the state and the legal actions, takes a step and tells the
score. Each state is told whole, so that a loop may forget what was before it (see `agents/loops/modular`).

    adventure   town: a key, then the box           errand: what people want
    action      dodge: lanes with falling blocks    hunt: a gem, and a wolf that follows
    puzzle      lights: all off                     guess: a number, by higher and lower
    cards       blackjack: three hands              duel: beat the foe's cards
    management  stock: order what is asked for      farm: sow, water and pick under changing skies
    board       nim, tictactoe, four (three in a row of a 4 x 4 board with gravity)

A score is 0 to 1 and a step's reward is what the score rose by. `evaluation/normalise` puts it on Orak's scale, on
which chance is 0 and the oracle 100. Task n of a split is the game of the n-th seed; the split `domains` has the games
that are held out. A solution says at each step, in `thought`, how the step before went and what the aim is, as the
modules of an agent would; `slips` makes it err, so that logged play has something to filter.

Departures: small games of our own instead of commercial ones, told in words; no pictures.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import itertools
import random
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from etude.core.errors import EnvironmentFault, PartError, suggest
from etude.core.parts import part
from etude.environments.base import LazyTasks, Tasks, ToolSession
from etude.environments.functions import ToolError
from etude.protocols import Observation, Step, Task
from etude.trajectory import Message, ToolCall

FIRST_SEED = {"train": 0, "dev": 10**6, "test": 2 * 10**6, "domains": 3 * 10**6}
ACT = {
    "name": "act",
    "description": "make a move",
    "parameters": {"type": "object", "properties": {"action": {"type": "string"}}, "required": ["action"]},
}
CAN = "can: "


class Game:
    """Rules: made from a seeded generator, which is also its chance."""

    genre: ClassVar[str]
    rules: ClassVar[str]
    limit: ClassVar[int]
    """Moves, those that break the rules among them, after which the game is judged as it stands."""
    over = False

    def __init__(self, rng: random.Random):
        raise NotImplementedError

    def view(self) -> str:
        """The state in words."""
        raise NotImplementedError

    def legal(self) -> list[str]:
        raise NotImplementedError

    def act(self, word: str) -> None:
        """Take a legal action."""
        raise NotImplementedError

    def score(self) -> float:
        """0 to 1."""
        raise NotImplementedError

    def best(self) -> str:
        """The oracle's action; it may know what is hidden, but not what chance will bring."""
        raise NotImplementedError

    def aim(self) -> str:
        """What the oracle is after, in a few words."""
        raise NotImplementedError

    def told(self) -> str:
        """The state and the legal actions."""
        return f"{self.view()}\n{CAN}{' '.join(self.legal())}" if not self.over else f"{self.view()}\nover"


def first_step(
    start: Hashable, ways: Callable[[Any], Iterable[tuple[str, Any]]], done: Callable[[Any], bool]
) -> tuple[str, int]:
    """The first action of a shortest way to a state that is `done`, and the way's length; ("", 0) where there is none.

    ways: state -> (action, next state).
    """
    queue, seen = deque([(start, "", 0)]), {start}
    while queue:
        state, first, steps = queue.popleft()
        if done(state):
            return first, steps
        for word, there in ways(state):
            if there not in seen:
                seen.add(there)
                queue.append((there, first or word, steps + 1))
    return "", 0


# -- adventure -------------------------------------------------------------------------------------------------------


class Town(Game):
    genre, limit = "adventure", 10
    rules = "town: take the key, then open the box."

    def __init__(self, rng: random.Random):
        places = rng.sample(["library", "garage", "office", "shop", "bank", "port", "field", "home"], 4)
        self.paths = sorted({places[i]: places[rng.randrange(i)] for i in range(1, 4)}.items())  # a tree
        self.at, self.key, self.box = rng.sample(places, 3)
        self.held = False

    def ways(self, place: str) -> list[tuple[str, str]]:
        return [(there, there) for one in self.paths for here, there in (one, one[::-1]) if here == place]

    def view(self) -> str:
        key = "you have the key" if self.held else f"key in {self.key}"
        roads = ", ".join(f"{a} to {b}" for a, b in self.paths)
        return f"you in {self.at}; {key}; box in {self.box}; {roads}"

    def legal(self) -> list[str]:
        here = ["take"] * (not self.held and self.at == self.key) + ["open"] * (self.held and self.at == self.box)
        return [word for word, _ in self.ways(self.at)] + here

    def act(self, word: str) -> None:
        self.held = self.held or word == "take"
        self.over = word == "open"
        self.at = self.at if word in ("take", "open") else word

    def score(self) -> float:
        return 0.5 * self.held + 0.5 * self.over

    @property
    def goal(self) -> str:
        return self.box if self.held else self.key

    def best(self) -> str:
        return first_step(self.at, self.ways, lambda place: place == self.goal)[0] or ("open" if self.held else "take")

    def aim(self) -> str:
        """The way to the key or the box, and what to do there."""
        far, way = copy.copy(self), list[str]()
        while far.at != self.goal:
            way.append(far.best())
            far.at = way[-1]
        return " ".join([*way, "open" if self.held else "take"])


class Errand(Game):
    genre, limit = "adventure", 8
    rules = "errand: take a thing, then give it to who it is for."

    def __init__(self, rng: random.Random):
        people, things = rng.sample(PEOPLE, 2), rng.sample(THINGS, 4)
        self.wants = dict(zip(people, things[:2], strict=True))
        self.here, self.held, self.given = rng.sample(things, 4), "", 0

    def view(self) -> str:
        wishes = ", ".join(f"{what} for {who}" for who, what in self.wants.items())
        return f"{wishes}; you have {self.held or 'nothing'}"

    def legal(self) -> list[str]:
        return list(self.wants) if self.held else self.here

    def act(self, word: str) -> None:
        if not self.held:
            self.held = word
            self.here.remove(word)
        else:  # what is given to the wrong one is gone
            if self.wants[word] == self.held:
                self.given += 1
                del self.wants[word]
            self.held = ""
            self.over = not any(what in self.here for what in self.wants.values())

    def score(self) -> float:
        return self.given / 2

    def best(self) -> str:
        if self.held:
            return next((who for who, what in self.wants.items() if what == self.held), next(iter(self.wants)))
        return next(what for what in self.wants.values() if what in self.here)

    def aim(self) -> str:
        if self.held:
            return f"give {self.held} to {self.best()}"
        return f"take {self.best()}"


PEOPLE = ["guard", "buyer", "driver", "owner", "guest", "agent", "doctor", "student"]
THINGS = ["bag", "book", "pen", "card", "ink", "box", "ticket", "flag", "map", "light"]


# -- action ----------------------------------------------------------------------------------------------------------


class Dodge(Game):
    genre, limit = "action", 6
    rules = "dodge: go left, wait or go right; the next row falls on you, a block ends it."
    LANES = ("left", "middle", "right")
    MOVES: ClassVar = {"left": -1, "wait": 0, "right": 1}

    def __init__(self, rng: random.Random):
        self.lane = safe = rng.randrange(3)
        self.rows = list[list[bool]]()
        for _ in range(self.limit + 2):  # a way through is left open, two rows beyond the last
            safe = rng.choice([lane for lane in range(3) if abs(lane - safe) < 2])
            self.rows.append([lane != safe and rng.random() < 0.7 for lane in range(3)])
        self.passed = 0

    def view(self) -> str:
        rows = [" ".join("block" if block else "free" for block in row) for row in self.rows[self.passed :][:2]]
        return f"you {self.LANES[self.lane]}; next {rows[0]}; then {rows[1]}"

    def legal(self) -> list[str]:
        return [word for word, move in self.MOVES.items() if 0 <= self.lane + move < 3]

    def act(self, word: str) -> None:
        self.lane += self.MOVES[word]
        self.over = self.rows[self.passed][self.lane]
        self.passed += not self.over
        self.over = self.over or self.passed == self.limit

    def score(self) -> float:
        return self.passed / self.limit

    def best(self) -> str:
        def ways(state: tuple[int, int]) -> list[tuple[str, tuple[int, int]]]:
            row, lane = state
            reach = [(word, lane + move) for word, move in self.MOVES.items() if 0 <= lane + move < 3]
            return [(w, (row + 1, there)) for w, there in reach if row < self.limit and not self.rows[row][there]]

        way = first_step((self.passed, self.lane), ways, lambda state: state[0] == self.limit)[0]
        return way or self.legal()[0]  # cornered

    def aim(self) -> str:
        return f"be {self.LANES[self.lane + self.MOVES[self.best()]]}"


class Hunt(Game):
    genre, limit = "action", 10
    rules = "hunt: reach the gem; the wolf follows you at every second move and must not catch you."
    SIZE = 4
    MOVES: ClassVar = {"north": (0, -1), "south": (0, 1), "east": (1, 0), "west": (-1, 0)}

    def __init__(self, rng: random.Random):
        cells = [(x, y) for x in range(self.SIZE) for y in range(self.SIZE)]
        while True:
            self.you, self.gem, self.wolf = rng.sample(cells, 3)
            self.moves, self.caught = 0, False
            way, self.far = first_step((self.you, self.wolf, 0), self.ways, lambda s: s[0] == self.gem)
            if way and 1 < self.far < 9:
                break
        self.near = self.distance(self.you)
        self.start = self.near

    def distance(self, cell: tuple[int, int]) -> int:
        return abs(cell[0] - self.gem[0]) + abs(cell[1] - self.gem[1])

    def after(self, you: tuple[int, int], wolf: tuple[int, int], odd: int) -> tuple[int, int]:
        """Where the wolf is after its move: it goes along the axis on which it is farther away."""
        if not odd:
            return wolf
        x, y = you[0] - wolf[0], you[1] - wolf[1]
        return (wolf[0] + (x > 0) - (x < 0), wolf[1]) if abs(x) >= abs(y) else (wolf[0], wolf[1] + (y > 0) - (y < 0))

    def ways(self, state: Any) -> list[tuple[str, Any]]:
        you, wolf, odd = state
        found = []
        for word, (x, y) in self.MOVES.items():
            there = (you[0] + x, you[1] + y)
            follows = wolf if there == self.gem else self.after(there, wolf, odd)
            if all(0 <= one < self.SIZE for one in there) and there not in (wolf, follows):
                found.append((word, (there, follows, 1 - odd)))
        return found

    def view(self) -> str:
        you, gem, wolf = (f"{x} {y}" for x, y in (self.you, self.gem, self.wolf))
        return f"you {you}; gem {gem}; wolf {wolf}; wolf {'moves' if self.moves % 2 else 'waits'}"

    def legal(self) -> list[str]:
        inside = range(self.SIZE)
        return [w for w, (x, y) in self.MOVES.items() if self.you[0] + x in inside and self.you[1] + y in inside]

    def act(self, word: str) -> None:
        x, y = self.MOVES[word]
        self.you = (self.you[0] + x, self.you[1] + y)
        self.caught = self.you == self.wolf
        if self.you != self.gem and not self.caught:
            self.wolf = self.after(self.you, self.wolf, self.moves % 2)
            self.caught = self.you == self.wolf
        self.moves += 1
        self.near = min(self.near, self.distance(self.you))
        self.over = self.caught or self.you == self.gem

    def score(self) -> float:
        return 1.0 if self.near == 0 else 0.5 * (1 - self.near / self.start)

    def best(self) -> str:
        state = (self.you, self.wolf, self.moves % 2)
        return first_step(state, self.ways, lambda s: s[0] == self.gem)[0] or self.legal()[0]

    def aim(self) -> str:
        x, y = self.gem[0] - self.you[0], self.gem[1] - self.you[1]
        sides = [("south" if y > 0 else "north")] * bool(y) + [("east" if x > 0 else "west")] * bool(x)
        return f"gem {' '.join(sides)}; {self.best()}"


# -- puzzle ----------------------------------------------------------------------------------------------------------


class Lights(Game):
    genre, limit = "puzzle", 6
    rules = "lights: pressing one changes it and its neighbours; turn all off."
    SIZE = 4

    def __init__(self, rng: random.Random):
        self.on = [False] * self.SIZE
        for place in rng.sample(range(self.SIZE), rng.randint(1, 3)):
            self.act(str(place + 1))
        self.over = False

    def view(self) -> str:
        return " ".join(f"{n} {'on' if one else 'off'}" for n, one in enumerate(self.on, 1))

    def legal(self) -> list[str]:
        return [str(n) for n in range(1, self.SIZE + 1)]

    def act(self, word: str) -> None:
        for place in range(int(word) - 2, int(word) + 1):
            if 0 <= place < self.SIZE:
                self.on[place] = not self.on[place]
        self.over = not any(self.on)

    def score(self) -> float:
        return float(not any(self.on))

    def rest(self) -> list[str]:
        """What is still to be pressed: the one set of presses that leaves all off."""
        for count in range(self.SIZE + 1):
            for chosen in itertools.combinations(self.legal(), count):
                tried = copy.deepcopy(self)
                for word in chosen:
                    tried.act(word)
                if not any(tried.on):
                    return list(chosen)
        return []

    def best(self) -> str:
        return self.rest()[0]

    def aim(self) -> str:
        return f"press {' '.join(self.rest())}"


class Guess(Game):
    genre, limit = "puzzle", 3
    rules = "guess: find the number in three guesses."

    def __init__(self, rng: random.Random):
        self.low, self.high = 1, 7
        self.number = rng.randint(self.low, self.high)
        self.found = False

    def view(self) -> str:
        return f"it was {self.number}" if self.over else f"from {self.low} to {self.high}"

    def legal(self) -> list[str]:
        return [str(n) for n in range(self.low, self.high + 1)]

    def act(self, word: str) -> None:
        guess = int(word)
        self.found = self.over = guess == self.number
        if guess < self.number:
            self.low = guess + 1
        elif guess > self.number:
            self.high = guess - 1

    def score(self) -> float:
        return float(self.found)

    def best(self) -> str:
        return str((self.low + self.high) // 2)

    def aim(self) -> str:
        return f"halve {self.low} {self.high}"


# -- cards -----------------------------------------------------------------------------------------------------------


class Blackjack(Game):
    genre, limit = "cards", 12
    rules = "blackjack: draw or stand; more than the bank wins, more than 21 loses; the bank stands at 17."
    HANDS = 3
    CARDS: ClassVar = [*range(2, 10), 10, 10, 10, 10, 11]

    def __init__(self, rng: random.Random):
        self.rng, self.won, self.hand = rng, 0.0, 0
        self.deal()

    def deal(self) -> None:
        self.yours = [self.rng.choice(self.CARDS) for _ in range(2)]
        self.bank = self.rng.choice(self.CARDS)
        self.hand += 1

    @staticmethod
    def total(cards: Sequence[int]) -> int:
        """An ace counts 1 where 11 would be too much."""
        whole, aces = sum(cards), cards.count(11)
        while whole > 21 and aces:
            whole, aces = whole - 10, aces - 1
        return whole

    def view(self) -> str:
        cards = " ".join(map(str, self.yours))
        return f"hand {min(self.hand, self.HANDS)}; you {cards} are {self.total(self.yours)}; bank {self.bank}"

    def legal(self) -> list[str]:
        return ["draw", "stand"]

    def act(self, word: str) -> None:
        if word == "draw":
            self.yours.append(self.rng.choice(self.CARDS))
            if self.total(self.yours) <= 21:
                return
        mine, cards = self.total(self.yours), [self.bank]
        while self.total(cards) < 17:
            cards.append(self.rng.choice(self.CARDS))
        bank = self.total(cards)
        if mine <= 21:
            self.won += 1.0 if bank > 21 or mine > bank else 0.5 * (mine == bank)
        self.over = self.hand == self.HANDS
        if not self.over:
            self.deal()

    def score(self) -> float:
        return self.won / self.HANDS

    @staticmethod
    @functools.cache
    def dealt(cards: tuple[int, ...]) -> dict[int, float]:
        """What the bank may end with -> its chance; 0 for too much."""
        total = Blackjack.total(cards)
        if total >= 17:
            return {total if total <= 21 else 0: 1.0}
        found: dict[int, float] = {}
        for card in Blackjack.CARDS:
            for end, chance in Blackjack.dealt((*cards, card)).items():
                found[end] = found.get(end, 0.0) + chance / len(Blackjack.CARDS)
        return found

    @staticmethod
    @functools.cache
    def worth(cards: tuple[int, ...], bank: int) -> tuple[float, str]:
        """The best action's expected win, and the action; of a deck without end."""
        mine = Blackjack.total(cards)
        if mine > 21:
            return 0.0, "stand"
        stand = sum(c * (1.0 if mine > end else 0.5 * (mine == end)) for end, c in Blackjack.dealt((bank,)).items())
        if mine == 21:
            return stand, "stand"
        more = (Blackjack.worth(tuple(sorted((*cards, card))), bank)[0] for card in Blackjack.CARDS)
        return max((stand, "stand"), (sum(more) / len(Blackjack.CARDS), "draw"))

    def best(self) -> str:
        return self.worth(tuple(sorted(self.yours)), self.bank)[1]

    def aim(self) -> str:
        return f"{self.total(self.yours)} against {self.bank}"


class Duel(Game):
    genre, limit = "cards", 4
    rules = "duel: play a card; a higher one than the foe's wins the trick."

    def __init__(self, rng: random.Random):
        cards = rng.sample(range(1, 14), 8)
        self.foe, self.yours, self.won = cards[:4], cards[4:], 0
        self.most = self.winnable()

    def winnable(self) -> int:
        """How many of the foe's cards can be beaten at all."""
        left, count = sorted(self.yours), 0
        for foe in sorted(self.foe):
            winner = next((card for card in left if card > foe), None)
            if winner is not None:
                left.remove(winner)
                count += 1
        return count

    def view(self) -> str:
        return f"foe {self.foe[0] if self.foe else 'none'}; you {' '.join(map(str, self.yours)) or 'none'}"

    def legal(self) -> list[str]:
        return [str(card) for card in self.yours]

    def act(self, word: str) -> None:
        self.yours.remove(int(word))
        self.won += int(word) > self.foe.pop(0)
        self.over = not self.foe

    def score(self) -> float:
        return self.won / self.most if self.most else float(self.over)

    def best(self) -> str:
        """The lowest card that wins, or the lowest.

        Sets of the foe's cards that can be beaten together are a matroid, so that taking what comes loses nothing.
        """
        return str(min((card for card in self.yours if card > self.foe[0]), default=min(self.yours)))

    def aim(self) -> str:
        return f"{'over' if int(self.best()) > self.foe[0] else 'under'} {self.foe[0]}"


# -- management ------------------------------------------------------------------------------------------------------


class Stock(Game):
    genre, limit = "management", 5
    rules = "stock: order so that what you have meets what is asked for; what is left stays."
    MOST = 6

    def __init__(self, rng: random.Random):
        self.asked = [rng.randint(1, self.MOST) for _ in range(self.limit)]
        self.have, self.missed, self.day = rng.randint(0, self.asked[0]), 0.0, 0

    def view(self) -> str:
        return f"have {self.have}; asked {self.asked[min(self.day, self.limit - 1)]}"

    def legal(self) -> list[str]:
        return [str(n) for n in range(self.MOST + 1)]

    def act(self, word: str) -> None:
        gap = self.have + int(word) - self.asked[self.day]
        self.missed += min(1.0, abs(gap) / 2)
        self.have = max(0, gap)
        self.day += 1
        self.over = self.day == self.limit

    def score(self) -> float:
        return (self.day - self.missed) / self.limit

    def best(self) -> str:
        return str(max(0, self.asked[self.day] - self.have))

    def aim(self) -> str:
        return f"{self.asked[self.day]} less {self.have}"


class Farm(Game):
    genre, limit = "management", 8
    rules = "farm: sow, water twice, pick; rain waters too, and both at once drown it."
    STAGES = ("empty", "seed", "sprout", "ripe")

    def __init__(self, rng: random.Random):
        self.sky = [rng.choice(["rain", "sun"]) for _ in range(self.limit)]
        self.stage = self.picked = self.day = 0
        self.most = 1
        best = copy.deepcopy(self)
        while not best.over:
            best.act(best.best())
        self.most = best.picked

    def view(self) -> str:
        day = min(self.day, self.limit - 1)
        return f"day {day + 1} of {self.limit}; {self.STAGES[self.stage]}; {self.sky[day]}; picked {self.picked}"

    def legal(self) -> list[str]:
        return ["sow", "water", "pick", "wait"]

    def act(self, word: str) -> None:
        rain = self.sky[self.day] == "rain"
        if word == "sow" and self.stage == 0:
            self.stage = 1 + rain
        elif word == "pick":  # what is not ripe is lost
            self.picked, self.stage = self.picked + (self.stage == 3), 0
        elif self.stage in (1, 2):
            self.stage = 0 if rain and word == "water" else self.stage + (rain or word == "water")
        self.day += 1
        self.over = self.day == self.limit

    def score(self) -> float:
        return self.picked / self.most

    def best(self) -> str:
        if self.stage in (0, 3):
            return "sow" if self.stage == 0 else "pick"
        return "wait" if self.sky[self.day] == "rain" else "water"

    def aim(self) -> str:
        return f"{self.STAGES[self.stage]} in {self.sky[self.day]}"


# -- board -----------------------------------------------------------------------------------------------------------


class Board(Game):
    """Two seats. A win is 1, a draw 1/2, anything else 0. Seat 0 moves first."""

    genre = "board"
    turn = 0
    winner: int | None = None
    seat = 0
    """Whose score, view and moves are asked for."""
    SKILL = 0.5
    """Share of the scripted opponent's moves that are the oracle's; the others are drawn."""

    def __init__(self, rng: random.Random):
        self.rng, self.seat = rng, rng.randrange(2)

    def move(self, word: str) -> None:
        """Whoever's turn it is makes a move; the turn goes to the other."""
        raise NotImplementedError

    def start(self) -> None:
        """Let a scripted opponent begin where it is first."""
        if self.turn != self.seat:
            self.reply()

    def act(self, word: str) -> None:
        self.move(word)
        if not self.over:
            self.reply()

    def reply(self) -> None:
        self.move(self.best() if self.rng.random() < self.SKILL else self.rng.choice(self.legal()))

    def score(self) -> float:
        return (0.5 if self.winner is None else float(self.winner == self.seat)) if self.over else 0.0


class Nim(Board):
    limit = 9
    rules = "nim: a2 takes two from a; who takes the last wins."

    def __init__(self, rng: random.Random):
        super().__init__(rng)
        self.piles = [rng.randint(1, 4) for _ in range(3)]

    def view(self) -> str:
        return " ".join(f"{name} {pile}" for name, pile in zip("abc", self.piles, strict=True))

    def legal(self) -> list[str]:
        return [f"{name}{n}" for name, pile in zip("abc", self.piles, strict=True) for n in range(1, pile + 1)]

    def move(self, word: str) -> None:
        self.piles["abc".index(word[0])] -= int(word[1:])
        if not any(self.piles):
            self.over, self.winner = True, self.turn
        self.turn = 1 - self.turn

    def best(self) -> str:
        """Leave piles whose binary sum without carry is 0 (Bouton 1901); where they are, take as little as can be."""
        whole = functools.reduce(lambda a, b: a ^ b, self.piles)
        for name, pile in zip("abc", self.piles, strict=True):
            if pile ^ whole < pile:
                return f"{name}{pile - (pile ^ whole)}"
        return next(f"{name}1" for name, pile in zip("abc", self.piles, strict=True) if pile)

    def aim(self) -> str:
        left = list(self.piles)
        word = self.best()
        left["abc".index(word[0])] -= int(word[1:])
        return f"leave {' '.join(map(str, left))}"


class TicTacToe(Board):
    limit = 7
    rules = "tictactoe: three in a row win; you are x."
    WIDE, HIGH, DROPS = 3, 3, False

    def __init__(self, rng: random.Random):
        super().__init__(rng)
        self.cells = " " * (self.WIDE * self.HIGH)  # row by row from the top; 0 and 1 are the seats

    def view(self) -> str:
        marks = {" ": ".", str(self.seat): "x", str(1 - self.seat): "o"}
        rows = [self.cells[at : at + self.WIDE] for at in range(0, len(self.cells), self.WIDE)]
        return "\n".join(" ".join(marks[cell] for cell in row) for row in rows)

    def legal(self) -> list[str]:
        return [str(n + 1) for n in self.open(self.cells)]

    @classmethod
    def open(cls, cells: str) -> list[int]:
        """The moves: cells, or columns where what is put there falls."""
        return [n for n in range(cls.WIDE if cls.DROPS else len(cells)) if cells[n] == " "]

    @classmethod
    def put(cls, cells: str, n: int, turn: int) -> str:
        while cls.DROPS and n + cls.WIDE < len(cells) and cells[n + cls.WIDE] == " ":
            n += cls.WIDE
        return f"{cells[:n]}{turn}{cells[n + 1 :]}"

    @classmethod
    @functools.cache
    def lines(cls) -> list[tuple[int, int, int]]:
        found = list[tuple[int, int, int]]()
        for y, x, (dy, dx) in itertools.product(range(cls.HIGH), range(cls.WIDE), ((0, 1), (1, 0), (1, 1), (1, -1))):
            if y + 2 * dy < cls.HIGH and 0 <= x + 2 * dx < cls.WIDE:
                a, b, c = (cls.WIDE * (y + k * dy) + x + k * dx for k in range(3))
                found.append((a, b, c))
        return found

    @classmethod
    def has_won(cls, cells: str, turn: int) -> bool:
        return any(cells[a] == cells[b] == cells[c] == str(turn) for a, b, c in cls.lines())

    @classmethod
    @functools.cache
    def worth(cls, cells: str, turn: int, depth: int = 6) -> tuple[float, int]:
        """What the side to move can force within so many moves, sooner being better, and its move (negamax)."""
        best = (-9.0, -1)
        for n in cls.open(cells):
            after = cls.put(cells, n, turn)
            if cls.has_won(after, turn):
                return 1.0 + depth / 10, n
            rest = -cls.worth(after, 1 - turn, depth - 1)[0] if depth and cls.open(after) else 0.0
            best = max(best, (rest, -n))
        return best[0], abs(best[1])

    def move(self, word: str) -> None:
        self.cells = self.put(self.cells, int(word) - 1, self.turn)
        if self.has_won(self.cells, self.turn):
            self.over, self.winner = True, self.turn
        self.over = self.over or not self.open(self.cells)
        self.turn = 1 - self.turn

    def best(self) -> str:
        return str(self.worth(self.cells, self.turn)[1] + 1)

    def aim(self) -> str:
        n = int(self.best()) - 1
        if self.has_won(self.put(self.cells, n, self.turn), self.turn):
            return f"win at {n + 1}"
        if self.has_won(self.put(self.cells, n, 1 - self.turn), 1 - self.turn):
            return f"block {n + 1}"
        return f"take {n + 1}"


class Four(TicTacToe):
    limit = 10
    rules = "four: drop into a column; three in a row win; you are x."
    WIDE, HIGH, DROPS = 4, 4, True


GAMES: dict[str, type[Game]] = {
    game.__name__.lower(): game
    for game in (Town, Errand, Dodge, Hunt, Lights, Guess, Blackjack, Duel, Stock, Farm, Nim, TicTacToe, Four)
}
HELD = ("hunt", "duel", "four")


# -- the world -------------------------------------------------------------------------------------------------------


@part
@dataclass(eq=False)
class arcade(Tasks):
    """Games in turn; a task's domain is its game, its skill the genre, and its difficulty the moves it may take.

    Raises PartError for a game that is not there, or one that is held out and played as well.
    """

    games: list[str] = field(default_factory=lambda: [name for name in GAMES if name not in HELD])
    """Of the splits `train`, `dev` and `test`."""
    held: list[str] = field(default_factory=lambda: list(HELD))
    """Of the split `domains`."""
    slips: float = 0.0
    """Share of the moves of a solution that are drawn from all that were legal so far, and may not be now."""
    size: int = 200
    """Tasks of each game in the split `train`; the other splits have a fifth."""
    name = "arcade"
    reward_range = (0.0, 1.0)
    optimal = False  # against chance and an opponent nothing is sure

    def __post_init__(self) -> None:
        for game in (*self.games, *self.held):
            if game not in GAMES:
                raise PartError(f"environments/arcade: no game {game!r}; {suggest(game, GAMES)}")
        if both := sorted({*self.games} & {*self.held}):
            raise PartError(f"environments/arcade: {both[0]!r} is among games and held; a game held out is not played")

    def tasks(self, split: str) -> LazyTasks:
        """Tasks of `train`, `dev`, `test` or `domains`. Raises PartError for another split."""
        if split not in FIRST_SEED:
            raise PartError(f"environments/arcade has no split {split!r}; {suggest(split, FIRST_SEED)}")
        games, size = self.held if split == "domains" else self.games, self.size if split == "train" else self.size // 5
        return LazyTasks(lambda i: self.task(games[i % len(games)], split, i // len(games)), size * len(games))

    def task(self, game: str, split: str, n: int) -> Task:
        """The n-th task of a game in a split."""
        data = {"game": game, "seed": FIRST_SEED[split] + n}
        rules, id = GAMES[game], f"arcade/{game}/{split}/{n}"
        return Task(id, self, split, data, game, float(rules.limit), (rules.genre,), "arcade.py")

    def open(self) -> ArcadeSession:
        return ArcadeSession()

    def solve(self, task: Task, seed: int) -> list[Message]:
        """The oracle's moves, but for `slips`; each thinks what a reflection and a plan would say before it."""
        game, chance = begun(task), random.Random(f"slips {task.id} {seed}")
        said, went, seen = list[Message](), "", dict[str, None]()
        while not game.over and len(said) < game.limit:
            best, aim = game.best(), game.aim()
            seen |= dict.fromkeys(game.legal())
            word = chance.choice(list(seen)) if chance.random() < self.slips else best
            thought = "\n".join([*([f"reflection: {went}"] if went else []), f"planning: {aim}"])
            call = ToolCall("act", {"action": word}, f"call_{len(said) + 1}")
            said.append(Message("assistant", tool_calls=(call,), thought=thought))
            went = "good" if word == best else f"bad, {best} was better"
            if word in game.legal():
                game.act(word)
        return said


def begun(task: Task) -> Any:
    """A task's game at its beginning, or the agent's first turn."""
    game = GAMES[task.data["game"]](random.Random(f"arcade {task.data['game']} {task.data['seed']}"))
    if isinstance(game, Board):
        game.start()
    return game


class ArcadeSession(ToolSession):
    """One game. A step's reward is what the score rose by, so that rewards add up to it."""

    game: Any = None

    async def begin(self, task: Task, seed: int) -> Observation:
        self.tools, self.earned = [ACT], 0.0
        self.game = begun(task)
        self.max_steps = self.game.limit
        return Observation((Message("system", self.game.rules), Message("user", self.game.told())))

    def legal(self) -> list[Message]:
        """All that may be done now."""
        calls = [ToolCall("act", {"action": word}, f"call_{len(self.actions) + 1}") for word in self.game.legal()]
        return [Message("assistant", tool_calls=(call,)) for call in calls]

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        word = arguments["action"].strip()
        if word not in self.game.legal():
            raise ToolError(f"no action {word[:20]!r}\n{self.game.told()}")
        self.game.act(word)
        self.done = self.game.over
        return self.game.told()

    async def step(self, action: Message | np.ndarray) -> Step:
        step = await super().step(action)
        reward = self.game.score() - self.earned
        self.earned += reward
        return replace(step, reward=reward)

    async def finish(self, answer: str) -> float:
        """An agent that says something instead of acting gives up; it keeps what it has."""
        return 0.0  # `step` gives the reward

    def current_reward(self) -> float:
        return self.game.score()

    def save(self) -> Any:
        return copy.deepcopy((self.game, self.earned))

    def load(self, state: Any) -> None:
        self.game, self.earned = copy.deepcopy(state)


# -- a table for two -------------------------------------------------------------------------------------------------


class Table:
    """One board game between two agents: each has a task of its own, and plays it as an ordinary episode.

    Both must be played at once. A move waits for the other's; who leaves, or breaks the rules once too often, loses.
    """

    def __init__(self, game: str, seed: int):
        """Raises PartError for a game that is not for two."""
        if game not in GAMES or not issubclass(GAMES[game], Board):
            boards = [name for name, rules in GAMES.items() if issubclass(rules, Board)]
            raise PartError(f"no game {game!r} for two; {suggest(game, boards)}")
        self.game: Any = GAMES[game](random.Random(f"table {game} {seed}"))
        self.moved = asyncio.Condition()
        self.tasks = [Seat(self, seat).task(game, seed) for seat in (0, 1)]

    def score(self, seat: int) -> float:
        self.game.seat = seat
        return self.game.score()


class Seat:
    """One side's world."""

    name, reward_range = "arcade", (0.0, 1.0)

    def __init__(self, table: Table, seat: int):
        self.table, self.seat = table, seat

    def task(self, game: str, seed: int) -> Task:
        return Task(f"table/{game}/{seed}/{self.seat}", self, "table", {}, game, provenance="arcade.py")

    def tasks(self, split: str) -> list[Task]:
        return [self.table.tasks[self.seat]]

    def open(self) -> SeatSession:
        return SeatSession(self.table, self.seat)


class SeatSession(ToolSession):
    """One side's episode."""

    WRONG = 3
    """Moves against the rules, of which the last one loses."""

    def __init__(self, table: Table, seat: int):
        super().__init__(call_seconds=600.0)
        self.table, self.seat, self.wrong = table, seat, 0

    async def _my_turn(self) -> str:
        game = self.table.game
        async with self.table.moved:
            self.table.moved.notify_all()
            await self.table.moved.wait_for(lambda: game.over or game.turn == self.seat)
        self.done = game.over
        game.seat = self.seat
        return game.told()

    async def begin(self, task: Task, seed: int) -> Observation:
        self.tools = [ACT]
        told = await self._my_turn()
        self.done = False  # an opponent who left before the first move is found out by making one
        return Observation((Message("system", self.table.game.rules), Message("user", told)))

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        game, word = self.table.game, arguments["action"].strip()
        if game.over:
            self.done = True
            return "over"
        if word not in game.legal():
            self.wrong += 1
            if self.wrong < self.WRONG:
                game.seat = self.seat
                raise ToolError(f"no action {word[:20]!r}\n{game.told()}")
            await self._lose()
            self.done = True
            return "over"
        game.move(word)
        return await self._my_turn()

    async def _lose(self) -> None:
        game = self.table.game
        async with self.table.moved:
            if not game.over:
                game.over, game.winner = True, 1 - self.seat
            self.table.moved.notify_all()

    async def finish(self, answer: str) -> float:
        """Who says something instead of making a move gives up."""
        await self._lose()
        return self.table.score(self.seat)

    async def snapshot(self) -> Any:
        raise EnvironmentFault("a game between two agents has no snapshot: it goes on in the other's episode too")

    async def close(self) -> None:
        await self._lose()
