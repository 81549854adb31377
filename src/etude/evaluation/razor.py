"""How much a policy forgets, read from how far it moved on the new task alone.

Shenfeld et al. 2025, "RL's Razor: Why Online Reinforcement Learning Forgets Less", arXiv:2509.04259. The law:
    forgetting F = prior accuracy before - after   is a (quadratic) function of   D = E_x~new KL(pi_0(.|x) || pi(.|x))
whatever the method; and policy gradient on 0/1 rewards stays near the least D, because it alternates
    rejection     q(a) = pi_0(a) 1[a is right] / Z      the I-projection of pi_0 onto the policies that are always right
    imitation     pi = argmin KL(q || pi)               the M-projection back onto what the network can express.

`study` is the paper's controlled experiment, ParityMNIST: a small network knows a little of the parity of digits (any
digit of the right parity is right) and a second data set; then it practises parity by RL, or by SFT on labels chosen in
three ways.
Departures: drawn glyphs with jitter and noise instead of MNIST and FashionMNIST; REINFORCE with the batch's mean as the
baseline instead of GRPO; of the algorithm grid, on-policy RL and off-policy SFT.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from etude.core.errors import EtudeError
from etude.evaluation.statistics import mean_interval
from etude.protocols import LanguageModel
from etude.trajectory import Trajectory, episodes

if TYPE_CHECKING:
    import torch

# -- the law ----------------------------------------------------------------------------------------------------------


def kl(p_NA: np.ndarray, q_NA: np.ndarray) -> np.ndarray:
    """KL(p || q) of each row, float [N], nats; infinite where q excludes what p allows.

    p_NA, q_NA: probabilities, float [N, A].
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        term_NA = np.where(p_NA > 0, p_NA * (np.log(p_NA) - np.log(q_NA)), 0.0)
    return term_NA.sum(-1)


def i_projection(prior_NA: np.ndarray, right_NA: np.ndarray) -> np.ndarray:
    """The policy nearest to the prior, in KL(policy || prior), among those that are always right: float [N, A].

    prior_NA: probabilities, float [N, A]. right_NA: bool [N, A]; the rewarded actions.
    It is the prior, restricted to what is right and normalised; what it costs is -log of the prior's accuracy.
    Raises EtudeError for a row in which the prior gives nothing to any right action.
    """
    kept_NA = np.where(right_NA, prior_NA, 0.0)
    mass_N = kept_NA.sum(-1)
    if not (mass_N > 0).all():
        n = int(np.flatnonzero(mass_N <= 0)[0])
        raise EtudeError(f"razor: row {n} has no right action with probability above 0, so nothing to project onto")
    return kept_NA / mass_N[:, None]


def oracle_labels(prior_NA: np.ndarray, right_NA: np.ndarray) -> np.ndarray:
    """One right label per row, int [N]: the one whose policy, all on that label, is nearest to the prior.

    KL(one-hot a || prior) = -log prior(a), so it is the right action that the prior likes best.
    """
    return np.where(right_NA, prior_NA, -1.0).argmax(-1)


@dataclass(frozen=True)
class Fit:
    """F as a polynomial of D."""

    coefficients: list[float]
    """Highest power first."""
    r_squared: float
    """Share of the variance of F that the fit explains."""


def fit(divergence_N: Sequence[float], forgetting_N: Sequence[float], degree: int = 2) -> Fit:
    """Least squares of forgetting on divergence. Raises EtudeError for fewer than degree + 2 points."""
    x_N, y_N = np.asarray(divergence_N, np.float64), np.asarray(forgetting_N, np.float64)
    if len(x_N) < degree + 2:
        raise EtudeError(f"razor: {len(x_N)} points for a polynomial of degree {degree}; give at least {degree + 2}")
    coefficients = np.polyfit(x_N, y_N, degree)
    residual = float(((y_N - np.polyval(coefficients, x_N)) ** 2).sum())
    spread = float(((y_N - y_N.mean()) ** 2).sum())
    return Fit([float(c) for c in coefficients], 1 - residual / spread if spread else math.nan)


async def divergence(policy: LanguageModel, trajectories: Sequence[Trajectory]) -> dict[str, tuple[float, int]]:
    """What D is made of: trajectory -> sum over its sampled tokens of log pi_0 - log pi in nats, and their number.

    trajectories: sampled at temperature 1 by the policy before it changed, log-probabilities recorded.
    """
    found: dict[str, tuple[float, int]] = {}
    paths = [(trajectory, trajectory.path(episode.leaf)) for trajectory, episode in episodes(trajectories)]
    sequences = [trajectory.ids_P(path[-1]) for trajectory, path in paths]
    now = await policy.logprobs(sequences, [1] * len(sequences))
    for (trajectory, path), now_T in zip(paths, now, strict=True):
        nodes = [trajectory.nodes[n] for n in path]
        recorded = [
            np.full(len(n.ids_T), np.nan) if n.logprob_T is None else n.logprob_T for n in nodes if n.ids_T is not None
        ]
        gap_P = np.concatenate([*recorded, np.zeros(0)])[1:] - now_T
        gap_N = gap_P[~np.isnan(gap_P)]
        total, count = found.get(trajectory.id, (0.0, 0))
        found[trajectory.id] = (total + float(gap_N.sum()), count + len(gap_N))
    return found


