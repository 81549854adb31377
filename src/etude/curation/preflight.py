"""Look before training: refuse data that would train something other than what was asked for.

A sample is one episode; samples are numbered in the order of `etude.trajectory.episodes(trajectories)`. Preflight reads
the ids, masks and weights that the trainer will read. It changes nothing.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from etude.core.errors import PreflightError, RecipeError, suggest
from etude.rendering.renderer import Renderer
from etude.trajectory import Episode, Message, Node, StopReason, Trajectory, episodes

# code -> (what is wrong with "2 of 512 samples", what to do about it)
TEXTS = {
    "no_tokens": ("have no tokens", "Renderer.fill gives ids and a mask to dialogues that were not sampled here"),
    "all_masked": (
        "would train nothing",
        "fill with another train_on, or drop them; a mask taken from a chat template is empty where it has no "
        "{% generation %} block",
    ),
    "stop_untrained": (
        "would never learn to stop",
        "put the token that ends the turn into the mask, as Renderer.fill does",
    ),
    "pad_is_eos": (
        "mistake the stop token for padding",
        "padding and stop are the same token here, so a mask made from `id != pad_id` is wrong; take the mask from "
        "Renderer.fill, or give the tokenizer a pad token of its own",
    ),
    "prompt_trained": (
        "would train the prompt",
        "only what the assistant says should be in the mask; if this is meant, allow 'prompt_trained'",
    ),
    "tool_result_trained": (
        "would train the model to write tool results itself",
        "only what the assistant says should be in the mask; if this is meant, allow 'tool_result_trained'",
    ),
    "drift": (
        "would train other tokens than the model saw",
        "text turned into ids a second time gives other ids; record ids and log-probabilities at sampling, or leave "
        "these samples out",
    ),
    "text_differs": (
        "have recorded tokens that say something else than their message",
        "the message was edited after it was sampled; restore it, or drop ids_T and fill the dialogue anew",
    ),
    "content_lost": (
        "lose part of what the assistant said when rendered",
        "the chat template leaves it out; use a template that writes content and tool calls of one message",
    ),
    "no_generation_prompt": (
        "train an answer that no generation prompt precedes",
        "serving puts the template's assistant header before the answer; render with add_generation_prompt=True",
    ),
    "truncated": ("are cut off", "raise Sampling.max_tokens, or drop them with curation/success"),
    "steered": (
        "have tokens that a grammar or a logit bias chose",
        "these are not trained, so the policy does not learn to write them by itself: serve it with the same grammar "
        "and bias, or sample without them",
    ),
    "too_long": ("are longer than the trainer takes", "raise max_tokens, or drop them"),
    "template_differs": (
        "are rendered with another chat template, vocabulary or tool notation than serving uses",
        "serve with the tokenizer that is saved beside the weights, or render again with the serving one",
    ),
    "no_gradient": (
        "are in groups that carry no gradient",
        "all its episodes did equally well; choose easier or harder tasks, larger groups or a finer scorer",
    ),
    "no_weight": (
        "got no weight",
        "unscored is not zero: nothing of them would be trained; give them a score, or drop them",
    ),
    "bad_reward": ("have a reward that is no number of the declared range", "mend the environment or the scorer"),
    "duplicate_id": (
        "have the id of an earlier trajectory",
        "ids must differ; curation/dedupe drops repeated dialogues",
    ),
    "test_leak": ("are of tasks in the test split", "train on tasks of the train split only"),
}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, and where."""

    code: str
    """A key of TEXTS."""
    samples: tuple[int, ...]
    total: int
    """Samples that were looked at."""
    details: tuple[str, ...]
    """What each of them shows."""
    severity: Literal["refuse", "warn"] = "refuse"

    @property
    def message(self) -> str:
        """`2 of 512 samples would train nothing`."""
        return f"{len(self.samples)} of {self.total} samples {TEXTS[self.code][0]}"

    @property
    def remedy(self) -> str:
        """What to do."""
        return TEXTS[self.code][1]

    def __str__(self) -> str:
        alike: dict[str, list[int]] = defaultdict(list)
        for sample, detail in zip(self.samples, self.details, strict=True):
            alike[detail].append(sample)
        lines = [f"sample {_some(where)}: {detail}" for detail, where in alike.items()]
        more = [f"and {len(lines) - 3} more like these"] if len(lines) > 3 else []
        outcome = "refused" if self.severity == "refuse" else "warning"
        return "\n".join([f"{outcome}, {self.message}", *lines[:3], *more, self.remedy])


