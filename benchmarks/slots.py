"""How full the decoder's slots stay where answers differ in length, and how much of a slow environment is hidden.

Full: 256 episodes, 32 at once on 32 slots, answers of log-normal length (median 32 tokens): the tokens sampled, as a
share of those that the decoding steps had room for. A count, not a time. First while episodes wait to begin; then to
the end, where the longest answers run on and nothing is left to fill up with.

Hidden: 64 episodes of 4 turns, 32 at once on 16 slots, in an environment that takes 200 ms for each answer. A loop
that waits for all episodes after each turn would be longer by 4 turns × 200 ms × 64 / 32; what etude does not add of
that is hidden. Each step of the tiny model takes 50 ms longer than it needs, so that the figure is about scheduling
alone. The same again with 32 slots, where every episode that waits leaves its slot empty.
"""

import asyncio
import time
import zlib

import bench
import numpy as np

from etude.rollout.collect import collect

AT_ONCE = 8 if bench.QUICK else 32
EPISODES, WAITING, TURNS, ROUNDS = (32, 16, 2, 1) if bench.QUICK else (256, 64, 4, 3)
LATENCY, STEP = (0.02, 0.005) if bench.QUICK else (0.2, 0.05)  # seconds


def lengths(turns: int, median: float):
    """Log-normal answer lengths that follow from the prompt."""

    def of(prompt: str) -> list[int]:
        rng = np.random.default_rng(zlib.crc32(prompt.encode()))
        return np.clip(rng.lognormal(np.log(median), 0.7, turns), 2, 160).astype(int).tolist()

    return of


def play(policy, episodes: int, world: bench.Chat, median: float, on_episode=lambda: None) -> None:
    tasks, agent = world.tasks("train", episodes), bench.talk(lengths(world.turns, median))
    made = asyncio.run(collect(policy, tasks, agent=agent, concurrency=AT_ONCE, on_episode=on_episode))
    assert all(e.turns == world.turns and e.failure is None for t in made for e in t.episodes)


def full(policy) -> tuple[float, float]:
    """Per cent: while episodes wait to begin, and to the end."""
    bench.never_stops(policy, slots=AT_ONCE, active=AT_ONCE, context=512)
    counters, shares = policy.generator.counters, []  # after each episode that ends
    on_episode = lambda: shares.append(100 * counters.sampled / (counters.steps * AT_ONCE))  # noqa: E731
    play(policy, EPISODES, bench.Chat(words=12), 32, on_episode)
    return shares[-AT_ONCE - 1], shares[-1]


def hidden(policy, slots: int) -> list[float]:
    """Per cent, by round."""
    bench.never_stops(policy, slots=2 * AT_ONCE, active=slots, context=512)

    def side(latency: float):
        return bench.clock(lambda: play(policy, WAITING, bench.Chat(12, TURNS, latency), median=8))

    slow = policy.model.get_decoder().register_forward_pre_hook(lambda *_: time.sleep(STEP))
    seconds = bench.interleave({"slow": side(LATENCY), "prompt": side(0.0)}, ROUNDS)
    slow.remove()
    together = TURNS * LATENCY * WAITING / AT_ONCE
    return [100 * (1 - (a - b) / together) for a, b in zip(seconds["slow"], seconds["prompt"], strict=True)]


def main() -> None:
    policy, half = bench.load_tiny(), AT_ONCE // 2
    waiting, all_ended = full(policy)
    figures = [
        bench.figure("slots full while episodes wait to begin", [waiting], "%", least=85),
        bench.figure("slots full to the end", [all_ended], "%"),
        bench.figure(f"latency hidden, {AT_ONCE} episodes on {half} slots", hidden(policy, half), "%", least=80),
        bench.figure(f"latency hidden, {AT_ONCE} episodes on {AT_ONCE} slots", hidden(policy, AT_ONCE), "%"),
    ]
    bench.report(figures)


if __name__ == "__main__":
    main()
