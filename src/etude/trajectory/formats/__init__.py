"""Formats of agent logs, in and out."""

from etude.trajectory.formats.base import (
    FORMATS,
    Counts,
    Exported,
    Imported,
    Quarantine,
    Refused,
    detect,
    export_file,
    import_file,
    import_files,
    iter_file,
)

__all__ = [
    "FORMATS",
    "Counts",
    "Exported",
    "Imported",
    "Quarantine",
    "Refused",
    "detect",
    "export_file",
    "import_file",
    "import_files",
    "iter_file",
]
