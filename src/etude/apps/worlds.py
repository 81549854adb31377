"""Which worlds there are, whether they can be played here, and what is known of each: `evidence/worlds/NAME.json`."""

import contextlib
import datetime
import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from etude.apps.evidence import commit, processor
from etude.core import parts
from etude.core import recipe as recipes
from etude.core.errors import EtudeError, MissingExtra
from etude.core.rundir import atomic_write
from etude.evaluation import plays
from etude.evaluation.conformance import AT_ONCE, Report, conformance
from etude.evaluation.statistics import mean_interval
from etude.protocols import Sampling, Task

ANSWER = Sampling(max_tokens=128, temperature=0.0)  # of a policy that is scored


def worlds() -> list[dict[str, Any]]:
    """Every built-in world and every other that has evidence: its name, what it wants, and what is known of it."""
    known, wants = evidence(), {name: install(name) for name in parts.find("environments")}
    names = sorted({*wants, *known})
    return [{"world": name, "install": wants.get(part_of(name), ""), **known.get(name, {})} for name in names]


def wants(name: str) -> list[str]:
    """The settings without which a built-in world cannot be made, such as the id of `gym`."""
    return [argument.name for argument in parts.schema(f"environments/{name}").values() if argument.required]


def install(name: str) -> str:
    """What must be run before a built-in world can be played here; '' where nothing must, or it wants settings."""
    if wants(name):
        return ""
    try:
        plays.splits(parts.build(f"environments/{name}"))
    except MissingExtra as missing:
        return command(name) or str(missing).rpartition("run:")[2].strip()
    return ""


def command(name: str) -> str:
    """What a built-in world says must be installed for it, whether it is or not; '' where it needs nothing."""
    commands = getattr(sys.modules[parts.load(f"environments/{name}").__module__], "INSTALL", "")
    return commands if isinstance(commands, str) else " && ".join(commands)


def reference_tasks(world: Any) -> list[Task]:
    """On what a world's references are measured: the tasks of `dev`, and of `domains` where it has that split."""
    found = list(world.tasks("dev"))
    with contextlib.suppress(EtudeError):  # how a world says that it has no such split
        found += world.tasks("domains")
    return found


def part_of(name: str) -> str:
    """`bfcl` of `bfcl` and of `bfcl-category-irrelevance`; '' of a world that is not built in."""
    part = name.partition("-")[0]
    return part if part in parts.find("environments") else ""


# -- evidence --------------------------------------------------------------------------------------------------------


def stem(name: str) -> str:
    """How the evidence of a world is called.

    >>> stem("desk"), stem("{desk: {difficulty: 3}}"), stem("examples/shop.py:world")
    ('desk', 'desk-difficulty-3', 'shop-world')
    """
    return "-".join(re.findall(r"\w+", re.sub(r".*/|\.py(?=:)", "", name)))


def folder(name: str) -> Path:
    """A checkout keeps the evidence of its own worlds; for others, and an installed package, it is where we are."""
    ours = parts.PACKAGE.parent.parent / "evidence"
    own = ours.is_dir() and ".py:" not in name and part_of(stem(name))
    return (ours if own else Path("evidence")) / "worlds"


def evidence(*folders: Path) -> dict[str, dict[str, Any]]:
    """What is known of worlds, by name: by default what etude came with, and before that what was measured here."""
    found = {}
    for place in folders or (recipes.shipped("evidence"), Path("evidence")):
        for file in sorted((place / "worlds").glob("*.json")):
            try:
                found[file.stem] = json.loads(file.read_text(encoding="utf-8"))
            except ValueError as error:
                again = f"write it again with `etude env check {file.stem} --write`"
                raise EtudeError(f"{file} is not JSON: {error}\n{again}") from None
    return found


def write(name: str, report: Report) -> Path:
    """Keep what a check found. A policy's scores of an earlier check are kept with it."""
    file = folder(name) / f"{stem(name)}.json"
    before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    models = {**before.get("models", {}), **report.figures.get("models", {})}
    made = {"commit": commit(), "date": datetime.date.today().isoformat(), **processor()}
    file.parent.mkdir(parents=True, exist_ok=True)
    row = {**to_json(name, report), "models": models, "made": made}
    atomic_write(file, json.dumps(_finite(row), indent=1, allow_nan=False) + "\n")
    return file


def to_json(name: str, report: Report) -> dict[str, Any]:
    """A report as plain data; numbers that are none become null."""
    checks = {check: {"result": outcome.word, **vars(outcome)} for check, outcome in report.checks.items()}
    return {"world": name, "passed": report.passed, **_finite(report.figures), "checks": checks}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


# -- checking --------------------------------------------------------------------------------------------------------


async def check(
    name: str,
    *,
    episodes: int = 24,
    at_once: int = AT_ONCE,
    policy: str = "",
    tasks: int = 20,
    on_check: Callable[[str], None] = lambda check: None,
) -> Report:
    """All checks of a world, and what a policy scores on its held-out tasks.

    name: as `plays.build` takes it. policy: a model's short name or path; '' for none. tasks: that it plays.
    """
    settings = {"episodes": episodes, "at_once": at_once, "on_check": on_check}
    report = await conformance(lambda: plays.build(name), name=name, **settings)
    if policy:
        on_check(policy)
        report.figures["models"] = {Path(policy).name: await score(name, policy, tasks)}
    return report


async def score(name: str, policy: str, tasks: int) -> dict[str, Any]:
    """What a policy earns on the first tasks of the last split that the world has, with the native agent.

    An episode that failed has no reward: it is counted apart.
    """
    import etude
    from etude.rollout.collect import collect

    world, agent = plays.build(name), recipes.build("agents/loops", "native")
    split, there = list(plays.splits(world).items())[-1]
    chosen = [there[i] for i in range(min(tasks, len(there)))]
    most = min(32, getattr(world, "at_once", AT_ONCE))
    played = await collect(etude.policy(policy), chosen, agent=agent, sampling=ANSWER, concurrency=most)
    rewards = [trajectory.episodes[0].reward for trajectory in played]
    earned = np.array([reward for reward in rewards if reward is not None], float)
    found = {"split": split, "episodes": len(earned), "failed": len(rewards) - len(earned)}
    return found | (vars(mean_interval(earned)) if len(earned) else {"mean": None, "low": None, "high": None})
