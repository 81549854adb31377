"""What happened: a tree of messages with everything that was sampled.

One `Trajectory` holds all episodes of one task that share a beginning: the members of a group, the branches of a
search, the re-renderings of a dialogue. Each message is stored once; each `Node` adds the tokens (or the vector) that
carried it, and an `Episode` is the path from a root to one leaf.

Axis suffixes: `_T` tokens of one node, `_P` tokens of a whole path, `_G` episodes of one trajectory.
"""

import enum
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from etude.core.errors import CreditError, TrajectoryError


@dataclass(frozen=True)
class ToolCall:
    """One call that a model asked for."""

    name: str
    arguments: dict[str, Any]
    id: str = ""


@dataclass(frozen=True)
class Image:
    """An image that was observed: encoded bytes and their media type."""

    data: bytes
    media: str = "image/png"


@dataclass(frozen=True)
class Message:
    """One message of a dialogue; content and tool calls may come together."""

    role: str
    """`system`, `user`, `assistant` or `tool`."""
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    """For role `tool`: the call that this answers."""
    name: str = ""
    """For role `tool`: the tool's name."""
    thought: str = ""
    """Reasoning kept apart from the content, where a format has it."""
    images: tuple[Image, ...] = ()


class StopReason(enum.StrEnum):
    """Why an episode ended."""

    DONE = "done"  # the environment said that it is over
    ANSWERED = "answered"  # the agent gave a final answer
    TURNS = "turns"  # the limit on turns was reached
    TOKENS = "tokens"  # the context or the answer was cut at its length limit
    TIME = "time"  # the time limit was reached
    FAILED = "failed"  # see Episode.failure


class Boundary(enum.StrEnum):
    """Where a failed episode failed; a failure is data, never reward 0."""

    MODEL = "model"
    AGENT = "agent"
    ENVIRONMENT = "environment"
    TOOL = "tool"
    SCORER = "scorer"
    TIME = "time"


@dataclass(frozen=True)
class Failure:
    """The place and the text of what went wrong."""

    boundary: Boundary
    error: str


@dataclass
class Node:
    """One message (or one vector action) at its place in the tree.

    `ids_T` holds every token that this message added to the context of its parent: the template's own tokens, then what
    was sampled. The ids along a path are exactly what the model saw, and are never made again from text.
    """

    parent: int | None
    message: int
    """Index into `Trajectory.messages`."""
    ids_T: np.ndarray | None = None
    """int32 [T]; None for a policy that does not give tokens."""
    sampled_T: np.ndarray | None = None
    """bool [T]; which ids the policy sampled."""
    logprob_T: np.ndarray | None = None
    """float32 [T], nats, at the sampling temperature; NaN where not sampled."""
    weight_T: np.ndarray | None = None
    """float32 [T]; NaN or None means unscored, which is not zero."""
    value_T: np.ndarray | None = None
    """float32 [T]; what a critic expected before each sampled token, while a step is weighed; never stored."""
    return_T: np.ndarray | None = None
    """float32 [T]; what the critic should have expected, as a credit found; never stored."""
    version: int | None = None
    """The policy's version when this was sampled."""
    reward: float | None = None
    """Reward of this turn, where the environment gives one."""
    scores: dict[str, float] = field(default_factory=dict[str, float])
    action: np.ndarray | None = None
    """A vector or latent action, any shape and type."""

    @property
    def sampled(self) -> bool:
        """Whether a policy produced this node."""
        return self.action is not None or self.version is not None


@dataclass
class Episode:
    """One path from a root to `leaf`, and how it went."""

    leaf: int
    rewritten: list[int] = field(default_factory=list[int])
    """Leaves of this episode's earlier renderings, left behind where a template rewrote history; trained too."""
    seed: int = 0
    reward: float | None = None
    """The environment's reward of the whole episode; None when it failed."""
    score: float | None = None
    """What credit reads: the recipe's scorers combined; None means unscored."""
    scores: dict[str, float] = field(default_factory=dict[str, float])
    stop: StopReason | None = None
    failure: Failure | None = None
    turns: int = 0
    tokens_sampled: int = 0
    seconds: float = 0.0


