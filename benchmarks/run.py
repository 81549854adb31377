"""Measures speed and writes docs/performance.md: `python benchmarks/run.py [NAME ...] [--quick]`.

Benchmarks run one after the other, each in a process of its own, on a machine that does nothing else. Results are kept
in benchmarks/results.json; those of benchmarks that are not named stay as they are. With --quick, the tiny model does a
little of each: that shows that they run and measures nothing, so the page is printed and nothing is written.
"""

import argparse
import ast
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
DOCS, RESULTS = HERE.parent / "docs", HERE / "results.json"
NAMES = (
    "decode",
    "dialogue",
    "online_step",
    "sft",
    "tree",
    "slots",
    "tiny_step",
    "growth",
    "optimiser",
    "worlds",
    "soak",
)
PACKAGES = ("torch", "transformers", "trl")
HEAD = """# Performance

Written by `python benchmarks/run.py`, never by hand. The sides of a comparison take turns in one run, so that what else
the machine does slows both; a value is the median of the ratios of each turn, or of the times themselves, with the
least and the greatest. Peers are taken at the best of the settings named. Unless a section says otherwise, the model is
SmolLM2-135M."""


def measure(name: str, *arguments: str) -> dict[str, Any]:
    """What a benchmark prints as its last line."""
    command = [sys.executable, str(HERE / f"{name}.py"), *arguments]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def circumstances() -> dict[str, str]:
    """When, of what, on what."""
    git = lambda *words: subprocess.run(["git", *words], cwd=HERE, capture_output=True, text=True).stdout.strip()  # noqa: E731
    changed = git("status", "--porcelain", "--", "../src", "*.py")
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.split(": ", 1)[1] for line in lines if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = os.cpu_count()
    threads = os.environ.get("OMP_NUM_THREADS", cores)
    return {
        "date": datetime.date.today().isoformat(),
        "commit": git("rev-parse", "--short", "HEAD") + (" with changes" if changed else ""),
        "machine": f"{(models or [platform.machine()])[0]}, {cores} cores, {threads} threads, {memory:.0f} GiB",
        "versions": ", ".join(f"{package} {importlib.metadata.version(package)}" for package in PACKAGES),
    }


def page(results: dict[str, Any]) -> str:
    """results: by benchmark, what it printed and its circumstances."""
    return "\n\n".join([HEAD, *(section(name, results.get(name)) for name in NAMES)]) + "\n"


def section(name: str, result: dict[str, Any] | None) -> str:
    text = ast.get_docstring(ast.parse((HERE / f"{name}.py").read_text(encoding="utf-8")))
    parts = [f"## {name}", text, f"`python benchmarks/run.py {name}`"]
    if result is None:
        return "\n\n".join([*parts, "Not measured yet."])
    head = ["| figure | median | range | values | aim | reached |", "|---|---|---|---|---|---|"]
    parts.append("\n".join(head + [row(figure) for figure in result["figures"]]))
    if "chart" in result:
        parts.append(f"![{name}](images/{name}.svg)")
    parts.append("{date}, commit {commit}; {machine}; {versions}.".format(**result))
    return "\n\n".join(parts)


def row(figure: dict[str, Any]) -> str:
    middle, unit = figure["median"], figure["unit"]
    aim = reached = ""
    if figure["least"] is not None:
        aim, reached = f"at least {short(figure['least'])}", "yes" if middle >= figure["least"] else "no"
    if figure["most"] is not None:
        aim, reached = f"at most {short(figure['most'])}", "yes" if middle <= figure["most"] else "no"
    spread = f"{short(figure['low'])} to {short(figure['high'])}" if figure["count"] > 1 else ""
    return f"| {figure['what']} | {short(middle)} {unit} | {spread} | {figure['count']} | {aim} | {reached} |"


def short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all, if none is named")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"there is no benchmark {min(unknown)!r}; name some of {', '.join(NAMES)}")
    results = {} if options.quick or not RESULTS.exists() else json.loads(RESULTS.read_text(encoding="utf-8"))
    failed = []
    for name in options.names or NAMES:
        print(name, file=sys.stderr, flush=True)
        try:
            results[name] = measure(name, *(["--quick"] if options.quick else [])) | circumstances()
        except subprocess.CalledProcessError:  # it has said why
            failed.append(name)
            continue
        if not options.quick:
            write(results)
    if options.quick:
        print(page(results))
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


def write(results: dict[str, Any]) -> None:
    """The results, the charts and the page."""
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    for name, result in results.items():
        if "chart" in result:
            (DOCS / "images" / f"{name}.svg").write_text(result["chart"] + "\n", encoding="utf-8")
    (DOCS / "performance.md").write_text(page(results), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
