"""Where what was converted, trained or built once is kept."""

import os
from pathlib import Path


def cache_directory() -> Path:
    """$ETUDE_CACHE, or ~/.cache/etude."""
    return Path(os.environ.get("ETUDE_CACHE", Path.home() / ".cache" / "etude"))