async def forward_kl(policy: LanguageModel, trajectories: Sequence[Trajectory]) -> float:
    """D of a language model, nats per token: an unbiased estimate, given each prefix. NaN without sampled tokens."""
    total, count = np.sum([*(await divergence(policy, trajectories)).values(), (0.0, 0)], axis=0)
    return float(total / count) if count else math.nan


# -- the controlled experiment ----------------------------------------------------------------------------------------

SIDE = 8
GLYPHS = 10
METHODS = ("rl", "sft one label", "sft two labels", "sft oracle")
RATES = (3e-4, 1e-3, 3e-3)
STEPS, BATCH = 200, 128
EVERY = 25


def glyphs(seed: int) -> np.ndarray:
    """Ten random drawings of strokes, float32 [10, 8, 8]; a data set is noisy copies of its glyphs."""
    random = np.random.default_rng(seed)
    drawn = np.zeros((GLYPHS, SIDE, SIDE), np.float32)
    for glyph in drawn:
        y, x = random.integers(2, SIDE - 2, 2)
        for _ in range(5):  # five strokes, each three cells from where the last one ended
            dy, dx = random.choice([(0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (-1, 1)])
            for _ in range(3):
                y, x = int(np.clip(y + dy, 1, SIDE - 2)), int(np.clip(x + dx, 1, SIDE - 2))
                glyph[y, x] = 1.0
    return drawn


def images(drawn: np.ndarray, count: int, random: np.random.Generator, noise: float = 0.25) -> tuple[Any, Any]:
    """float32 [count, 64] images, each moved by up to a cell and covered with noise, and their int64 [count] glyphs."""
    label_N = random.integers(0, GLYPHS, count)
    shift_N2 = random.integers(-1, 2, (count, 2))
    moved = [np.roll(drawn[y], tuple(shift), (0, 1)) for y, shift in zip(label_N, shift_N2, strict=True)]
    noisy = np.stack(moved) + noise * random.standard_normal((count, SIDE, SIDE))
    return noisy.reshape(count, -1).astype(np.float32), label_N


def right_actions(digit_N: np.ndarray) -> np.ndarray:
    """bool [N, 10]; the digits of the same parity."""
    return digit_N[:, None] % 2 == np.arange(GLYPHS)[None, :] % 2


@dataclass(frozen=True)
class Point:
    """One moment of one run."""

    method: str
    rate: float
    step: int
    accuracy: float
    """Of parity, on new images."""
    divergence: float
    """D, nats per image."""
    forgetting: float
    """F, share of the second data set."""
    moved: float
    """Euclidean norm of the change of all weights."""


class Toy:
    """The two data sets of one seed and the network that knows a little of both."""

    def __init__(self, seed: int):
        import torch

        self.torch, self.random = torch, np.random.default_rng([seed, 1])
        self.digits, self.garments = glyphs(2 * seed), glyphs(2 * seed + 1)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.prior = torch.nn.Sequential(
                torch.nn.Linear(SIDE * SIDE, 64), torch.nn.ReLU(), torch.nn.Linear(64, 64), torch.nn.ReLU(),
                torch.nn.Linear(64, GLYPHS),
            )  # fmt: skip
        self._pretrain()
        x, y = images(self.digits, 2000, self.random)
        self.test_x, self.test_right = torch.from_numpy(x), right_actions(y)
        x, y = images(self.garments, 2000, self.random)
        self.prior_x, self.prior_y = torch.from_numpy(x), torch.from_numpy(y)
        self.before = self.probabilities(self.prior)
        self.prior_accuracy = self.garment_accuracy(self.prior)

    def _pretrain(self, steps: int = 300) -> None:
        """Both tasks at once; of parity only 200 images, labelled with any digit of the right parity."""
        torch, optimiser = self.torch, self.torch.optim.Adam(self.prior.parameters(), 3e-3)
        few_x, few_y = images(self.digits, 200, self.random)
        for _ in range(steps):
            garment_x, garment_y = images(self.garments, BATCH, self.random)
            label = (few_y % 2) + 2 * self.random.integers(0, GLYPHS // 2, len(few_y))
            x = torch.from_numpy(np.concatenate([few_x, garment_x]))
            loss = torch.nn.functional.cross_entropy(
                self.prior(x), torch.from_numpy(np.concatenate([label, garment_y]))
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

    def probabilities(self, model: "torch.nn.Module") -> np.ndarray:
        """float64 [N, 10] on the held-out images of the new task."""
        with self.torch.no_grad():
            return model(self.test_x).double().softmax(-1).numpy()

    def garment_accuracy(self, model: "torch.nn.Module") -> float:
        with self.torch.no_grad():
            return (model(self.prior_x).argmax(-1) == self.prior_y).double().mean().item()

    def practise(self, method: str, rate: float) -> list[Point]:
        """Points every few steps of one method at one learning rate."""
        torch, model = self.torch, copy.deepcopy(self.prior)
        optimiser = torch.optim.Adam(model.parameters(), rate)
        random = np.random.default_rng([METHODS.index(method), 7])
        generator = torch.Generator().manual_seed(7)
        points = []
        for step in range(1, STEPS + 1):
            x, y = images(self.digits, BATCH, random)
            right, batch = right_actions(y), torch.from_numpy(x)
            logprob = model(batch).log_softmax(-1)
            if method == "rl":
                action = torch.multinomial(logprob.detach().exp(), 1, generator=generator)
                reward = torch.from_numpy(right).gather(1, action).float()
                weight = reward - reward.mean()
            else:
                action, weight = torch.from_numpy(self._labels(method, x, y, right, random))[:, None], 1.0
            loss = -(weight * logprob.gather(1, action)).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            if step % EVERY == 0:
                after = self.probabilities(model)
                pairs = zip(model.parameters(), self.prior.parameters(), strict=True)
                point = Point(
                    method, rate, step,
                    accuracy=float((after * self.test_right).sum(-1).mean()),
                    divergence=float(kl(self.before, after).mean()),
                    forgetting=self.prior_accuracy - self.garment_accuracy(model),
                    moved=math.sqrt(sum((p - q).square().sum().item() for p, q in pairs)),
                )  # fmt: skip
                points.append(point)
        return points

    def _labels(self, method: str, x: np.ndarray, y: np.ndarray, right: np.ndarray, random: np.random.Generator) -> Any:
        if method == "sft one label":  # every even digit is called 0, every odd one 1
            return y % 2
        if method == "sft two labels":  # 0 or 4, 1 or 5
            return y % 2 + 4 * random.integers(0, 2, len(y))
        with self.torch.no_grad():
            prior = self.prior(self.torch.from_numpy(x)).double().softmax(-1).numpy()
        nearest = i_projection(prior, right)  # the whole distribution of right labels that is nearest
        return (nearest.cumsum(-1) < random.random((len(y), 1))).sum(-1).clip(0, GLYPHS - 1)


def study(seeds: Sequence[int]) -> dict[str, Any]:
    """What the law and the razor say, on the toy of each seed.

    Methods are compared at the accuracy that all of them reach at some rate and step, each by its point of least
    divergence there. Returns `figures`, `arms` and the names of the figures that `decide`, as `etude evidence` reads.
    """
    kept: dict[str, list[Point]] = {method: [] for method in METHODS}
    by_kl, by_norm = [], []
    for seed in seeds:
        toy = Toy(seed)
        points = {method: [p for rate in RATES for p in toy.practise(method, rate)] for method in METHODS}
        every = [p for ps in points.values() for p in ps]
        by_kl.append(fit([p.divergence for p in every], [p.forgetting for p in every]).r_squared)
        by_norm.append(fit([p.moved for p in every], [p.forgetting for p in every]).r_squared)
        reached = min(max(p.accuracy for p in ps) for ps in points.values())
        for method, ps in points.items():
            kept[method].append(min((p for p in ps if p.accuracy >= reached), key=lambda p: p.divergence))
    figures = {"R2 of forgetting on KL": _figure(by_kl, 0)}
    figures["R2 on KL - R2 on weight change"] = _figure([a - b for a, b in zip(by_kl, by_norm, strict=True)], 1)
    for method in METHODS[1:]:
        for quantity in ("divergence", "forgetting"):
            excess = [
                getattr(p, quantity) - getattr(rl, quantity) for p, rl in zip(kept[method], kept["rl"], strict=True)
            ]
            figures[f"{quantity}, {method} - rl"] = _figure(excess, -1 if method == "sft oracle" else 1)
    arms = {
        method: {key: [getattr(p, key) for p in ps] for key in ("accuracy", "divergence", "forgetting")}
        for method, ps in kept.items()
    }
    decide = [name for name in figures if name.endswith(("label - rl", "labels - rl"))]
    return {"figures": figures, "arms": arms, "decide": decide}


def _figure(value_S: Sequence[float], better: int) -> dict[str, Any]:
    interval = mean_interval(np.array(value_S))
    return {"value": interval.mean, "interval": [interval.low, interval.high], "better": better}
