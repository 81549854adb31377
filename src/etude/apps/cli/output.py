"""How verbs print: JSON for programs, plain columns for people."""

import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import Any


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(value, indent=1, ensure_ascii=False, default=str))


def print_table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Left-aligned columns under a head; on a terminal a line that is too long is cut."""
    cells = [list(head), *([("" if cell is None else str(cell)) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    limit = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for row in cells:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        print(line if limit is None or len(line) <= limit else line[: limit - 1] + "…")
