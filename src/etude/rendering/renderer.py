"""Messages <-> tokens, for the model's own chat template; torch-free.

Tokens in, tokens out: a message is tokenised once, when it enters the context, and what was sampled is never made
again from text. Each step renders the dialogue with and without the new messages; if the template left the old text
alone, the new text is the difference, and only that is tokenised. If it rewrote history (some templates drop earlier
reasoning), the tree branches: the rewritten messages get new nodes, and the old ones stay as they were sampled.

Only the template writes control tokens. Where a message or a tool's description spells one (a web page that says
`<|im_end|>`), that text is cut behind its first character and the two sides are tokenised apart, so that it stays text
and reads the same; the ids of anything else are those of `tokenizer.apply_chat_template`. What counts as spelling one:
the tokenizer's special tokens, its `chat_control_tokens`, and the added tokens that the template writes around turns.
In an assistant's message only the special tokens around turns are cut: others mark its reasoning and its calls.
"""

import enum
import functools
import hashlib
import itertools
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from etude.core.errors import RenderingError, suggest
from etude.rendering import notations
from etude.rendering import tools as plain
from etude.trajectory import Message, Node, Trajectory

MARKER = "4f1c7e"  # stands for a message's content, to find where the template puts it
RESPONSE_TEMPLATE = "response_template"  # the notation that a tokenizer brings along, which transformers reads
CUT = "\ud800"  # where text is cut to be tokenised apart; half a surrogate pair, which no text with tokens can hold


class TrainOnWhat(enum.StrEnum):
    """Which tokens a supervised sample trains; names as in tinker-cookbook."""

    LAST_ASSISTANT_MESSAGE = "last_assistant_message"
    LAST_ASSISTANT_TURN = "last_assistant_turn"  # all assistant messages after the last user message
    ALL_ASSISTANT_MESSAGES = "all_assistant_messages"
    ALL_MESSAGES = "all_messages"  # their content, not the template's headers
    ALL_TOKENS = "all_tokens"
    ALL_USER_AND_SYSTEM_MESSAGES = "all_user_and_system_messages"
    CUSTOMIZED = "customized"  # the messages that the caller names


