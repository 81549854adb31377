"""A coding problem with its reference solution, turned into tools that hide the input.

A problem is a Python file. Its docstring is the question, with `{name}` where an input is shown; all other inputs are
hidden. `inputs(rng, size)` draws the inputs, by name (JSON values; `rng` is a `Dice`), `answer(...)` computes the
answer from them. What `answer` does with a hidden input becomes a tool, by its syntax tree:

    owner[ship], row[i], board[i][j]    get_owner(key), get_row(position), get_board(row, column)
    len(row)                            count_row()
    swap(row, i, j)                     swap(i, j), of a function of the file that has a docstring

and `answer` with these in the place of the input is the solution that uses the tools alone. An `answer` that reads an
input as a whole needs solutions that are written: functions `solve...(call, ...)`, which get the shown inputs, and call
a tool as `call("swap", i=0, j=1)`. Where there are several, all must come to the answer. `KIND = "graph"` names the
kind, `HELD_OUT = True` says that the problem is not for training.

This file needs the standard library alone, so that it can run in a sandbox: it reads a request from standard input.
"""

import ast
import copy
import json
import random
import re
import string
import sys
import zlib
from collections.abc import Callable, Sequence
from typing import Any

TYPES = {"int": "integer", "str": "string", "float": "number", "bool": "boolean"}
FEWEST = 2  # calls that a solution must need
DRAWS = 400  # tries to draw an instance that fits
DONE = "done"
Call = Sequence[Any]
"""Name of a tool and its arguments."""


class Unsuitable(Exception):
    """The problem makes no environment; the text says why."""


class Mistake(Exception):
    """What a call did wrong, in words."""


class Dice(random.Random):
    """Draws, and invented names that are all different."""

    def names(self, count: int) -> list[str]:
        found = self.__dict__.setdefault("found", dict[str, None]())
        first = len(found)
        while len(found) < first + count:
            syllables = (self.choice("bdfgklmnprstv") + self.choice("aeiou") for _ in range(2))
            found["".join([*syllables, self.choice("lnrst")]).capitalize()] = None
        return list(found)[first:]

    def table(self, keys: Sequence[str]) -> dict[str, str]:
        """A name for each key."""
        return dict(zip(keys, self.names(len(keys)), strict=True))


