"""An agent that knows nothing: random calls that fit the tools' schemas, made of values that it has been shown.

What it earns is the floor above which a score says something, and where it plays, a world meets calls that nobody
thought of. The same seed and the same world give the same actions.
"""

import math
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jsonschema import Draft202012Validator

from etude.trajectory import Message, ToolCall

TALK = 0.1  # share of turns without a call where there are tools: most worlds take one for the final answer
TRIES = 20  # drawings of arguments until some fit a schema of which we do not follow every word
DEPTH = 4  # of nested values; deeper ones hold only what is required
WORD = re.compile(r"[\w.@#/:+-]*\w")
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w.])")


class RandomAgent:
    """One episode's agent; called at each turn with the tools and the messages that are new."""

    def __init__(self, seed: str):
        self.rng = random.Random(seed)
        self.words: list[str] = []
        self.lines: list[str] = []
        self.numbers: list[float] = []
        self.turn = 0

    def __call__(self, tools: Sequence[Mapping[str, Any]], new: Sequence[Message]) -> Message:
        self.turn += 1
        for message in new:
            self.words += WORD.findall(message.content)
            self.lines += [line.strip() for line in message.content.splitlines() if line.strip()]
            self.numbers += [float(n) for n in NUMBER.findall(message.content)]
        if not tools or self.rng.random() < TALK:
            return Message("assistant", self._text())
        return Message("assistant", tool_calls=(self.call(self.rng.choice(tools)),))

    def call(self, tool: Mapping[str, Any]) -> ToolCall:
        """A call of this tool. Its arguments fit the schema unless `TRIES` drawings did not find any that do."""
        schema = tool["parameters"]
        validator = Draft202012Validator(schema)
        arguments: dict[str, Any] = {}
        for _ in range(TRIES):
            arguments = self._object(schema, schema, 0)
            if validator.is_valid(arguments):
                break
        return ToolCall(tool["name"], arguments, f"call_{self.turn}")

    def _text(self) -> str:
        """A word that was shown, a few in a row, or a line."""
        if not self.words:
            return self.rng.choice(["yes", "no", "look", "help"])
        kind = self.rng.random()
        if kind < 0.5:
            return self.rng.choice(self.words)
        if kind < 0.75:
            at = self.rng.randrange(len(self.words))
            return " ".join(self.words[at : at + self.rng.randint(2, 4)])
        return self.rng.choice(self.lines)

    def _value(self, schema: Any, root: Mapping[str, Any], depth: int) -> Any:
        if not isinstance(schema, Mapping):  # `true`: anything
            return self._text()
        while "$ref" in schema:
            schema = _resolve(schema["$ref"], root)
        for key in ("anyOf", "oneOf", "allOf"):
            if key in schema:
                rest = {k: v for k, v in schema.items() if k != key}
                chosen = schema[key] if key == "allOf" else [self.rng.choice(schema[key])]
                return self._value(rest | {k: v for one in chosen for k, v in one.items()}, root, depth)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self.rng.choice(schema["enum"])
        kind = schema.get("type") or ("object" if "properties" in schema else "string")
        if isinstance(kind, list):
            kind = self.rng.choice(kind)
        if kind == "object":
            return self._object(schema, root, depth)
        if kind == "array":
            return self._array(schema, root, depth)
        if kind in ("integer", "number"):
            return self._number(schema, kind == "integer")
        if kind == "boolean":
            return self.rng.random() < 0.5
        return None if kind == "null" else self._string(schema)

    def _object(self, schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> dict[str, Any]:
        required = schema.get("required", ())
        properties = schema.get("properties", {})
        made = {
            name: self._value(inner, root, depth + 1)
            for name, inner in properties.items()
            if name in required or (depth < DEPTH and self.rng.random() < 0.5)
        }
        more = schema.get("additionalProperties")
        if not properties and isinstance(more, Mapping) and depth < DEPTH:
            made[self._text()] = self._value(more, root, depth + 1)
        return made

    def _array(self, schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> list[Any]:
        least = schema.get("minItems", 0)
        most = least if depth >= DEPTH else schema.get("maxItems", least + 2)
        count = self.rng.randint(least, max(least, min(most, least + 2)))
        return [self._value(schema.get("items", True), root, depth + 1) for _ in range(count)]

    def _number(self, schema: Mapping[str, Any], whole: bool) -> float:
        step = schema.get("multipleOf", 1)
        low = schema.get("minimum", schema.get("exclusiveMinimum", -math.inf) + step)
        high = schema.get("maximum", schema.get("exclusiveMaximum", math.inf) - step)
        seen = [n for n in self.numbers if low <= n <= high and (not whole or n.is_integer())]
        if seen and self.rng.random() < 0.7:
            number = self.rng.choice(seen)
            return int(number) if whole else number
        low = low if math.isfinite(low) else min(0, high - 10 * step)
        high = min(high, low + 10 * step)
        if whole or "multipleOf" in schema:
            return math.ceil(low / step) * step + step * self.rng.randint(0, max(0, int((high - low) / step)))
        return self.rng.uniform(low, high)

    def _string(self, schema: Mapping[str, Any]) -> str:
        if "pattern" in schema:
            fits = [word for word in self.words if re.search(schema["pattern"], word)]
            return self.rng.choice(fits) if fits else self._text()
        if "examples" in schema and self.rng.random() < 0.3:
            return self.rng.choice(schema["examples"])
        text = self._text()[: schema.get("maxLength")]
        return text.ljust(schema.get("minLength", 0), "a")


def _resolve(reference: str, root: Mapping[str, Any]) -> Any:
    """What `#/$defs/name` points at, within the same schema."""
    found: Any = root
    for key in reference.removeprefix("#").strip("/").split("/"):
        found = found[key.replace("~1", "/").replace("~0", "~")] if key else found
    return found