class Renderer:
    """One tokenizer and its chat template."""

    def __init__(self, tokenizer: Any, notation: str = "auto"):
        """tokenizer: a transformers fast tokenizer with a chat template.
        notation: how calls are read, see `etude.rendering.notations`; `auto` takes the tokenizer's `response_template`
        if it brings one, else what its chat template contains, and hermes for a template without tools.

        Raises RenderingError when it has no template, or no token that ends an assistant's turn, or for an unknown
        notation.
        """
        self.tokenizer = tokenizer
        self.name = str(tokenizer.name_or_path)
        self.template: str = tokenizer.chat_template or ""
        if not self.template:
            raise RenderingError(f"tokenizer {self.name!r} has no chat template; set tokenizer.chat_template")
        self.native_tools = _mentions(self.template, "tools")
        if notation not in (allowed := ["auto", *notations.NOTATIONS]):
            raise RenderingError(f"no notation {notation!r}; {suggest(notation, allowed)}")
        self.notation = self._find_notation() if notation == "auto" else notation
        self.stop_text, self.stop_ids = self._find_stop()
        self.control, self.turns = self._find_control()
        self.pad_id: int = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(self.stop_ids)

    @classmethod
    def load(cls, path: str, notation: str = "auto") -> "Renderer":
        """path: a local directory or a Hugging Face id; see `__init__` for the rest."""
        from transformers import AutoTokenizer

        return cls(AutoTokenizer.from_pretrained(path), notation)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Changes whenever the template, the vocabulary or the tool notation does; training and serving must agree."""
        vocabulary = sorted(self.tokenizer.get_vocab().items(), key=lambda item: item[1])
        notation = "" if self.native_tools else plain.INSTRUCTION
        if self.notation != self._find_notation():
            notation += self.notation
        return hashlib.sha256(repr((self.template, vocabulary, notation)).encode()).hexdigest()[:16]

    def text(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = (), *, generate: bool = False) -> str:
        """The dialogue as the template writes it; `generate` adds the generation prompt."""
        return self._text(messages, tools, generate=generate).replace(CUT, "")

    def _text(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], *, generate: bool = False) -> str:
        """The same with CUT in what only spells a control token."""
        if not messages:
            return ""
        if self.native_tools:
            chat: list[dict[str, Any]] = [_as_dict(message) for message in messages]
            offered = [{"type": "function", "function": tool} for tool in tools] or None
        else:
            chat, offered = plain.as_plain_chat(messages, tools), None  # type: ignore[assignment]
        chat = [_cut(m, self.turns if m["role"] == "assistant" else self.control) for m in chat]
        try:
            return self.tokenizer.apply_chat_template(
                chat, tools=_cut(offered, self.control), tokenize=False, add_generation_prompt=generate
            )
        except Exception as error:  # a template may raise anything; its own words are the best explanation
            roles = ", ".join(m["role"] for m in chat)
            raise RenderingError(f"the chat template of {self.name!r} refuses roles [{roles}]: {error}") from error

    def encode(self, text: str) -> np.ndarray:
        """int32 [T]; special tokens in the text are recognised, none are added."""
        pieces = [self.tokenizer.encode(piece, add_special_tokens=False) for piece in text.split(CUT)]
        return np.array([*itertools.chain(*pieces)], dtype=np.int32)

    def encode_again(self, ids_T: Sequence[int] | np.ndarray) -> np.ndarray:
        """int32 [T']; the text of some ids, tokenised anew; what only spells a control token stays text."""
        special = {i for i, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        runs = [(whole, self.decode([*ids])) for whole, ids in itertools.groupby(ids_T, lambda i: int(i) in special)]
        return self.encode("".join(text if whole else _cut(text, self.turns) for whole, text in runs))

    def decode(self, ids_T: Sequence[int] | np.ndarray) -> str:
        """The text of some ids, special tokens included."""
        ids = [int(i) for i in ids_T]
        return self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def render(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = (), *, add_generation_prompt: bool = True
    ) -> np.ndarray:
        """int32 [P]; a whole prompt, tokenised piece by piece exactly as an episode would."""
        trajectory = Trajectory(id="", task="", tools=list(tools))
        leaf: int | None = None
        for message in messages:
            leaf = trajectory.add(message, leaf)
        if leaf is None:
            raise RenderingError("nothing to render: the dialogue has no messages")
        leaf = self.fill(trajectory, leaf)
        prompt = [self.generation_prompt(trajectory, leaf)[1]] if add_generation_prompt else []
        return np.concatenate([trajectory.ids_P(leaf), *prompt])

    def parse(self, ids_T: np.ndarray, tools: Sequence[dict[str, Any]] = ()) -> tuple[Message, str]:
        """Sampled ids -> the assistant's message, and what is wrong with its calls ('' if nothing).

        `tools` (see Trajectory.tools) give the types of arguments where the notation has only text.
        """
        text = self.decode(ids_T[:-1] if len(ids_T) and int(ids_T[-1]) in self.stop_ids else ids_T)
        if self.notation != RESPONSE_TEMPLATE:
            return notations.parse(text, self.notation, tools)
        prompt = self._continue([Message("user", "x")], [], ())[1]
        offered = [{"type": "function", "function": tool} for tool in tools]
        try:
            answer = self.tokenizer.parse_response(text, prefix=prompt, tools=offered)
            called = [call["function"] for call in answer.get("tool_calls", [])]
            calls = tuple(notations.as_call(call, number) for number, call in enumerate(called, 1))
        except Exception as error:  # the template decides what it raises; its own words are the best explanation
            return Message("assistant", text.strip()), f"not an answer in the model's own notation ({error})"
        thought = answer.get("reasoning_content") or answer.get("thinking") or ""
        return Message("assistant", answer.get("content") or "", calls, thought=thought), ""

    def fill(
        self,
        trajectory: Trajectory,
        leaf: int,
        train_on: TrainOnWhat = TrainOnWhat.ALL_ASSISTANT_MESSAGES,
        custom: Sequence[int] = (),
        rewritten: list[int] | None = None,
    ) -> int:
        """Give ids and a mask to every node on the path to `leaf` that has none; returns the path's leaf.

        The leaf is another one if the template rewrote history on the way; the last node of each rendering left behind
        is then appended to `rewritten` (an episode's, so that what it holds is still trained). `custom` holds the node
        indices that TrainOnWhat.CUSTOMIZED trains. An assistant's stop token is trained with it, the template's text
        around it never (ALL_TOKENS apart); of messages that a template joins into one, only the last can be trained.
        """
        train_on = TrainOnWhat(train_on)
        path = trajectory.path(leaf)
        chosen = [n in _chosen(trajectory, path, train_on, custom) for n in path]
        start = 0
        while start < len(path):
            end = start + 1
            if trajectory.nodes[path[start]].ids_T is None:
                messages = [trajectory.messages[trajectory.nodes[n].message] for n in path]
                while messages[start].role != "assistant" and end < len(path) and messages[end].role != "assistant":
                    end += 1  # what arrives together is rendered together: some templates join tool results
                history, _ = self._continue(messages[:start], messages[start:end], trajectory.tools)
                if history is not None:
                    if rewritten is not None:
                        rewritten.append(path[start - 1])
                    path = self._branch(trajectory, path, start, history)
                self._fill_run(trajectory, path, messages, start, end, chosen, train_on)
            start = end
        return path[-1]

    def generation_prompt(self, trajectory: Trajectory, leaf: int) -> tuple[int, np.ndarray]:
        """What the template puts between a filled path and the next sampled token: the leaf to go on from, int32 [T].

        The leaf is another one if adding the generation prompt makes the template rewrite history.
        """
        history, added = self._continue(trajectory.dialogue(leaf), [], trajectory.tools)
        if history is not None:
            path = trajectory.path(leaf)
            leaf = self._branch(trajectory, path, len(path), history)[-1]
        return leaf, self.encode(self._ending(trajectory.nodes[leaf]) + added)

    # -- how text is cut into nodes --------------------------------------------------------------------------------

    def _prefix(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> str:
        """The rendered text that the nodes of these messages hold.

        After an assistant's turn that is up to its stop token: what the template adds behind it (a newline, mostly) was
        not there when the turn was sampled, so it belongs to the next node.
        """
        text = self._text(messages, tools)
        if messages and messages[-1].role == "assistant" and self.stop_text in text:
            text = text[: text.rindex(self.stop_text) + len(self.stop_text)]
        return text

    def _continue(
        self, before: Sequence[Message], new: Sequence[Message], tools: Sequence[dict[str, Any]]
    ) -> tuple[str | None, str]:
        """(None, the text that `new` adds), or (rewritten history, the rest) where the old text did not survive.

        No new messages stands for the generation prompt.
        """
        old = self._prefix(before, tools)
        whole = self._prefix([*before, *new], tools) if new else self._text(before, tools, generate=True)
        same = _common(old, whole)
        return (None if same == len(old) else whole[:same]), whole[same:]

    def _fill_run(
        self,
        trajectory: Trajectory,
        path: Sequence[int],
        messages: Sequence[Message],
        start: int,
        end: int,
        chosen: Sequence[bool],
        train_on: TrainOnWhat,
    ) -> None:
        """Ids and masks for path[start:end]: one assistant message, or the context messages between two of them."""
        ending = self._ending(trajectory.nodes[path[start - 1]]) if start else ""
        whole = self._continue(messages[:start], messages[start:end], trajectory.tools)[1]
        texts = [""] * (end - start - 1) + [whole]
        if end - start > 1:
            try:
                runs = [(messages[:i], messages[i : i + 1]) for i in range(start, end)]
                singly = [self._continue(*run, trajectory.tools) for run in runs]
            except RenderingError:  # a template that refuses a system message alone, say
                singly = [("", "")]
            if all(history is None for history, _ in singly):
                texts = [text for _, text in singly]
        texts[0] = ending + texts[0]
        for i, text in enumerate(texts, start):
            message, node = messages[i], trajectory.nodes[path[i]]
            if message.role == "assistant":  # header and answer apart, as they are when the answer is sampled
                prompt = ending + self._continue(messages[:start], [], trajectory.tools)[1] if start else ""
                at = _common(prompt, text)
                pieces = [text[:at], text[at:]]
            elif chosen[i] and text:  # content apart; it ends where the template's text behind it begins
                marked = self._text([*messages[:i], replace(message, content=MARKER)], trajectory.tools)
                footer = len(marked) - marked.rfind(MARKER) - len(MARKER)
                body = _cut(message.content, self.control)
                body = body if body in text else body.strip()  # some templates trim
                at = text.rfind(body, 0, len(text) - footer)
                pieces = [text[:at], body, text[at + len(body) :]] if at >= 0 else [text]
            else:  # context is tokenised whole, as it is when an episode is played
                pieces = [text]
            ids = [self.encode(piece) for piece in pieces]
            node.ids_T = np.concatenate(ids)
            trained = [train_on is TrainOnWhat.ALL_TOKENS or (chosen[i] and k == 1) for k in range(len(ids))]
            node.sampled_T = np.concatenate([np.full(len(p), t) for p, t in zip(ids, trained, strict=True)])

    def _ending(self, node: Node) -> str:
        """The stop token, where sampling ended at a stop text or a limit and it is missing; else ''.

        It was not sampled, so it is context and belongs to the next node.
        """
        if node.ids_T is None or node.logprob_T is None or set(node.ids_T[-1:].tolist()) & self.stop_ids:
            return ""
        return self.stop_text

    def _branch(self, trajectory: Trajectory, path: Sequence[int], start: int, history: str) -> list[int]:
        """A new chain beside `path`: its first `start` messages hold the rewritten text, untrained; the rest wait."""
        chain: list[int] = []
        for depth, n in enumerate(path):
            chain.append(trajectory.reuse(trajectory.nodes[n].message, chain[-1] if chain else None))
            if depth < start:
                ids_T = self.encode(history if depth == start - 1 else "")
                node = trajectory.nodes[chain[-1]]
                node.ids_T, node.sampled_T = ids_T, np.zeros(len(ids_T), bool)
        return chain

    def _find_notation(self) -> str:
        if not self.native_tools:
            return "hermes"  # as rendering.tools writes it
        own = getattr(self.tokenizer, "response_template", None)
        return RESPONSE_TEMPLATE if own else notations.detect(self.template)

    def _find_control(self) -> tuple[re.Pattern[str], re.Pattern[str]]:
        """What no message may spell as a token, and what an assistant's message may not: see the top of this file."""
        chat = [{"role": role, "content": "x"} for role in ("user", "assistant", "user")]
        text: str = self.tokenizer.apply_chat_template(chat, tokenize=False)
        added = {token.content: token.special for token in self.tokenizer.added_tokens_decoder.values()}
        written = {token for token in added if token in text and re.search(r"[^\w\s]", token)}
        special = {token for token in added if added[token]}
        listed = set(getattr(self.tokenizer, "chat_control_tokens", None) or ())
        turns = special & written | {self.stop_text}
        return _spelt(special | written | listed | turns), _spelt(turns)

    def _find_stop(self) -> tuple[str, frozenset[int]]:
        """The token that the template writes after an assistant's content: found by rendering one."""
        chat = [{"role": "user", "content": "x"}, {"role": "assistant", "content": MARKER}]
        text: str = self.tokenizer.apply_chat_template(chat, tokenize=False)
        after = self.tokenizer.encode(text[text.rindex(MARKER) + len(MARKER) :], add_special_tokens=False)
        special = set(self.tokenizer.all_special_ids) | set(self.tokenizer.added_tokens_decoder)
        stops = [i for i in after if i in special]
        if not stops:
            raise RenderingError(
                f"the chat template of {self.name!r} ends an assistant's turn with no special token: {text!r}"
            )
        return self.tokenizer.decode([stops[0]]), frozenset({stops[0], self.tokenizer.eos_token_id} - {None})


def _spelt(tokens: set[str]) -> re.Pattern[str]:
    """The first character of each place where a text spells one of these tokens, overlaps among them."""
    return re.compile(f"(?={'|'.join(map(re.escape, tokens))}).", re.DOTALL)


def _cut(value: Any, spelt: re.Pattern[str]) -> Any:
    """The value with all its strings cut where they spell a control token."""
    if isinstance(value, str):
        return spelt.sub(lambda first: first[0] + CUT, value)
    if isinstance(value, dict):
        return {_cut(key, spelt): _cut(item, spelt) for key, item in value.items()}
    if isinstance(value, list):
        return [_cut(item, spelt) for item in value]
    return value


def _common(a: str, b: str) -> int:
    """Length of the longest common beginning."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _mentions(template: str, variable: str) -> bool:
    import jinja2.meta
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"])
    try:
        return variable in jinja2.meta.find_undeclared_variables(environment.parse(template))
    except jinja2.TemplateError:  # a tag that only transformers knows, such as {% generation %}
        return variable in template


def _as_dict(message: Message) -> dict[str, Any]:
    value: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.thought:
        value["reasoning_content"] = message.thought
    if message.tool_calls:
        value["tool_calls"] = [
            {"type": "function", "id": c.id, "function": {"name": c.name, "arguments": c.arguments}}
            for c in message.tool_calls
        ]
    if message.role == "tool":
        value |= {"tool_call_id": message.tool_call_id, "name": message.name}
    return value


def _chosen(trajectory: Trajectory, path: Sequence[int], train_on: TrainOnWhat, custom: Sequence[int]) -> set[int]:
    role = {n: trajectory.messages[trajectory.nodes[n].message].role for n in path}
    assistant = [n for n in path if role[n] == "assistant"]
    last_user = max((i for i, n in enumerate(path) if role[n] == "user"), default=-1)
    match train_on:
        case TrainOnWhat.LAST_ASSISTANT_MESSAGE:
            return set(assistant[-1:])
        case TrainOnWhat.LAST_ASSISTANT_TURN:
            return {n for n in path[last_user + 1 :] if role[n] == "assistant"}
        case TrainOnWhat.ALL_ASSISTANT_MESSAGES:
            return set(assistant)
        case TrainOnWhat.ALL_MESSAGES | TrainOnWhat.ALL_TOKENS:
            return set(path)
        case TrainOnWhat.ALL_USER_AND_SYSTEM_MESSAGES:
            return {n for n in path if role[n] in ("user", "system")}
        case TrainOnWhat.CUSTOMIZED:
            return set(custom)