class Problem:
    """A problem's tools, instances and solutions. Raises Unsuitable where the file is none that can be converted."""

    def __init__(self, source: str, name: str = "problem"):
        self.name = name
        try:
            tree = ast.parse(source, name)
            self.names: dict[str, Any] = {"__name__": name}
            exec(compile(tree, name, "exec"), self.names)
        except Exception as error:
            raise Unsuitable(f"does not load: {type(error).__name__}: {error}") from error
        self.question = (ast.get_docstring(tree) or "").split("\n\n")[0]
        self.kind, self.held_out = str(self.names.get("KIND", "")), bool(self.names.get("HELD_OUT"))
        functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        if absent := {"inputs", "answer"} - functions.keys():
            raise Unsuitable(f"has no function {min(absent)!r}")
        types = {a.arg: a.annotation for a in functions["answer"].args.args}
        self.shown = [field for _, field, _, _ in string.Formatter().parse(self.question) if field]
        if strange := set(self.shown) - types.keys():
            raise Unsuitable(f"the question shows {min(strange)!r}, which is no argument of answer")
        self.hidden = {name: annotation for name, annotation in types.items() if name not in self.shown}
        written = [n for n in functions if n.startswith("solve")]
        helpers = {n: f for n, f in functions.items() if n not in ("inputs", "answer", *written)}
        rewriting = _Rewriting(self.hidden, {n: f for n, f in helpers.items() if ast.get_docstring(f)})
        self.solutions: list[Callable[..., Any]] = [self.names[n] for n in written]
        try:
            self.solutions.insert(0, self._derived(rewriting, copy.deepcopy(functions["answer"])))
        except Unsuitable:
            if not written:
                raise
        for n, f in rewriting.helpers.items():  # those that only a written solution calls
            rewriting.add_helper(n, f)
        self.readers, self.tools = rewriting.readers, list(rewriting.tools.values())

    def _derived(self, rewriting: "_Rewriting", function: ast.FunctionDef) -> Callable[..., Any]:
        """`answer` with a call in the place of all that it does with a hidden input."""
        function.body = [rewriting.visit(statement) for statement in function.body]
        function.args.args = [ast.arg("call"), *(a for a in function.args.args if a.arg in self.shown)]
        function.name, function.returns = "derived", None
        module = ast.fix_missing_locations(ast.Module([function], []))
        names = dict(self.names)
        exec(compile(module, f"{self.name}, rewritten", "exec"), names)
        return names["derived"]

    def about(self) -> dict[str, Any]:
        """What there is to know before anything is drawn."""
        return {"kind": self.kind, "held_out": self.held_out, "tools": self.tools}

    def draw(self, seed: str, size: int, split: str = "") -> dict[str, Any]:
        """An instance: `inputs`, `question`, `answer`, and `calls`, the first solution's; the same for the same seed.

        split: `train`, `dev` or `test`, to which an instance belongs by a hash of its inputs; '' for any.
        Raises Unsuitable where the reference or a solution fails or they differ, where fewer than two calls do, or
        where what is told contains the answer, whatever is drawn.
        """
        why = "no instance of it belongs to that split"
        for n in range(DRAWS):
            inputs = self.names["inputs"](Dice(f"{self.name} {seed} {n}"), size)
            if split and _split(json.dumps(inputs)) != split:
                continue
            shown = {name: inputs[name] for name in self.shown}
            wanted = text(self._try("answer", self.names["answer"], **copy.deepcopy(inputs)))
            question = self.question.format(**{name: text(value) for name, value in shown.items()})
            played = [_Play(self, inputs) for _ in self.solutions]
            for number, (solution, play) in enumerate(zip(self.solutions, played, strict=True)):
                reached = text(self._try(f"solution {number}", solution, play, **shown))
                if reached != wanted:
                    raise Unsuitable(f"solution {number} comes to {reached!r} and answer to {wanted!r} for {inputs}")
            if (fewest := min(len(play.calls) for play in played)) < FEWEST:
                why = f"{fewest} calls are enough for {inputs}"
            elif any(contains(one, wanted) for play in played for one in [question, *play.told]):
                why = f"what is told contains the answer {wanted!r} for {inputs}"
            else:
                return {"inputs": inputs, "question": question, "answer": wanted, "calls": played[0].calls}
        raise Unsuitable(why)

    def _try(self, what: str, function: Callable[..., Any], *given: Any, **inputs: Any) -> Any:
        try:
            return function(*given, **inputs)
        except Exception as error:
            raise Unsuitable(f"{what} fails: {type(error).__name__}: {error}") from error

    def run(self, inputs: dict[str, Any], calls: Sequence[Call]) -> str:
        """What the last of these calls tells, made one after the other. Raises Mistake where that one is wrong."""
        state, value = copy.deepcopy(inputs), None
        for tool, arguments in calls:
            value = self.call(state, tool, arguments)
        return text(value)

    def call(self, state: dict[str, Any], tool: str, arguments: dict[str, Any]) -> Any:
        """The value of one call, which may change the state. Raises Mistake."""
        if tool in self.readers:
            name, places = self.readers[tool]
            value = state[name]
            if places is None:
                return len(value)
            for place in places:
                at = arguments[place]
                if at not in (value if isinstance(value, dict) else range(len(value))):
                    raise Mistake(f"there is no {place} {at!r}")
                value = value[at]
            return value
        function = self.names[tool]
        code = function.__code__
        taken = code.co_varnames[: code.co_argcount]
        try:
            return function(**{name: state[name] for name in taken if name in self.hidden}, **arguments)
        except Exception as error:
            raise Mistake(f"{type(error).__name__}: {error}") from error


class _Play:
    """What a solution is given: it calls tools, and has only what an agent is told."""

    def __init__(self, problem: Problem, inputs: dict[str, Any]):
        self.problem, self.state = problem, copy.deepcopy(inputs)
        self.calls, self.told = list[Call](), list[str]()

    def __call__(self, tool: str, /, **arguments: Any) -> Any:
        self.calls.append((tool, arguments))
        value = self.problem.call(self.state, tool, arguments)
        self.told.append(text(value))
        return json.loads(json.dumps(value))


