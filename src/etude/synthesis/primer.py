"""What the tiny model learns from: text that every Python has, and dialogues made by code.

Text is the docstrings of the standard library and the general chat that comes with etude. Of the dialogues, *echoes*
and *lookups* teach copying and finding; *errands* are desks whose nouns, verbs and identifiers are drawn anew each
time, so that a call can only be made by reading the list of tools; and a few domains of the world `desk`, played by its
expert, show what a real episode looks like.
"""

import ast
import asyncio
import itertools
import json
import random
import re
import sysconfig
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from etude.core.parts import PACKAGE, build
from etude.rendering import tools as plain
from etude.trajectory import Message, ToolCall

LIBRARY_FILES = 120
"""Modules of the standard library that are read, the largest first."""
DESK = {"difficulty": 1, "domains": 12}
"""The tasks of `desk` whose train split is shown."""

FORMS = [
    ("{verb} {it}", "{verb} {it}", ""),
    ("{verb} {it}", "{verb} {it}", ""),
    ("{verb} {it} to {value}", "{verb} {it} to another FIELD", "FIELD"),
    ("{verb} {it} on {value}", "{verb} {it} on another FIELD", "FIELD"),
    ("{verb} {it} with FIELD {value}", "{verb} {it}", "FIELD"),
    ("{verb} {value} on {it}", "{verb} an amount on {it}", "amount"),
    ('{verb} "{value}" on {it}', "{verb} a note on {it}", "text"),
]
"""Of a made-up tool: how somebody asks for it, its description, its second argument."""
OPENINGS = ["Please {}.", "Could you {}?", "{}.", "I need you to {}.", "We have to {}.", "Can you {}, please?"]

Dialogue = list[dict[str, str]]
"""Messages as a template that knows no tools takes them: roles system, user and assistant."""


def docstrings() -> list[str]:
    """Docstrings of the standard library's largest modules, as paragraphs that are mostly words."""
    library = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(library.glob("*.py"), key=lambda file: (-file.stat().st_size, file.name))
    found: list[str] = []
    for file in files[:LIBRARY_FILES]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                found += re.split(r"\n\s*\n", ast.get_docstring(node) or "")
    paragraphs = [" ".join(text.split()) for text in found]
    return list(
        dict.fromkeys(text for text in paragraphs if len(text) > 40 and sum(map(_is_word, text)) > 0.9 * len(text))
    )


def _is_word(character: str) -> bool:
    return character.isascii() and (character.isalpha() or character in " ,.'")


def common_words(texts: Sequence[str], count: int = 1500) -> list[str]:
    """Lower-case words of 3 to 9 letters, the most frequent first."""
    counts = Counter(word for text in texts for word in re.findall(r"\b[a-z]{3,9}\b", text))
    return [word for word, _ in counts.most_common(count)]


def chat() -> list[Dialogue]:
    """The general chat that comes with etude."""
    file = PACKAGE / "curation" / "data" / "general.jsonl"
    return [json.loads(line)["messages"] for line in file.read_text(encoding="utf-8").splitlines()]


