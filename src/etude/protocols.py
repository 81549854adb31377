"""Every part's signature on one page.

A part is anything with the right shape; nothing inherits from these. Shelves import this page and the ground, never
each other: a collaborator arrives as an argument typed by one of these protocols.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from etude.core.errors import PolicyError, suggest
from etude.trajectory import Episode, Message, Trajectory

if TYPE_CHECKING:
    import torch

SPLITS = ("train", "dev", "test")


# -- tasks and worlds ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """One thing to do in one environment. The same id means the same task in every run."""

    id: str
    environment: Environment = field(repr=False, compare=False)
    split: str = "train"
    data: dict[str, Any] = field(default_factory=dict[str, Any], compare=False)
    """What the environment needs to set the task up; the agent never sees it."""
    domain: str = ""
    difficulty: float = 0.0
    skills: tuple[str, ...] = ()
    provenance: str = ""


@dataclass(frozen=True)
class Observation:
    """What the agent is shown: messages to append, and an array where the world is not made of words."""

    messages: tuple[Message, ...] = ()
    array: np.ndarray | None = None


@dataclass(frozen=True)
class Step:
    """What an action led to."""

    observation: Observation
    done: bool = False
    reward: float | None = None
    """Reward of this step; a world that judges only the end gives None until then."""
    info: dict[str, Any] = field(default_factory=dict[str, Any])
    """What else there is to say. Numbers by name under `scores`, such as the parts of a verdict, are kept in the
    episode's scores."""


class Environment(Protocol):
    """A world: an endless or fixed set of tasks, and sessions in which they are tried."""

    name: str
    reward_range: tuple[float, float]

    def tasks(self, split: str) -> Sequence[Task]:
        """The tasks of a split (`train`, `dev`, `test`, or a world's own), always the same, in the same order."""
        ...

    def open(self) -> Session:
        """A fresh session, independent of all others."""
        ...

    # An environment may also have these; `etude env check` goes by them.
    #   at_once: int                 sessions that may be open at once, where fewer than 64; at least two, for forks
    #   solve(task, seed)            see Expert
    #   optimal = False              where `solve` need not reach the maximum
    #   secrets(task) -> list[str]   texts that must not reach the agent before it has earned them; where it is absent,
    #                                the check looks for what `task.data` has under names such as `answer`
    # A world may have `speakers`: policies that speak inside it, such as a user's. They are given their decoders. One
    # that has `meet(policy)` is told who will play in it, before it does: another seat may be the same policy's.


class Session(Protocol):
    """One episode's private world."""

    tools: list[dict[str, Any]]
    """JSON-schema function descriptions `{name, description, parameters}`, set by `reset`."""

    async def reset(self, task: Task, seed: int) -> Observation:
        """Set the task up; the same task and seed give the same world."""
        ...

    async def step(self, action: Message | np.ndarray) -> Step:
        """Act: run the message's tool calls, or take its content as the answer.

        A call that the agent got wrong is answered in words that say how to mend it, never raised. EnvironmentFault is
        raised for what is not the agent's fault.
        """
        ...

    async def snapshot(self) -> Any:
        """A value that `restore` turns back into exactly this state, in this session or another of the same world."""
        ...

    async def restore(self, snapshot: Any) -> None: ...

    async def close(self) -> None: ...

    # A session may have `current_reward()`, sync or async: what the episode would earn if it ended now. It is asked
    # where the episode was cut before any step had a reward; without it such an episode has reward 0.


class Expert(Protocol):
    """A world that knows a solution: what its sessions add."""

    def solve(self, task: Task, seed: int) -> Sequence[Message]:
        """Assistant messages that reach the maximum when played in order."""
        ...


# -- policies ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Grammar:
    """What an answer may look like. It ends only where it is complete; `max_tokens` may still cut it."""

    kind: str
    """`json` (a JSON schema), `regex`, `lark` (a grammar as llguidance reads it), or `calls`: whatever it says, the
    calls in it are well-formed calls of the trajectory's tools, in the policy's own notation."""
    text: str = ""

    def __post_init__(self) -> None:
        if self.kind not in (allowed := ("json", "regex", "lark", "calls")):
            raise PolicyError(f"grammar of kind {self.kind!r}; {suggest(self.kind, allowed)}")