@dataclass
class Trajectory:
    """The episodes of one task, as a tree."""

    id: str
    task: str
    """The task's id, fixed across runs."""
    environment: str = ""
    split: str = ""
    tools: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """Tools offered to the model, as JSON-schema function descriptions `{name, description, parameters}`."""
    messages: list[Message] = field(default_factory=list[Message])
    nodes: list[Node] = field(default_factory=list[Node])
    episodes: list[Episode] = field(default_factory=list[Episode])
    meta: dict[str, Any] = field(default_factory=dict[str, Any])
    """Anything JSON can hold: skills, difficulty, provenance, the source format's own fields."""

    def add(self, message: Message, parent: int | None, **node: Any) -> int:
        """Append a message below `parent` (None for a root) and return the new node's index."""
        if parent is not None and not 0 <= parent < len(self.nodes):
            raise TrajectoryError(f"trajectory {self.id}: parent {parent} is not one of its {len(self.nodes)} nodes")
        self.messages.append(message)
        return self.reuse(len(self.messages) - 1, parent, **node)

    def reuse(self, message: int, parent: int | None, **node: Any) -> int:
        """Append a node for a message that is already stored: a template rewrote its tokens, or a branch repeats it."""
        self.nodes.append(Node(parent, message, **node))
        return len(self.nodes) - 1

    def path(self, leaf: int) -> list[int]:
        """Node indices from the root to `leaf`."""
        path: list[int] = []
        at: int | None = leaf
        while at is not None:
            path.append(at)
            at = self.nodes[at].parent
        return path[::-1]

    def nodes_of(self, episode: Episode) -> list[int]:
        """Every node of an episode once, those of its earlier renderings first."""
        return sorted({n for leaf in (*episode.rewritten, episode.leaf) for n in self.path(leaf)})

    def dialogue(self, leaf: int) -> list[Message]:
        """Messages from the root to `leaf`."""
        return [self.messages[self.nodes[n].message] for n in self.path(leaf)]

    def ids_P(self, leaf: int) -> np.ndarray:
        """int32 [P]; the tokens that the model saw on the path to `leaf`, including the leaf's own."""
        parts = [self.nodes[n].ids_T for n in self.path(leaf)]
        return np.concatenate([p for p in parts if p is not None] or [np.zeros(0, np.int32)])

    @property
    def score_G(self) -> np.ndarray:
        """float64 [G]; one score per episode, NaN where unscored."""
        return np.array([math.nan if e.score is None else e.score for e in self.episodes], dtype=np.float64)

    def weigh(self, weight_G: Sequence[float] | np.ndarray) -> None:
        """Give every sampled token of each episode that episode's weight.

        A token that several episodes share gets the sum of theirs, so that training the tree once equals training each
        episode alone. NaN leaves an episode's tokens unscored.

        Raises CreditError when there is not one weight per episode.
        """
        if len(weight_G) != len(self.episodes):
            raise CreditError(f"trajectory {self.id}: {len(weight_G)} weights for {len(self.episodes)} episodes")
        for node in self.nodes:
            node.weight_T = None
        for episode, weight in zip(self.episodes, weight_G, strict=True):
            if math.isnan(weight):
                continue
            for n in self.nodes_of(episode):
                self.weigh_node(n, float(weight))

    def weigh_node(self, n: int, weight: float | np.ndarray) -> None:
        """Add a weight, a scalar or float [T], to the sampled tokens of one node."""
        node = self.nodes[n]
        if node.ids_T is None or node.sampled_T is None or not node.sampled_T.any():
            return
        if np.ndim(weight) and np.shape(weight) != node.ids_T.shape:
            raise CreditError(
                f"trajectory {self.id} node {n}: {np.shape(weight)[0]} weights for {len(node.ids_T)} tokens"
            )
        before_T = np.full(len(node.ids_T), np.nan, np.float32) if node.weight_T is None else node.weight_T
        added_T = np.where(np.isnan(before_T), 0.0, before_T) + weight
        node.weight_T = np.where(node.sampled_T, added_T, np.nan).astype(np.float32)

    def check(self) -> None:
        """Raise TrajectoryError unless parents precede children and every per-token array has its node's length."""
        for n, node in enumerate(self.nodes):
            if node.parent is not None and not 0 <= node.parent < n:
                raise TrajectoryError(f"trajectory {self.id} node {n}: parent {node.parent} does not precede it")
            if not 0 <= node.message < len(self.messages):
                raise TrajectoryError(f"trajectory {self.id} node {n}: no message {node.message}")
            for name in ("sampled_T", "logprob_T", "weight_T", "value_T", "return_T"):
                array = getattr(node, name)
                length = 0 if node.ids_T is None else len(node.ids_T)
                if array is not None and len(array) != length:
                    raise TrajectoryError(f"trajectory {self.id} node {n}: {name} has {len(array)} of {length} tokens")
        for episode in self.episodes:
            for leaf in (*episode.rewritten, episode.leaf):
                if not 0 <= leaf < len(self.nodes):
                    raise TrajectoryError(f"trajectory {self.id}: an episode ends at node {leaf}, which is not there")


def episodes(trajectories: Sequence[Trajectory]) -> Iterator[tuple[Trajectory, Episode]]:
    """Every episode with the trajectory that holds it."""
    for trajectory in trajectories:
        for episode in trajectory.episodes:
            yield trajectory, episode
