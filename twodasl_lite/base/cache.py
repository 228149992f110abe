"""The folder for what is made or fetched once and kept: face models, pictures, a detector."""

from __future__ import annotations

import os
import sys
from pathlib import Path

CACHE_VARIABLE = "TWODASL_CACHE"
"""The environment variable that names the folder."""


def cache_folder() -> Path:
    """Where generated files are kept: ``TWODASL_CACHE``, or the system's usual place for caches."""
    if os.environ.get(CACHE_VARIABLE):
        return Path(os.environ[CACHE_VARIABLE])
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "twodasl_lite"