def _some(samples: Sequence[int]) -> str:
    return ", ".join(map(str, samples[:5])) + (", …" if len(samples) > 5 else "")


@dataclass(frozen=True)
class Findings:
    """All that preflight found; iterates over its findings, refusals first."""

    items: tuple[Finding, ...]
    samples: int

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def refused(self) -> bool:
        """Whether training must not go on."""
        return any(f.severity == "refuse" for f in self.items)

    def __str__(self) -> str:
        if not self.items:
            return f"{self.samples} samples, nothing found"
        first = self.items[0].samples[0]
        return "\n".join([*map(str, self.items), f"etude preflight --show {first}   draws the mask"])

    def raise_if_any(self) -> None:
        """Raise PreflightError with everything that was found, if any of it is a refusal; warnings alone pass."""
        if self.refused:
            raise PreflightError(str(self))


def preflight(
    trajectories: Sequence[Trajectory],
    renderer: Renderer,
    *,
    serving_fingerprint: str | None = None,
    test_tasks: Collection[str] = (),
    reward_range: tuple[float, float] = (0.0, 1.0),
    max_tokens: int | None = None,
    mode: Literal["supervised", "reinforcement"] = "supervised",
    allow: Collection[str] = (),
) -> Findings:
    """Everything that is wrong with the data; `findings.raise_if_any()` refuses it.

    Weights are looked at where there are any: weigh first, to have them checked as well.

    serving_fingerprint: `Renderer.fingerprint` of what will serve the model; None if it is not served from elsewhere.
    test_tasks: ids of tasks that must not be trained on.
    reward_range: smallest and largest reward that the environment declares.
    max_tokens: longest path that the trainer takes; None for no limit.
    mode: `supervised` data must be whole. In `reinforcement` cut answers and failed episodes without weight are part of
        practice and only warned of, and so are groups without gradient unless all are such.
    allow: codes of findings that are meant to be so.

    Raises RecipeError for an unknown code in `allow`, TrajectoryError for a malformed tree.
    """
    for code in allow:
        if code not in TEXTS:
            raise RecipeError(f"preflight: allow={code!r} is no finding; {suggest(code, TEXTS)}")
    samples = list(episodes(trajectories))
    look = _Inspection(renderer, _header(renderer))
    look.warn_only.add("steered")
    for trajectory in trajectories:
        trajectory.check()
    for i, (trajectory, episode) in enumerate(samples):
        look.tokens(i, trajectory, episode, max_tokens, mode)
        look.reward(i, episode, reward_range)
        if trajectory.task in test_tasks or trajectory.split == "test":
            look.add("test_leak", i, f"task {trajectory.task!r} of trajectory {trajectory.id!r}")
        if serving_fingerprint is not None and serving_fingerprint != renderer.fingerprint:
            look.add("template_differs", i, f"training has {renderer.fingerprint}, serving {serving_fingerprint}")
    look.ids(trajectories)
    look.weights(samples, mode)
    if mode == "reinforcement":
        look.groups(trajectories)
        look.warn_only.add("truncated")
    found = []
    for code in TEXTS:
        if where := look.details[code] if code not in allow else {}:
            severity = "warn" if code in look.warn_only else "refuse"
            details = dict(sorted(where.items()))
            found.append(Finding(code, tuple(details), len(samples), tuple(details.values()), severity))
    return Findings(tuple(sorted(found, key=lambda f: f.severity == "warn")), len(samples))


def draw(trajectory: Trajectory, leaf: int, renderer: Renderer, *, colour: bool = True) -> str:
    """The path to `leaf` token by token, for a terminal: what is context, what is trained, and which way.

    Without colour, trained tokens stand in [ ], a trained stop token in { }, tokens with negative weight in < >, and
    sampled tokens without weight in ( ).
    """
    lines = [" ".join(_paint(kind, text, colour) for kind, text in LEGEND)]
    pieces = []
    for n in trajectory.path(leaf):
        node = trajectory.nodes[n]
        if node.ids_T is None:
            message = trajectory.messages[node.message]
            pieces.append(f"\n(message {node.message}, {message.role}: no tokens)\n")
            continue
        for t, token in enumerate(node.ids_T):
            text = renderer.decode([token]).replace("\n", "⏎")
            pieces.append(_paint(_kind(node, t, renderer), text, colour) + ("\n" if text.endswith("⏎") else ""))
    return "\n".join([*lines, "".join(pieces)])