@dataclass(frozen=True)
class Sampling:
    """How to choose the next tokens.

    `logit_bias` and `grammar` change the logits, `temperature` scales them, and of what is left only tokens that both
    `min_p` and `top_p` keep are drawn. What is recorded is always the policy's own log-probability at `temperature`,
    without all else, for that is what a learner computes again. A token that a bias or a grammar made more than twice
    as likely, or less than half, was not the policy's choice and is not trained (`Action.own_T`).
    """

    max_tokens: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    """Texts that end an answer. A local model's answer keeps the text, a server's is given without it."""
    min_p: float = 0.0
    """Keep tokens of at least this share of the likeliest one's probability (Nguyen et al. 2024, arXiv:2407.01082)."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    """Added to the logits of token ids; may be given as a dict. `-inf` forbids a token."""
    grammar: Grammar | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.min_p <= 1:
            raise PolicyError(f"min_p={self.min_p} is no share of the largest probability; take one in [0, 1]")
        object.__setattr__(self, "logit_bias", tuple(sorted(dict(self.logit_bias).items())))  # settings must hash


@dataclass(frozen=True)
class Action:
    """What a policy did, with what is needed to train on it later."""

    message: Message
    prompt_ids_T: np.ndarray | None = None
    """int32; tokens that the template put before the sampled ones (the generation prompt)."""
    ids_T: np.ndarray | None = None
    """int32; sampled tokens, the stop token included."""
    logprob_T: np.ndarray | None = None
    """float32, nats, at the sampling temperature."""
    own_T: np.ndarray | None = None
    """bool; False where a grammar or a bias chose rather than the policy, so that it must not be trained. None: all."""
    array: np.ndarray | None = None
    truncated: bool = False
    """Whether the token limit cut it."""
    version: int = 0
    problem: str = ""
    """Why the text could not be read as a message (a malformed call), in words for the agent."""


class Policy(Protocol):
    """observation -> action, with log-probabilities where it has them."""

    name: str
    version: int
    """Grows by one whenever the policy changes."""

    async def act(
        self, trajectory: Trajectory, leaf: int | None, *, sampling: Sampling, seed: int
    ) -> tuple[int, Action]:
        """Act on the dialogue that ends at `leaf`.

        Fills in the tokens of nodes on the path that have none yet. Returns the node below which the action belongs
        (another than `leaf` where the template rewrote history and the tree had to branch) and the action.
        """
        ...


class LanguageModel(Policy, Protocol):
    """A policy whose tokens and probabilities can be read, as training and the loss report need."""

    renderer: Any
    """An `etude.rendering.Renderer`."""

    async def generate(
        self, prompts: Sequence[np.ndarray], *, sampling: Sampling, seeds: Sequence[int]
    ) -> list[Action]:
        """Continue each prompt (int32 ids); one seed each. The action's message holds the decoded text as content."""
        ...

    async def logprobs(self, sequences: Sequence[np.ndarray], starts: Sequence[int]) -> list[np.ndarray]:
        """For each int32 [P], float32 [P - start]: log-probability in nats of ids[start:], each given all before it."""
        ...


# -- agents --------------------------------------------------------------------------------------------------------


class Run(Protocol):
    """What an agent loop may do in its episode; `rollout` provides it and keeps the record."""

    tools: list[dict[str, Any]]
    over: bool
    """The environment is done, or a limit was reached."""

    def observe(self, *messages: Message) -> None:
        """Put messages into the context."""
        ...

    def anew(self) -> None:
        """Begin an empty context. What was said in the one before it stays the episode's, and is trained with it."""
        ...

    async def act(self, **changes: Any) -> Action:
        """Let the policy speak; what it says is appended to the record.

        changes: fields of the run's `Sampling` that differ for this answer, such as `stop=("Observation:",)`.
        """
        ...

    async def step(self, message: Message) -> Step:
        """Take an action in the environment. What it answers is not put into the context: the loop decides how."""
        ...


class Agent(Protocol):
    """A loop around a policy: what it is shown, how its words become actions."""

    async def __call__(self, run: Run, first: Observation) -> None: ...

    # An agent that asks its policy for more than the world's actions may have `script(solution)`: all that a policy
    # says in this loop to play a world's solution, in order.


