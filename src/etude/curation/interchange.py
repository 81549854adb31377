"""Send data through the formats it would arrive in: raw logs -> one protocol -> trajectories.

Agent Data Protocol, Song et al. 2025, arXiv:2510.24702: every data set is converted once into a common protocol, and
every harness reads that, so D + A converters do the work of D x A.
Departures: the data sets are shards of one's own episodes, each written as the logs of another program.
"""

import dataclasses
import hashlib
import tempfile
from pathlib import Path

from etude.core.errors import FormatError
from etude.core.parts import part
from etude.curation.base import log, value_of
from etude.trajectory import Trajectory
from etude.trajectory.formats import export_file, import_file


@part
def interchange(
    trajectories: list[Trajectory],
    *,
    formats: list[str] = ["openai", "sharegpt", "react", "codeact", "actionstudio"],  # noqa: B006 (never changed)
    hub: str = "adp",
    by: str = "domain",
) -> list[Trajectory]:
    """What comes out at the other end, without tokens; `meta["dataset"]` is the format that it arrived in.

    formats: of the raw logs; each is one data set. hub: the protocol between.
    by: key of meta, or `task`, `environment`; trajectories of the same value are in the same data set.

    What a format cannot hold is refused and logged with its reason. Raises FormatError for a row that was written and
    cannot be read.
    """
    sets: dict[str, list[Trajectory]] = {name: [] for name in formats}
    for trajectory in trajectories:
        place = hashlib.sha256(str(value_of(trajectory, by)).encode()).digest()[0] % len(formats)
        sets[formats[place]].append(trajectory)
    found = []
    for name, rows in sets.items():
        arrived = _through(_through(rows, name), hub)
        log.info("interchange: %s, %d of %d trajectories arrived", name, len(arrived), len(rows))
        found += [dataclasses.replace(t, meta=t.meta | {"dataset": name}) for t in arrived]
    return found


def _through(trajectories: list[Trajectory], format: str) -> list[Trajectory]:
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / f"{format}.jsonl"
        for refused in export_file(trajectories, file, format).refused:
            log.warning("interchange: %s refuses %s: %s", format, refused.id, refused.reason)
        imported = import_file(file, format)
    if imported.quarantined:
        first = imported.quarantined[0]
        raise FormatError(f"interchange: row {first.line} of {format} was written but cannot be read: {first.reason}")
    return imported.trajectories