# -- how draw shows a token: ANSI colour, brackets -------------------------------------------------------------------

STYLES = {
    "context": ("90", "", ""),
    "trained": ("32", "[", "]"),
    "stop": ("1;33", "{", "}"),
    "negative": ("31", "<", ">"),
    "unweighted": ("36", "(", ")"),
}
LEGEND = [
    ("context", "context"),
    ("trained", "trained"),
    ("stop", "stop token, trained"),
    ("negative", "negative weight"),
    ("unweighted", "sampled, no weight"),
]


def _kind(node: Node, t: int, renderer: Renderer) -> str:
    if node.sampled_T is None or not node.sampled_T[t]:
        return "context"
    weight = 1.0 if node.weight_T is None else float(node.weight_T[t])  # not weighed yet: as supervised training does
    if math.isnan(weight) or weight == 0:
        return "unweighted"
    if weight < 0:
        return "negative"
    return "stop" if int(node.ids_T[t]) in renderer.stop_ids else "trained"  # type: ignore[index]


def _paint(kind: str, text: str, colour: bool) -> str:
    code, left, right = STYLES[kind]
    return f"\x1b[{code}m{text}\x1b[0m" if colour else left + text + right


# -- the checks --------------------------------------------------------------------------------------------------------


@dataclass
class _Inspection:
    """What the checks have found so far."""

    renderer: Renderer
    header: np.ndarray
    """int32 [H]; the template's generation prompt."""
    details: dict[str, dict[int, str]] = field(default_factory=lambda: defaultdict(dict))
    """Code -> sample -> what it showed first."""
    warn_only: set[str] = field(default_factory=set)

    def add(self, code: str, sample: int, detail: str) -> None:
        self.details[code].setdefault(sample, detail)

    def tokens(self, i: int, trajectory: Trajectory, episode: Episode, max_tokens: int | None, mode: str) -> None:
        """Mask, stop token, generation prompt and text of every message that the sample trains."""
        if episode.stop is StopReason.TOKENS:
            self.add("truncated", i, "the token limit ended it")
        seen: set[int] = set()  # renderings of one episode share nodes; each is looked at once
        anything = False
        for leaf in (*episode.rewritten, episode.leaf):
            before_P = np.zeros(0, np.int32)
            for n in _rendered(trajectory, leaf):
                node = trajectory.nodes[n]
                message = trajectory.messages[node.message]
                place = f"message {node.message} ({message.role})"
                if node.action is not None:  # a vector has neither tokens nor template
                    anything = True
                    continue
                if node.ids_T is None:
                    self.add("no_tokens", i, f"{place} was never rendered")
                    return
                trained_T = _trained(node)
                if n not in seen and trained_T.any():
                    anything = True
                    self.node(i, place, before_P, trajectory, node, trained_T, _may_be_cut(trajectory, episode, n))
                seen.add(n)
                before_P = np.concatenate([before_P, node.ids_T])
            if max_tokens is not None and len(before_P) > max_tokens:
                self.add("too_long", i, f"{len(before_P)} tokens, and max_tokens is {max_tokens}")
        if not anything and not (mode == "reinforcement" and episode.failure):
            self.add("all_masked", i, "every token is masked")

    def node(
        self,
        i: int,
        place: str,
        before_P: np.ndarray,
        trajectory: Trajectory,
        node: Node,
        trained_T: np.ndarray,
        cut: bool,
    ) -> None:
        """One message of which some tokens are trained."""
        assert node.ids_T is not None
        message = trajectory.messages[node.message]
        if message.role != "assistant":
            code = "tool_result_trained" if message.role == "tool" else "prompt_trained"
            self.add(code, i, f"{trained_T.sum()} tokens of {place} are in the mask")
            return
        said_T = _said(node)
        if steered := int((said_T & ~trained_T).sum()):
            self.add("steered", i, f"{steered} of {said_T.sum()} tokens of {place}")
        self.start(i, place, np.concatenate([before_P, node.ids_T]), len(before_P) + int(said_T.argmax()))
        self.stop(i, place, node, said_T, cut)
        self.text(i, place, trajectory, node)

    def start(self, i: int, place: str, ids_P: np.ndarray, start: int) -> None:
        """The generation prompt must end exactly at `start`, where the first trained token is."""
        decode, header = self.renderer.decode, self.header
        for inside in range(len(header) + 1):  # how many of its tokens are trained
            at = start + inside - len(header)
            if at >= 0 and np.array_equal(ids_P[at : start + inside], header):
                if inside:
                    shown = decode(header[len(header) - inside :])
                    self.add("prompt_trained", i, f"the generation prompt's {shown!r} before {place} is in the mask")
                return
        found = decode(ids_P[max(start - len(header), 0) : start])
        self.add("no_generation_prompt", i, f"{place} follows {found!r} instead of {decode(header)!r}")

    def stop(self, i: int, place: str, node: Node, trained_T: np.ndarray, cut: bool) -> None:
        """The first stop token of the answer is trained, and no padding behind it."""
        assert node.ids_T is not None
        ids_T, pad = node.ids_T, self.renderer.pad_id
        stops = np.flatnonzero(np.isin(ids_T, list(self.renderer.stop_ids)) & (np.cumsum(trained_T) > 0))
        if not len(stops):
            if _recorded(node):  # the policy was stopped before it stopped by itself
                if cut:
                    self.add("truncated", i, f"{place} was cut before its stop token")
            else:
                self.add("stop_untrained", i, f"{place} has no stop token")
            return
        stop, shared = stops[0], pad in self.renderer.stop_ids
        text = self.renderer.decode(ids_T[stop : stop + 1])
        if not trained_T[stop]:
            code = "pad_is_eos" if ids_T[stop] == pad else "stop_untrained"
            self.add(code, i, f"{text!r} at the end of {place} is not in the mask")
        elif shared and (trained_T & (ids_T == pad))[stop + 1 :].any():
            self.add("pad_is_eos", i, f"padding {text!r} behind the end of {place} is in the mask")

    def text(self, i: int, place: str, trajectory: Trajectory, node: Node) -> None:
        """The ids say what the message says, and ids that were not recorded survive re-tokenisation."""
        assert node.ids_T is not None
        message = trajectory.messages[node.message]
        answer_T = node.ids_T[_said(node)]
        lost = _lost(message, self.renderer.decode(node.ids_T))
        if _recorded(node):
            parsed = self.renderer.parse(answer_T, trajectory.tools)[0]
            apart = message.tool_calls or message.thought  # other parsers than ours may have taken these from the text
            if _gist(parsed) != _gist(message) and (lost or not apart):
                self.add("text_differs", i, f"{place} has {message.content[:60]!r}, its tokens {parsed.content[:60]!r}")
            return
        if lost:
            self.add("content_lost", i, f"{lost} of {place} is not in the rendered text")
        again_T = self.renderer.encode_again(answer_T)
        if not np.array_equal(again_T, answer_T):
            same = min(len(again_T), len(answer_T))
            t = int(np.append(again_T[:same] != answer_T[:same], True).argmax())
            change = f"{answer_T[t : t + 3].tolist()} -> {again_T[t : t + 3].tolist()}"
            self.add("drift", i, f"{place} has other ids when its text is tokenised again, from token {t} on: {change}")

    def reward(self, i: int, episode: Episode, reward_range: tuple[float, float]) -> None:
        low, high = reward_range
        if episode.reward is not None and not low <= episode.reward <= high:  # catches NaN, too
            self.add("bad_reward", i, f"reward {episode.reward} is not within [{low:g}, {high:g}]")
        if episode.score is not None and not math.isfinite(episode.score):
            self.add("bad_reward", i, f"score {episode.score} is not finite")

    def ids(self, trajectories: Sequence[Trajectory]) -> None:
        seen: set[str] = set()
        for trajectory, own in _groups(trajectories):
            for i in own if trajectory.id in seen else ():
                self.add("duplicate_id", i, f"id {trajectory.id!r}")
            seen.add(trajectory.id)

    def weights(self, samples: Sequence[tuple[Trajectory, Episode]], mode: str) -> None:
        """Once anything is weighed, a sample without weight is a mistake, unless its episode failed."""
        if not _weighed([t for t, _ in samples]):
            return
        excused = mode == "reinforcement"
        for i, (trajectory, episode) in enumerate(samples):
            weight_P = _weight_P(trajectory, episode)
            if len(weight_P) and np.isnan(weight_P).all():
                failure = episode.failure
                self.add("no_weight", i, f"its episode failed: {failure.error}" if failure else "no token has a weight")
                excused &= failure is not None
        if excused:
            self.warn_only.add("no_weight")

    def groups(self, trajectories: Sequence[Trajectory]) -> None:
        """Groups whose weights, or scores while nothing is weighed, can move nothing; refused only if all are such."""
        weighed = _weighed(trajectories)
        silent = 0
        for trajectory, own in _groups(trajectories):
            if weighed:
                moves = any(np.nan_to_num(_weight_P(trajectory, e)).any() for e in trajectory.episodes)
                why = "every weight of its group is zero or missing"
            else:
                score_G = trajectory.score_G[~np.isnan(trajectory.score_G)]
                moves = len(set(score_G)) > 1
                why = f"the scores of its group are {score_G.tolist()}"
            if not moves:
                silent += 1
                for i in own:
                    self.add("no_gradient", i, why)
        if silent < len(trajectories):
            self.warn_only.add("no_gradient")