# -- scores, credit, loss ------------------------------------------------------------------------------------------


class Scorer(Protocol):
    """A finished episode -> a number within `range`; NaN or out of range raises ScoreError.

    It may put further figures into the `scores` of the episode and of its nodes, for credit and scorers after it.
    """

    range: tuple[float, float]

    async def __call__(self, trajectory: Trajectory, episode: Episode) -> float: ...


@runtime_checkable
class Comparer(Protocol):
    """A scorer that needs the whole group: it is asked once per trajectory, after all scorers of single episodes."""

    range: tuple[float, float]

    async def compare(self, trajectory: Trajectory, episodes: Sequence[Episode]) -> Sequence[float]:
        """One score for each of these episodes, those that did not fail."""
        ...


class Credit(Protocol):
    """A scored group -> one weight per episode.

    The name of the first parameter says what a credit takes. One that weighs turns or tokens takes `trajectory`, one
    that compares all episodes of a step takes `trajectories`; both weigh in place and return nothing.
    """

    def __call__(self, score_G: np.ndarray) -> np.ndarray: ...


@dataclass
class Batch:
    """The sampled tokens of one micro-batch that carry weight, flat; N of them.

    `tokens`, `sequences` (episodes) and `groups` (trajectories) count the whole optimiser batch, so that micro-batch
    losses add up to its loss.
    """

    logprob_N: torch.Tensor
    """Of the policy being trained, with gradient."""
    weight_N: torch.Tensor
    old_logprob_N: torch.Tensor
    """As recorded at sampling; equal to `logprob_N` without gradient where none was recorded."""
    sequence_N: torch.Tensor
    """Which path a token belongs to, 0 .. S-1 within this micro-batch; an episode has several paths where a template
    rewrote history."""
    length_S: torch.Tensor
    """Weighted tokens of each path's whole episode, of which other micro-batches may hold a part."""
    tokens: int
    sequences: int
    max_length: int
    """The constant of Dr. GRPO's normalisation: the longest answer the recipe allows."""
    episode_S: torch.Tensor
    """Which episode each path is of, numbered from 0 within this micro-batch."""
    group_S: torch.Tensor
    """Which trajectory each path is of, numbered likewise: the episodes of a group are in one trajectory."""
    groups: int
    reference_logprob_N: torch.Tensor | None = None
    entropy_N: torch.Tensor | None = None
    score_S: torch.Tensor | None = None
    """Score of each path's episode, float64; NaN where it has none."""
    hidden_NC: torch.Tensor | None = None
    """The model's last hidden state before each token, in its own type, with gradient."""
    return_N: torch.Tensor | None = None
    """What a critic should expect before each token, as a credit found; NaN where none did."""


class Objective(Protocol):
    """A batch -> a scalar loss to minimise, and figures to log.

    One that learns something of its own, such as a normalising constant or a head, also has `parameters(width)`, with
    the width of a hidden state: float32 tensors that always come in the same order. The learner moves them with the
    policy's, and keeps them in its checkpoints. One that is a critic too has `expects(hidden_NC)`, float32 [N]; the
    learner then writes `Node.value_T` before credit is given.
    """

    @property
    def needs(self) -> frozenset[str]:
        """Of `reference`, `entropy`, `hidden`: what the learner must compute for it; and `groups`: whether it compares
        the episodes of a trajectory, so that all of them must be in one micro-batch."""
        ...

    def __call__(self, batch: Batch) -> tuple[torch.Tensor, dict[str, float]]: ...


class Weights(Protocol):
    """Which parameters move."""

    def prepare(self, model: torch.nn.Module) -> torch.nn.Module:
        """Wrap or freeze in place; afterwards `requires_grad` says what is trained."""
        ...


class Merge(Protocol):
    """How models combine: one tensor at a time, so that models larger than memory merge."""

    def __call__(self, base: torch.Tensor | None, tensors: Sequence[torch.Tensor], name: str) -> torch.Tensor:
        """The merged tensor, from the base's and each model's tensor of that name; all float32, of one shape.

        Changes none of them in place. What it returns may depend on the name, but not on which tensors came before.
        Raises MergeError where a setting does not fit, or where it needs a base and has none.
        """
        ...
