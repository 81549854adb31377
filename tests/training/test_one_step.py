"""One-step decisions are the case T = 1: the algorithms for dialogues give what a bandit's textbook form gives.

The bandit's side knows no trajectories, credits or objectives: log-probabilities of single actions, and the formula.
"""

import numpy as np
import pytest
import torch

from etude.core.parts import build
from etude.training.learner import Learner
from etude.training.online import give
from etude.trajectory import Episode, Message, Trajectory

from .conftest import Gradients

PROMPTS, ARMS, REWARDS = (
    [[5, 9, 7, 3], [8, 4, 4]],
    [[11, 12, 13, 11], [14, 15, 11, 13]],
    [[1, 0, 0.5, 0.25], [0, 1, 1, 0]],
)
OLD = -2.0


def played() -> list[Trajectory]:
    """Groups of one-turn, one-token episodes: two states, four pulls of each."""
    made = []
    for n, (prompt, arms, rewards) in enumerate(zip(PROMPTS, ARMS, REWARDS, strict=True)):
        trajectory = Trajectory(f"t{n}", "bandit")
        known = {"ids_T": np.array(prompt, np.int32), "sampled_T": np.zeros(len(prompt), bool)}
        root = trajectory.add(Message("user", "pull"), None, **known)
        for i, (arm, reward) in enumerate(zip(arms, rewards, strict=True)):
            sampled = {"ids_T": np.array([arm], np.int32), "sampled_T": np.ones(1, bool)}
            logprob_T = np.full(1, OLD, np.float32)
            leaf = trajectory.add(
                Message("assistant", str(i)), root, version=0, reward=reward, logprob_T=logprob_T, **sampled
            )
            trajectory.episodes.append(Episode(leaf, reward=reward, score=float(reward)))
        made.append(trajectory)
    return made


def pulls(model) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of each pull and the state's features before it: [S, G] and [S, G, C]."""
    logprobs, states = [], []
    for prompt, arms in zip(PROMPTS, ARMS, strict=True):
        out = model(torch.tensor([prompt]), output_hidden_states=True)
        logprobs.append(out.logits[0, -1].log_softmax(-1)[arms])
        states.append(out.hidden_states[-1][0, -1].expand(len(arms), -1))
    return torch.stack(logprobs), torch.stack(states)


R = torch.tensor(REWARDS)


def surrogate(logprob, advantage, low=0.2, high=0.2):
    ratio = (logprob - OLD).exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage).mean()


def leave_one_out(r):
    return r - (r.sum(1, keepdim=True) - r) / (r.shape[1] - 1)


def whitened(a):
    return (a - a.mean()) / a.std(correction=0)


def normed(r):
    return (r - r.mean(1, keepdim=True)) / (r.std(1, keepdim=True) + 1e-4)


def dpo(logprob, beta=0.1):
    """The best arms of a state against its worst; the policy is its own reference at the first step."""
    losses = []
    for s in range(len(R)):
        best, worst = (R[s] == R[s].max()).nonzero()[:, 0], (R[s] == R[s].min()).nonzero()[:, 0]
        margin = beta * (logprob[s] - logprob[s].detach())
        pairs = [-torch.nn.functional.logsigmoid(margin[b] - margin[w]) for b in best for w in worst]
        losses.append(torch.stack(pairs).mean())
    return torch.stack(losses).mean()


def with_critic(logprob, state, head):
    expected = state @ head[:-1] + head[-1]
    surprise = R - expected.detach()
    return surrogate(logprob, whitened(surprise)) + 0.5 * ((expected - R) ** 2 / 2).mean()


CASES = {
    "reinforce": ("rloo", ("clipped", {}), lambda logprob, *_: surrogate(logprob, leave_one_out(R))),
    "grpo": ("group", ("clipped", {}), lambda logprob, *_: surrogate(logprob, normed(R))),
    "dapo": (
        "group",
        ("clipped", {"normalise": "token", "high": 0.28}),
        lambda logprob, *_: surrogate(logprob, normed(R), high=0.28),
    ),
    "gspo": (
        "group",
        ("clipped", {"importance": "sequence", "normalise": "sequence"}),
        lambda logprob, *_: surrogate(logprob, normed(R)),
    ),
    "ppo": ("gae", ("clipped", {"value": 0.5, "head_rate": 1.0}), with_critic),
    "dpo": ("preference", ("preference", {"loss": "sigmoid"}), lambda logprob, *_: dpo(logprob)),
}


@pytest.mark.exact(125)
@pytest.mark.parametrize("algorithm", CASES)
def test_the_dialogue_algorithm_is_the_bandit_algorithm(policy, algorithm):
    credit, (name, settings), formula = CASES[algorithm]
    learner = Learner(policy, build(f"objectives/{name}", **settings))
    head = None
    if learner.own:
        (head,) = learner.own
        with torch.no_grad():
            head.copy_(0.1 * torch.randn(len(head), generator=torch.Generator().manual_seed(0)))
    trajectories = played()
    learner.evaluate(trajectories)
    give(build(f"credit/{credit}"), trajectories)
    got, figures = Gradients(learner).of(trajectories)
    policy.model.zero_grad()
    loss = formula(*pulls(policy.model), head)
    loss.backward()
    expected = torch.cat(
        [torch.zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in policy.model.parameters()]
    )
    assert figures["loss"] == pytest.approx(loss.item(), rel=1e-5, abs=1e-6)
    assert expected.norm() > 1e-3
    assert ((got - expected).norm() / expected.norm()).item() < 1e-5