def _header(renderer: Renderer) -> np.ndarray:
    """int32 [H]; the template's generation prompt after a user's message."""
    asked = [Message("user", "x")]
    context_P = renderer.render(asked, add_generation_prompt=False)
    return renderer.render(asked, add_generation_prompt=True)[len(context_P) :]


def _rendered(trajectory: Trajectory, leaf: int) -> list[int]:
    """The path to `leaf` without the observations at its end that no policy was shown, which have no tokens yet."""
    path = trajectory.path(leaf)
    while path:
        node = trajectory.nodes[path[-1]]
        if node.ids_T is not None or node.action is not None or trajectory.messages[node.message].role == "assistant":
            break
        path.pop()
    return path


def _may_be_cut(trajectory: Trajectory, episode: Episode, n: int) -> bool:
    """Whether a limit may have ended node n; where the episode went on or ended well, it was a stop text."""
    if episode.stop is StopReason.DONE:  # as a world may be by the calls of a last answer that was cut
        return n == max((m for m in trajectory.path(episode.leaf) if _recorded(trajectory.nodes[m])), default=n)
    return episode.stop not in (StopReason.ANSWERED, StopReason.TURNS)


def _recorded(node: Node) -> bool:
    """Whether the ids were recorded as they were sampled, with their log-probabilities, and not made from text."""
    return node.logprob_T is not None and bool(np.isfinite(node.logprob_T).any())


