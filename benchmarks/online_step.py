"""One step of online practice, all parameters: etude against TRL's GRPOTrainer, with the most memory each one holds.

Short: 8 prompts of about 60 tokens, 4 samples each; long: 4 prompts of about 400, 8 samples each. Every sample has
exactly 64 tokens; rewards are fixed and cost nothing. Both sides compute in bfloat16 over float32 masters, in the
micro-batches that TRL is given, and begin from the same prompts. TRL is measured with gradient checkpointing, its
default, and without; the long case with the faster of these. Sides are processes that take turns; each makes a step
to warm up.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import sys
import tempfile
import time
from dataclasses import dataclass

import bench

SIDES = ("etude", "TRL with checkpointing", "TRL without checkpointing")


@dataclass(frozen=True)
class Work:
    """One step: `prompts` x `group` samples of `tokens` tokens, `rows` samples in TRL's micro-batch."""

    prompts: int
    group: int
    words: int
    tokens: int
    rows: int
    steps: int  # measured in each process
    faster: float  # what is aimed at


WORKS = {"short": Work(8, 4, 30, 64, 8, 2, 3.5), "long": Work(4, 8, 370, 64, 4, 1, 6.0)}
if bench.QUICK:
    WORKS = {"short": Work(2, 2, 8, 8, 2, 1, 3.5)}


def etude(work: Work) -> dict[str, float | list[float]]:
    from etude.agents.loops import native
    from etude.credit import group
    from etude.objectives import clipped
    from etude.protocols import Sampling
    from etude.rollout.collect import collect
    from etude.training.learner import Learner
    from etude.training.online import online

    world, policy, times = bench.Chat(work.words), bench.never_stops(bench.load_policy()), []
    row = work.words + 30 + work.tokens  # the chat template adds about 30 tokens
    learner = Learner(policy, clipped(), lr=1e-6, micro_tokens=work.rows * row, max_length=work.tokens)

    async def play(step: int):
        tasks = world.tasks("train", work.prompts, step * work.prompts)
        sampling = Sampling(max_tokens=work.tokens)
        return await collect(policy, tasks, agent=native(), group=work.group, sampling=sampling, seed=step)

    def on_step(step, figures, trajectories) -> None:
        times.append(time.perf_counter())
        episodes = [e for t in trajectories for e in t.episodes]
        assert all(e.failure is None and e.tokens_sampled == work.tokens for e in episodes), figures

    asyncio.run(online(learner, play, group, steps=1 + work.steps, on_step=on_step))
    return {"seconds": [b - a for a, b in itertools.pairwise(times)], "peak": bench.peak()}


def trl(work: Work, checkpointing: bool) -> dict[str, float | list[float]]:
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    from etude.policies.local import computes_bfloat16

    times = []

    class Watch(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            times.append(time.perf_counter())

    def rewards(completions, completion_ids, **_):
        assert all(len(ids) == work.tokens for ids in completion_ids)
        return [bench.reward(completion[0]["content"]) for completion in completions]

    tasks = bench.Chat(work.words).tasks("train", work.prompts * (1 + work.steps))
    prompts = [{"prompt": [{"role": "user", "content": task.data["prompt"]}]} for task in tasks]
    with tempfile.TemporaryDirectory() as directory:
        config = GRPOConfig(
            output_dir=directory,
            use_cpu=True,
            bf16=computes_bfloat16("cpu"),
            gradient_checkpointing=checkpointing,
            num_generations=work.group,
            per_device_train_batch_size=work.rows,
            gradient_accumulation_steps=work.prompts * work.group // work.rows,
            max_completion_length=work.tokens,
            generation_kwargs={"min_new_tokens": work.tokens},
            beta=0.0,
            learning_rate=1e-6,
            lr_scheduler_type="constant",
            max_steps=1 + work.steps,
            shuffle_dataset=False,
            report_to="none",
            disable_tqdm=True,
            logging_strategy="no",
            save_strategy="no",
        )
        model, tokenizer = bench.load_for_trl()
        trainer = GRPOTrainer(
            model, rewards, config, Dataset.from_list(prompts), processing_class=tokenizer, callbacks=[Watch()]
        )
        with contextlib.redirect_stdout(sys.stderr):
            trainer.train()
    return {"seconds": [b - a for a, b in itertools.pairwise(times)], "peak": bench.peak()}


def main() -> None:
    figures, sides = [], SIDES
    for name, work in WORKS.items():
        printed = bench.alternate(__file__, sides, 1, "--work", name)
        seconds = {side: [s for run in printed[side] for s in run["seconds"]] for side in sides}
        best = bench.fastest(seconds, *sides[1:])
        faster = bench.ratios(seconds[best], seconds["etude"])
        figures.append(bench.figure(f"{name}: etude against {best}", faster, least=work.faster))
        peaks = {side: [run["peak"] for run in printed[side]] for side in sides}
        more = bench.ratios(peaks["etude"], peaks[best])
        figures.append(bench.figure(f"{name}: memory of etude against {best}", more, most=1.1))
        for side in sides:
            figures.append(bench.figure(f"{name}: {side}, a step", seconds[side], "s"))
            figures.append(bench.figure(f"{name}: {side}, memory", peaks[side], "MiB"))
        sides = (SIDES[0], best)
    bench.report(figures)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", choices=SIDES)
    parser.add_argument("--work", choices=WORKS, default="short")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.side is None:
        main()
    else:
        work = WORKS[options.work]
        print(json.dumps(etude(work) if options.side == "etude" else trl(work, "without" not in options.side)))
