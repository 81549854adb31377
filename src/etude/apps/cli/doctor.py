"""`etude doctor`: whether this machine has what etude needs, and how fast it is."""

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import time
from pathlib import Path
from typing import Any

from etude.apps.cli.install import packages
from etude.apps.cli.output import print_json

GIB = 1 << 30


def doctor(args: argparse.Namespace) -> int:
    """Print the findings; exit 1 when a package that etude cannot do without is absent or too old."""
    from etude.policies.local import cache_directory

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