def _said(node: Node) -> np.ndarray:
    """bool [T]; tokens that are trained, and those that were sampled but not chosen by the policy."""
    return _trained(node) | np.isfinite(node.logprob_T) if node.logprob_T is not None else _trained(node)


def _trained(node: Node) -> np.ndarray:
    """bool [T]; tokens that are in the mask, or that carry a weight although they are not."""
    length = 0 if node.ids_T is None else len(node.ids_T)
    sampled_T = np.zeros(length, bool) if node.sampled_T is None else node.sampled_T
    return sampled_T if node.weight_T is None else sampled_T | ~np.isnan(node.weight_T)


def _words(text: str) -> str:
    return " ".join(text.split())  # templates trim and break lines as they like


def _gist(message: Message) -> tuple[str, list[tuple[str, dict]]]:
    return _words(message.content), [(c.name, c.arguments) for c in message.tool_calls]


def _lost(message: Message, text: str) -> str:
    """What of the message's content and calls the text lacks; '' if nothing."""
    if _words(message.content) not in _words(text):
        return f"the content {message.content[:40]!r}"
    return next((f"the call to {c.name!r}" for c in message.tool_calls if c.name not in text), "")


def _groups(trajectories: Sequence[Trajectory]) -> Iterator[tuple[Trajectory, range]]:
    """Every trajectory with the numbers of its samples."""
    start = 0
    for trajectory in trajectories:
        yield trajectory, range(start, start + len(trajectory.episodes))
        start += len(trajectory.episodes)


def _weighed(trajectories: Sequence[Trajectory]) -> bool:
    return any(node.weight_T is not None for t in trajectories for node in t.nodes)


def _weight_P(trajectory: Trajectory, episode: Episode) -> np.ndarray:
    """float [S]; weights of the sampled tokens of an episode, NaN where there is none."""
    nodes = [trajectory.nodes[n] for n in trajectory.nodes_of(episode)]
    parts = [
        np.full(node.sampled_T.sum(), np.nan) if node.weight_T is None else node.weight_T[node.sampled_T]
        for node in nodes
        if node.sampled_T is not None
    ]
    return np.concatenate([np.zeros(0), *parts])
