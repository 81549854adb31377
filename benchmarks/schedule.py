"""Where a run waits: a simulation of samplers, environments and the learner, by figures that were measured elsewhere.

    python benchmarks/schedule.py                                   # one machine with two cores, SmolLM2-135M
    python benchmarks/schedule.py --machine h100 --billions 7.6 --kv-bytes 57344 --samplers 4 --learners 4

A step is `tasks` x `group` episodes. An episode of step k may begin when version k - ahead is there, and holds a slot
of one sampler until it ends; `ahead` 0 is the synchronous loop. It alternates `turns` answers and waits for its
environment; its tokens and the waits are log-normal. The b slots of a sampler that decode share it: each gets a token
every `token + slot * b` seconds. The learner takes the steps in their order, each when all of its episodes are there,
and `publish` seconds later samplers have the new version.

Printed for each `ahead`: episodes per second; the share of time in which the learner does not train and in which a
sampler decodes nothing; how full decoding samplers are; seconds that an episode waits for a slot, and for the learner
once it is done; and how many versions an episode is behind when it is trained on (share of each).

Defaults for `cpu` are measured (SmolLM2-135M in bfloat16 on two cores, tokens/s: decoding 31.6 alone and 340 by 32
slots, which makes 0.0296 + 0.00202 b; reading 1157, and an episode reads 150 for its 64; training 282). One pair of
cores does both there, so that neither side's idle time is lost. Those for `h100` are assumptions: of the published
peaks, 3.35 TB/s and 989 TFLOP/s (bfloat16, dense), decoding gets 60% of the first and all else 40% of the second.
Reading prompts is a part of `slot`: 2 FLOPs per parameter and token.
"""

import argparse
import heapq
import math
import random
from collections import Counter, deque
from dataclasses import dataclass, field
from itertools import count

BANDWIDTH, FLOPS = 0.6 * 3.35e12, 0.4 * 989e12  # of one H100, as assumed above
MACHINES = {
    "cpu": {"slots": 32, "token": 0.0296, "slot": 0.00404, "train": 282.0, "tasks": 8, "group": 4}
    | {"tokens": 64.0, "prompt": 300.0, "turns": 3, "wait": 0.01, "publish": 0.0},
    "h100": {"slots": 128, "tasks": 128, "group": 8, "tokens": 2000.0, "prompt": 2000.0, "turns": 10, "wait": 2.0},
}


@dataclass
class Setting:
    """What is simulated; seconds and tokens."""

    samplers: int = 1
    slots: int = 32
    """Episodes that a sampler holds."""
    token: float = 0.0
    """Seconds of a decoding step without any slot: reading the weights."""
    slot: float = 0.0
    """Further seconds for each slot that decodes."""
    train: float = 1.0
    """Tokens that the learner trains in a second."""
    tasks: int = 8
    group: int = 4
    tokens: float = 100.0
    """Mean of the tokens that an episode samples."""
    prompt: float = 0.0
    """Tokens of an episode that the learner computes beside those."""
    turns: int = 1
    wait: float = 0.0
    """Mean seconds that the environment takes for a turn."""
    spread: float = 0.0
    """Standard deviation of an episode's tokens and of a wait, as a share of the mean."""
    publish: float = 0.0
    ahead: int = 0
    steps: int = 20
    seed: int = 0


@dataclass
class Episode:
    step: int
    answer: float
    """Tokens of each turn."""
    waits: list[float]
    began: float = 0.0
    ended: float = 0.0
    version: int = 0


@dataclass
class Sampler:
    """The answers being decoded advance alike: `position` counts tokens since the start, an answer ends at its own."""

    held: int = 0
    position: float = 0.0
    at: float = 0.0
    decoding: list[tuple[float, int, Episode]] = field(default_factory=list)
    change: int = 0
    busy: float = 0.0
    slot_seconds: float = 0.0


def lognormal(rng: random.Random, mean: float, spread: float) -> float:
    sigma2 = math.log(1 + spread**2)
    return mean * math.exp(rng.gauss(-sigma2 / 2, math.sqrt(sigma2)))


