"""Supervised training of all parameters on chats of 50 to 600 tokens: etude's offline learner against TRL's SFTTrainer.

The lengths are log-normal (median 180); a third of a chat is the prompt, and only the answer is trained, on both
sides, with 8 chats a step. TRL is measured as it comes (bfloat16 autocast, gradient checkpointing), and at its best:
without checkpointing, with chats of like length together or packed, whichever is faster. Both train float32 masters.
Sides are processes that take turns; each trains on one batch to warm up, then on all chats once.
"""

import argparse
import contextlib
import json
import sys
import tempfile

import bench
import numpy as np

BATCH = 8
SORTED = {"gradient_checkpointing": False, "train_sampling_strategy": "group_by_length"}
# 2 packs of 1024 tokens hold about as much as 8 chats
PACKED = {"gradient_checkpointing": False, "packing": True, "per_device_train_batch_size": 2}
SETTINGS = {"TRL as it comes": {}, "TRL, sorted by length": SORTED, "TRL, packed": PACKED}
CHATS, ROUNDS = (8, 1) if bench.QUICK else (64, 1)


def chats() -> list[tuple[str, str]]:
    """Prompt and answer of each."""
    rng = np.random.default_rng(0)
    if bench.QUICK:
        lengths = rng.integers(40, 60, CHATS)
    else:
        lengths = np.clip(rng.lognormal(np.log(180), 0.6, CHATS), 50, 600).astype(int)
    words = lengths - 35  # the chat template adds about 35 tokens
    return [(bench.sentence(n // 3, i), bench.sentence(n - n // 3, 1000 + i)) for i, n in enumerate(words.tolist())]


def etude() -> dict[str, float]:
    from etude.objectives import likelihood
    from etude.training.learner import Learner, rows
    from etude.training.offline import offline
    from etude.trajectory import Episode, Message, Trajectory

    policy, trajectories = bench.load_policy(), []
    for n, (prompt, answer) in enumerate(chats()):
        trajectory = Trajectory(f"chat/{n}", f"{n}")
        leaf = trajectory.add(Message("assistant", answer), trajectory.add(Message("user", prompt), None))
        trajectory.episodes = [Episode(policy.renderer.fill(trajectory, leaf))]
        trajectory.weigh([1.0])
        trajectories.append(trajectory)
    learner = Learner(policy, likelihood(), lr=2e-5)
    learner.step(trajectories[:BATCH])
    seconds = bench.clock(lambda: offline(learner, trajectories, batch=BATCH))()
    return {"seconds": seconds, "peak": bench.peak(), "tokens": sum(len(row.ids_P) for row in rows(trajectories))}


def trl(settings: dict) -> dict[str, float]:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    from etude.policies.local import computes_bfloat16

    data = [
        {"prompt": [{"role": "user", "content": p}], "completion": [{"role": "assistant", "content": a}]}
        for p, a in chats()
    ]
    model, tokenizer = bench.load_for_trl()
    with tempfile.TemporaryDirectory() as directory, contextlib.redirect_stdout(sys.stderr):

        def trainer(rows: list) -> SFTTrainer:
            given = {"per_device_train_batch_size": BATCH, "bf16": computes_bfloat16("cpu")} | settings
            quiet = {"report_to": "none", "disable_tqdm": True, "logging_strategy": "no", "save_strategy": "no"}
            config = SFTConfig(directory, use_cpu=True, num_train_epochs=1, **quiet, **given)
            return SFTTrainer(model, config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)

        trainer(data[:BATCH]).train()
        seconds = bench.clock(trainer(data).train)()
    return {"seconds": seconds, "peak": bench.peak()}


def main() -> None:
    sides = ["etude", *SETTINGS]
    printed = bench.alternate(__file__, sides, ROUNDS)
    seconds = {side: [run["seconds"] for run in printed[side]] for side in sides}
    first, *others = SETTINGS
    best = bench.fastest(seconds, *others)
    figures = [
        bench.figure(f"etude against {first}", bench.ratios(seconds[first], seconds["etude"]), least=2.5),
        bench.figure(f"etude against {best}", bench.ratios(seconds[best], seconds["etude"]), least=1.5),
    ]
    tokens = printed["etude"][0]["tokens"]
    for side in sides:
        figures.append(bench.figure(side, [tokens / s for s in seconds[side]], "tokens/s"))
        figures.append(bench.figure(f"{side}, memory", [run["peak"] for run in printed[side]], "MiB"))
    bench.report(figures)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", choices=["etude", *SETTINGS])
    parser.add_argument("--quick", action="store_true")
    side = parser.parse_args().side
    if side is None:
        main()
    else:
        print(json.dumps(etude() if side == "etude" else trl(SETTINGS[side])))
