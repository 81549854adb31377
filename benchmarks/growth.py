"""How the time of one step of online practice grows: with episodes, turns, context and the size of a group.

From 8 episodes of one turn, prompts of about 128 tokens and answers of 16, one quantity is doubled again and again
while the others stay. The exponent is the slope of log time against log quantity: 1 is linear. The last doubling by
itself is given too, for constant costs flatten the slope and would hide a bend at the end. Attention is quadratic in
the context, so that must be a little more than linear; the members of a group share their prompt, so a group is less.
"""

import asyncio
import math
import statistics
from collections.abc import Sequence

import bench
import numpy as np

from etude.evaluation import charts
from etude.objectives import clipped
from etude.protocols import Sampling
from etude.rollout.collect import collect
from etude.training.learner import Learner

BASE = {"tasks": 8, "group": 1, "turns": 1, "words": 98, "tokens": 16}  # the chat template adds 30 tokens
GROWTH = {
    "episodes": {n: {"tasks": n} for n in (8, 16, 32, 64)},
    "turns": {n: {"turns": n, "words": 18} for n in (1, 2, 4, 8)},
    "context": {n: {"words": n - 30} for n in (128, 256, 512, 1024)},
    "group": {n: {"tasks": 4, "group": n} for n in (2, 4, 8, 16)},
}
ROUNDS = 1
if bench.QUICK:
    BASE |= {"tasks": 2, "tokens": 4}
    GROWTH = {name: dict(list(sizes.items())[:2]) for name, sizes in GROWTH.items()}
STYLE = "text{font:12px sans-serif;fill:#777}line{stroke:#bbb}polyline{fill:none;stroke-width:2}"
COLOURS = {"episodes": "#3b6fb6", "turns": "#c2571a", "context": "#3a8f5c", "group": "#8e5bb0"}


def slope(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Exponent of the power of `sizes` that fits best."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def chart(seconds: dict[str, list[float]]) -> str:
    """Time against quantity, both in multiples of the first, both in doublings; linear growth is the diagonal."""
    side, left, bottom = 260.0, 70.0, 40.0
    doublings = max(len(times) for times in seconds.values()) - 1
    at = lambda x, y: (left + side * x / doublings, 20 + side * (1 - y / doublings))  # noqa: E731
    body = [charts.line(*at(0, 0), *at(doublings, doublings), "linear")]
    for n in range(doublings + 1):
        body.append(charts.text(at(n, 0)[0], side + bottom, f"×{2**n}", anchor="middle"))
        body.append(charts.text(left - 8, at(0, n)[1] + 4, f"×{2**n}", anchor="end"))
    for row, (name, times) in enumerate(seconds.items()):
        body.append(charts.polyline([at(n, math.log2(max(t / times[0], 1))) for n, t in enumerate(times)], name))
        body.append(charts.text(left + 10, 34 + 16 * row, name, f"key {name}"))
    told = "; ".join(f"{name}: from {times[0]:.1f} to {times[-1]:.1f} s" for name, times in seconds.items())
    drawn = charts.svg(left + side + 20, side + bottom + 20, body, f"Time against quantity. {told}")
    colours = "".join(f"polyline.{n}{{stroke:{c}}}text.{n}{{fill:{c}}}" for n, c in COLOURS.items())
    return (
        str(drawn)
        .replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ')
        .replace("</svg>", f"<style>{STYLE}{colours}</style></svg>")
    )


def main() -> None:
    policy = bench.never_stops(bench.load_policy(), slots=64, context=1280)
    learner = Learner(policy, clipped(), lr=1e-7)

    def step(tasks: int, group: int, turns: int, words: int, tokens: int) -> None:
        world, agent = bench.Chat(words, turns), bench.talk(lambda _: [tokens] * turns)
        chosen = world.tasks("train", tasks)
        made = asyncio.run(collect(policy, chosen, agent=agent, group=group, sampling=Sampling()))
        assert all(e.failure is None and e.tokens_sampled == turns * tokens for t in made for e in t.episodes)
        for trajectory in made:
            trajectory.weigh(np.ones(group))
        learner.step(made)

    figures, middles = [], {}
    for name, sizes in GROWTH.items():
        sides = {f"{n}": bench.clock(lambda changes=changes: step(**BASE | changes)) for n, changes in sizes.items()}
        seconds = bench.interleave(sides, ROUNDS)
        rounds = [list(times) for times in zip(*seconds.values(), strict=True)]
        span = f"{min(sizes)} to {max(sizes)}"
        figures.append(bench.figure(f"{name}, {span}: exponent", [slope(list(sizes), times) for times in rounds], ""))
        last = [math.log2(times[-1] / times[-2]) for times in rounds]
        figures.append(bench.figure(f"{name}, {span}: exponent of the last doubling", last, "", most=1.1))
        middles[name] = [statistics.median(times) for times in seconds.values()]
    bench.report(figures, chart=chart(middles))


if __name__ == "__main__":
    main()