def simulate(s: Setting) -> dict[str, float | Counter[int]]:
    """Play and train `steps` steps. The figures that the module describes, with `seconds` of the whole."""
    rng, number = random.Random(s.seed), count()
    samplers = [Sampler() for _ in range(s.samplers)]
    events: list[tuple[float, int, str, tuple]] = []
    queue: deque[tuple[float, Episode]] = deque()
    done: dict[int, list[Episode]] = {k: [] for k in range(s.steps)}
    now, version, begun, trained, training = 0.0, 0, 0, 0, False
    trained_seconds, slot_waits, learner_waits, behind = 0.0, 0.0, 0.0, Counter[int]()

    def at(time: float, what: str, *of: object) -> None:
        heapq.heappush(events, (time, next(number), what, of))

    def advance(sampler: Sampler) -> None:
        b = len(sampler.decoding)
        if b:
            sampler.position += (now - sampler.at) / (s.token + s.slot * b)
            sampler.busy += now - sampler.at
            sampler.slot_seconds += b * (now - sampler.at)
        sampler.at = now

    def foresee(sampler: Sampler) -> None:
        sampler.change += 1  # what was foreseen before holds no longer
        if sampler.decoding:
            left = max(0.0, sampler.decoding[0][0] - sampler.position)
            at(now + left * (s.token + s.slot * len(sampler.decoding)), "answered", sampler, sampler.change)

    def decode(sampler: Sampler, episode: Episode) -> None:
        advance(sampler)
        heapq.heappush(sampler.decoding, (sampler.position + episode.answer, next(number), episode))
        foresee(sampler)

    while trained < s.steps:
        while begun < s.steps and begun <= version + s.ahead:
            for _ in range(s.tasks * s.group):
                tokens = lognormal(rng, s.tokens, s.spread)
                waits = [lognormal(rng, s.wait, s.spread) for _ in range(s.turns)]
                queue.append((now, Episode(begun, tokens / s.turns, waits)))
            begun += 1
        while queue and (free := min(samplers, key=lambda one: one.held)).held < s.slots:
            asked, episode = queue.popleft()
            slot_waits += now - asked
            episode.began, episode.version = now, version
            free.held += 1
            decode(free, episode)
        if not training and trained < begun and len(done[trained]) == s.tasks * s.group:
            training = True
            tokens = sum(e.answer * s.turns + s.prompt for e in done[trained])
            learner_waits += sum(now - e.ended for e in done[trained])
            behind.update(trained - e.version for e in done[trained])
            trained_seconds += tokens / s.train
            at(now + tokens / s.train, "trained")
        now, _, what, of = heapq.heappop(events)
        if what == "answered" and of[1] == of[0].change:
            sampler = of[0]
            advance(sampler)
            _, _, episode = heapq.heappop(sampler.decoding)
            foresee(sampler)
            at(now + episode.waits.pop(), "stepped", sampler, episode)
        elif what == "stepped":
            sampler, episode = of
            if episode.waits:
                decode(sampler, episode)
            else:
                sampler.held -= 1
                episode.ended = now
                done[episode.step].append(episode)
        elif what == "trained":
            trained, training = trained + 1, False
            at(now + s.publish, "published")
        elif what == "published":
            version += 1
    episodes = s.steps * s.tasks * s.group
    busy = sum(sampler.busy for sampler in samplers)
    return {
        "seconds": now,
        "episodes/s": episodes / now,
        "learner idle": 1 - trained_seconds / now,
        "samplers idle": 1 - busy / (now * s.samplers),
        "full": sum(sampler.slot_seconds for sampler in samplers) / (busy * s.slots),
        "wait for slot": slot_waits / episodes,
        "wait for learner": learner_waits / episodes,
        "behind": Counter({k: n / episodes for k, n in sorted(behind.items())}),
    }


def main() -> None:
    text, _, more = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=text, epilog=more, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--machine", choices=MACHINES, default="cpu")
    parser.add_argument("--billions", type=float, default=7.6, help="parameters, for h100")
    parser.add_argument("--kv-bytes", type=float, default=57344, help="keys and values of a token, for h100")
    parser.add_argument("--learners", type=int, default=1, help="GPUs that train, for h100")
    parser.add_argument("--gpus", type=int, default=1, help="that hold one copy of the model to sample, for h100")
    for name, default in vars(Setting()).items():
        if name != "ahead":
            parser.add_argument(f"--{name}", type=type(default))
    parser.add_argument("--ahead", type=int, nargs="+", default=[0, 1, 2])
    given = vars(parser.parse_args())
    setting = {"spread": 0.8} | MACHINES[given["machine"]]
    if given["machine"] == "h100":
        size = given["billions"] * 1e9
        tokens, prompt = (given[key] or setting[key] for key in ("tokens", "prompt"))
        attended = given["kv_bytes"] * (prompt + tokens) / 2  # on average, an episode is half done
        read = 2 * size * prompt / tokens / FLOPS
        setting["token"], setting["slot"] = 2 * size / BANDWIDTH / given["gpus"], attended / BANDWIDTH / given["gpus"]
        setting["slot"] += read / given["gpus"] + 2 * size / FLOPS / given["gpus"]
        setting["train"] = FLOPS * given["learners"] / (6 * size)
        setting["publish"] = 2 * size / 25e9  # over a network of 200 Gbit/s, each machine once
    setting |= {k: v for k, v in given.items() if k in vars(Setting()) and k != "ahead" and v is not None}
    print(", ".join(f"{key} {value:.4g}" for key, value in setting.items()))
    print("| ahead | episodes/s | learner idle | samplers idle | full | wait for slot | wait for learner | behind |")
    print("|---|---|---|---|---|---|---|---|")
    for ahead in given["ahead"]:
        f = simulate(Setting(**setting, ahead=ahead))
        shares = [f"{f[key]:.0%}" for key in ("learner idle", "samplers idle", "full")]
        waits = [f"{f[key]:.3g} s" for key in ("wait for slot", "wait for learner")]
        behind = ", ".join(f"{k}: {share:.0%}" for k, share in f["behind"].items())
        print("| " + " | ".join([str(ahead), f"{f['episodes/s']:.3g}", *shares, *waits, behind]) + " |")


if __name__ == "__main__":
    main()