class _Rewriting(ast.NodeTransformer):
    """Puts calls of tools in the place of what a function does with hidden inputs, and keeps the tools."""

    def __init__(self, hidden: dict[str, ast.expr | None], helpers: dict[str, ast.FunctionDef]):
        self.hidden, self.helpers = hidden, helpers
        self.tools: dict[str, dict[str, Any]] = {}
        self.readers: dict[str, tuple[str, list[str] | None]] = {}
        """Tool -> the input that it reads, and its arguments; None where it counts."""

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        chain, places = node, [node.slice]
        while isinstance(chain.value, ast.Subscript):
            chain = chain.value
            places.insert(0, chain.slice)
        if not self._is_hidden(chain.value):
            return self.generic_visit(node)
        name = chain.value.id  # type: ignore[attr-defined]
        if not isinstance(node.ctx, ast.Load) or any(isinstance(place, ast.Slice) for place in places):
            raise Unsuitable(f"line {node.lineno}: answer takes a slice of {name!r} or writes to it; write a function")
        keyed = ast.unparse(self.hidden[name] or ast.Constant(None)).startswith("dict")
        arguments = ["key"] if keyed else ["position"] if len(places) == 1 else ["row", "column"]
        if len(places) > len(arguments):
            raise Unsuitable(f"line {node.lineno}: {ast.unparse(node)} looks too deep into {name!r}; write a function")
        about = "of a key" if keyed else f"at a {' and '.join(arguments)}, from 0"
        self._add(f"get_{name}", f"{name} {about}", dict.fromkeys(arguments, "string" if keyed else "integer"))
        self.readers[f"get_{name}"] = name, arguments
        return self._call(f"get_{name}", dict(zip(arguments, map(self.visit, places), strict=True)))

    def visit_Call(self, node: ast.Call) -> ast.AST:
        function = node.func.id if isinstance(node.func, ast.Name) else ""
        if function == "len" and self._is_hidden(node.args[0]):
            name = node.args[0].id  # type: ignore[attr-defined]
            self._add(f"count_{name}", f"how many {name}", {})
            self.readers[f"count_{name}"] = name, None
            return self._call(f"count_{name}", {})
        if function in self.helpers:
            self.add_helper(function, self.helpers[function])
            taken = [a.arg for a in self.helpers[function].args.args]
            given = dict(zip(taken, node.args, strict=False)) | {str(k.arg): k.value for k in node.keywords}
            for name, value in given.items():
                if name in self.hidden and not (self._is_hidden(value) and value.id == name):  # type: ignore[attr-defined]
                    raise Unsuitable(f"line {node.lineno}: {function} must be given the input {name!r} itself")
            return self._call(function, {n: self.visit(v) for n, v in given.items() if n not in self.hidden})
        return self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if self._is_hidden(node):
            raise Unsuitable(f"line {node.lineno}: answer reads {node.id!r} whole; write a function, or a solution")
        return node

    def add_helper(self, name: str, function: ast.FunctionDef) -> None:
        types = {}
        for argument in function.args.args:
            if argument.arg in self.hidden:
                continue
            kind = ast.unparse(argument.annotation) if argument.annotation else ""
            if kind not in TYPES:
                raise Unsuitable(f"{name}: {argument.arg!r} is of type {kind!r}; a tool takes {', '.join(TYPES)}")
            types[argument.arg] = TYPES[kind]
        self._add(name, (ast.get_docstring(function) or "").split("\n\n")[0], types)

    def _is_hidden(self, node: ast.AST) -> bool:
        return isinstance(node, ast.Name) and node.id in self.hidden

    def _add(self, name: str, description: str, types: dict[str, str]) -> None:
        properties = {argument: {"type": kind} for argument, kind in types.items()}
        parameters = {"type": "object", "properties": properties, "required": list(types)}
        self.tools[name] = {"name": name, "description": description, "parameters": parameters}

    def _call(self, tool: str, arguments: dict[str, Any]) -> ast.Call:
        keywords = [ast.keyword(name, value) for name, value in arguments.items()]
        return ast.Call(ast.Name("call", ast.Load()), [ast.Constant(tool)], keywords)


def text(value: Any) -> str:
    """A value as it is told and answered.

    >>> text(["Ana", 3]), text(None), text(True)
    ('Ana, 3', 'none', 'yes')
    """
    if isinstance(value, (list, tuple)):
        return ", ".join(map(text, value)) or "none"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return str(value)


def words(said: str) -> list[str]:
    """What of an answer is compared: its words, whatever stands between them."""
    return re.findall(r"[^\s,]+", said.lower())


def contains(told: str, answer: str) -> bool:
    """Whether an answer's words stand together somewhere in a text.

    >>> contains("12, 3", "3"), contains("12, 3", "2")
    (True, False)
    """
    inside, sought = [re.sub(r"[.?!:;]+$", "", word) for word in words(told)], words(answer)
    return any(inside[i : i + len(sought)] == sought for i in range(len(inside) - len(sought) + 1))


def _split(inputs: str) -> str:
    place = zlib.crc32(inputs.encode()) % 10
    return "train" if place < 8 else "dev" if place == 8 else "test"


def answered(one: Problem, method: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """What a method of a problem returns, as `value`, or why it does not, as `unsuitable` or `mistake`."""
    try:
        return {"value": getattr(one, method)(**arguments)}
    except Unsuitable as error:
        return {"unsuitable": str(error)}
    except Mistake as error:
        return {"mistake": str(error)}


def respond(source: str, name: str, requests: Sequence[Call]) -> list[dict[str, Any]]:
    """Load a problem and ask it, method by method."""
    try:
        one = Problem(source, name)
    except Unsuitable as error:
        return [{"unsuitable": str(error)}] * len(requests)
    return [answered(one, method, arguments) for method, arguments in requests]


if __name__ == "__main__":
    print(json.dumps(respond(**json.load(sys.stdin))))