class Primer:
    """Draws dialogues; the same seed draws the same ones."""

    def __init__(self, words: Sequence[str], seed: int):
        self.words, self.rng = words, random.Random(seed)

    # -- words that nobody has seen ----------------------------------------------------------------------------------

    def word(self) -> str:
        """A real word, one put together from the ends of two, or one that only sounds like a word."""
        rng = self.rng
        kind = rng.random()
        if kind < 0.5:
            return rng.choice(self.words)
        if kind < 0.8:
            head, tail = rng.choice(self.words), rng.choice(self.words)
            return head[: rng.randint(1, 4)] + tail[-rng.randint(2, 4) :]
        syllables = (rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(rng.randint(1, 3)))
        return "".join(syllables) + rng.choice("bdgklmnprstxz")

    def distinct(self, count: int) -> list[str]:
        """Words none of which is another's beginning."""
        found: list[str] = []
        while len(found) < count:
            word = self.word()
            if not any(word.startswith(other) or other.startswith(word) for other in found):
                found.append(word)
        return found

    def identifier(self) -> str:
        """Such as `B-203`, `L31`, `4471`."""
        letters = "".join(self.rng.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=self.rng.choice([0, 1, 1, 1, 2, 2])))
        digits = "".join(self.rng.choices("123456789", k=self.rng.choice([2, 3]) if letters else 4))
        return letters + self.rng.choice(["-", "-", ""]) * bool(letters) + digits

    def value(self) -> str:
        """What a field may be set to: a word, a code, a name, a day, an hour, two words."""
        rng = self.rng
        word = self.word()
        return rng.choice(
            [
                word,
                word,
                word.capitalize(),
                word.upper(),
                f"{word.capitalize()} {rng.randint(1, 20)}",
                f"{word} {self.word()}",
                f"{rng.randint(7, 19)}:{rng.choice(['00', '30'])}",
                f"{word} {rng.choice('ABCDEF123456')}",
                rng.choice("BDFLWQ") + str(rng.randint(1, 70)),
            ]
        )

    # -- exercises ---------------------------------------------------------------------------------------------------

    def echo(self) -> Dialogue:
        """Say the same again."""
        rng = self.rng
        said = " ".join(rng.choice([self.word, self.identifier, self.value])() for _ in range(rng.randint(3, 7)))
        return _exchange(rng.choice(["Say {}", "Repeat {}", "Write {}", "{}"]).format(said), said)

    def lookup(self) -> Dialogue:
        """Find what belongs to a name."""
        rng = self.rng
        names = self.distinct(rng.randint(3, 6))
        values = [rng.choice([self.identifier, self.value])() for _ in names]
        if rng.random() < 0.5:
            listed = json.dumps(dict(zip(names, values, strict=True)), separators=(",", ":"))
        else:
            listed = ", ".join(f"{name} is {value}" for name, value in zip(names, values, strict=True)) + "."
        dialogue: Dialogue = []
        for i in rng.sample(range(len(names)), rng.randint(2, 3)):
            question = rng.choice(["What is {}?", "Tell me {}.", "{}?"]).format(names[i])
            dialogue += _exchange(question if dialogue else f"{listed} {question}", values[i])
        return dialogue

    # -- desks that nobody has seen ----------------------------------------------------------------------------------

    def errand(self) -> Dialogue:
        """Somebody asks for one thing after the other at a desk of made-up tools; each takes one call."""
        rng = self.rng
        entity, field, place, *verbs = self.distinct(3 + rng.randint(2, 5))
        one = f"{'an' if entity[0] in 'aeiou' else 'a'} {entity}"
        tools, wishes = [], []
        for verb in verbs:
            ask, description, argument = (text.replace("FIELD", field) for text in rng.choice(FORMS))
            names = [verb, f"{verb}_{entity}", f"{verb}_{entity}", f"{verb}_{place}", f"{self.word()}_{entity}"]
            types = dict.fromkeys([entity, argument] if argument else [entity], "string")
            if argument == "amount":
                types[argument] = "integer"
            tool = {
                "name": rng.choice(names),
                "description": description.format(verb=verb, it=one),
                "parameters": {
                    "type": "object",
                    "properties": {name: {"type": kind} for name, kind in types.items()},
                    "required": list(types),
                },
            }
            tools.append(tool)
            wishes.append((tool["name"], verb, ask, argument))
        messages = [Message("system", f"You work at the {place} of {self.word()} {self.word()}.")]
        rng.shuffle(wishes)
        done = ""
        for name, verb, ask, argument in wishes:
            arguments: dict[str, Any] = {entity: self.identifier()}
            if argument:
                arguments[argument] = self._argument(argument)
            wish = ask.format(verb=verb, it=f"{entity} {arguments[entity]}", value=arguments.get(argument))
            said = rng.choice(OPENINGS).format(wish)
            messages += [
                Message("user", said[0].upper() + said[1:]),
                Message("assistant", tool_calls=(ToolCall(name, arguments),)),
                Message("tool", "ok"),
            ]
            done = f"{entity.capitalize()} {arguments[entity]} is {verb}ed."
        return plain.as_plain_chat([*messages, Message("assistant", done)], tools)

    def _argument(self, name: str) -> Any:
        if name == "amount":
            return self.rng.randrange(10, 65, 5)
        return f"{self.word()} {self.word()}" if name == "text" else self.value()


def _exchange(question: str, answer: str) -> Dialogue:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def desk_episodes(count: int) -> list[Dialogue]:
    """Episodes of `desk` on a few domains, played by its expert."""

    async def play() -> list[Dialogue]:
        world = build("environments/desk", **DESK)
        dialogues = []
        for task in itertools.islice(world.tasks("train"), count):
            session = world.open()
            messages = list((await session.reset(task, 0)).messages)
            for action in world.solve(task, 0):
                messages += [action, *(await session.step(action)).observation.messages]
            dialogues.append(plain.as_plain_chat(messages, session.tools))
        return dialogues

    with ThreadPoolExecutor(1) as thread:  # a notebook's thread has a loop already
        return thread.submit(asyncio.run, play()).result()
