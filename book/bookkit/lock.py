"""Write the exact versions of the running environment to ``constraints.txt``."""

from __future__ import annotations

import re
from importlib.metadata import distributions
from pathlib import Path

from bookkit.config import CONSTRAINTS

# Tools of the environment itself, and the project: these are not pinned.
LEFT_OUT = {"pip", "setuptools", "wheel", "twodasl-lite"}
HEADER = """\
# The exact versions with which the book was built; `pip install -c constraints.txt -e ".[book,train,dev]"`
# repeats them. Written by `make lock` from a working environment: change pyproject.toml or the environment, not
# this file.
"""


def write_constraints(path: Path = CONSTRAINTS) -> Path:
    """Pin every installed package.

    Local version parts (``+cpu``) are dropped, so that the pins hold for every build of the same version.

    Returns:
        The file written.
    """
    pins = {}
    for distribution in distributions():
        name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"]).lower()
        if name not in LEFT_OUT:
            pins[name] = distribution.version.partition("+")[0]
    path.write_text(HEADER + "".join(f"{name}=={pins[name]}\n" for name in sorted(pins)), encoding="utf-8")
    return path
