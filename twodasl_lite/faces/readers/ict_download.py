"""Download of the ICT Face Model Light from its public repository, at a pinned version and checked.

With git, the files come as one shallow fetch of that version; without it, one by one over HTTPS. Each is kept as soon
as it is complete, so that a second attempt continues where the first one stopped. Nothing is used before the checksum
over all files is verified.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from twodasl_lite.base.errors import FileFormatError, TwodaslError
from twodasl_lite.faces.readers.ict import FOLDER, NEUTRAL

REPOSITORY = "https://github.com/ICT-VGL/ICT-FaceKit"
COMMIT = "da5f95a607f5e6b37755b38d3385d7f2853732e5"
SHA256 = "75cd8336ad0cf5d94983ecd3659b4dc3b2e18edaef43c0a0bbaf5aa1db0873e9"
"""Checksum of the files that are used, see :func:`digest`."""
LICENSE_FILE = "LICENSE"

_RAW = f"https://raw.githubusercontent.com/ICT-VGL/ICT-FaceKit/{COMMIT}"
_INDEX = "vertex_indices.json"
_NUM_IDENTITY = 100
_UNLISTED = ("cheekRaiser_L", "cheekRaiser_R")  # expressions that the repository's list lacks
_TIMEOUT = 60.0  # seconds without a byte

Report = Callable[[str], None]
Progress = Callable[[int, int], None]


class DownloadError(TwodaslError):
    """A failed download; the message says what to do by hand."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"the ICT model could not be fetched: {reason}\n"
            f"On a computer with a network:   git clone {REPOSITORY}\n"
            "then here:                      twodasl models get ict --source PATH/TO/ICT-FaceKit"
        )


def used_files(folder: Path) -> list[str]:
    """Names of the files that make the model, without those that move nothing of the face.

    Args:
        folder: ``FaceXModel``; only its list of expressions is read.
    """
    path = folder / _INDEX
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))["expressions"]
        if not all(isinstance(name, str) and name.replace("_", "").isalnum() for name in listed):
            raise ValueError("invalid names")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileFormatError(path, f"unreadable content ({error})", "ICT-FaceKit's list of names") from error
    names = [NEUTRAL, *(f"identity{k:03}" for k in range(_NUM_IDENTITY)), *listed, *_UNLISTED]
    return [_INDEX, *(f"{name}.obj" for name in names)]


def digest(folder: Path, progress: Progress | None = None) -> str:
    """SHA-256 over names and contents of the used files, with line endings as in the repository.

    Raises:
        FileFormatError: If one of them is missing.
    """
    total = hashlib.sha256()
    names = used_files(folder)
    for position, name in enumerate(names):
        try:
            content = (folder / name).read_bytes().replace(b"\r\n", b"\n")
        except OSError as error:
            raise FileFormatError(folder / name, f"no readable file ({error})", "a file of the ICT model") from error
        total.update(f"{name}\0{hashlib.sha256(content).hexdigest()}\n".encode())
        if progress is not None:
            progress(position + 1, len(names))
    return total.hexdigest()


def verify(folder: Path, progress: Progress | None = None) -> None:
    """Refuse files that are not the pinned version.

    Raises:
        FileFormatError: If the checksum differs, or a file is missing.
    """
    found = digest(folder, progress)
    if found != SHA256:
        raise FileFormatError(
            folder,
            f"files with the checksum {found[:16]}…",
            f"{SHA256[:16]}… of version {COMMIT[:12]} (another version: twodasl models convert {folder} OUT)",
        )


def fetch(work: Path, source: str | None = None, *, report: Report = print, progress: Progress | None = None) -> Path:
    """Fetch the repository's files.

    Args:
        work: Folder for the fetched files; may hold those of an earlier attempt.
        source: A folder that holds the files, or an address or path that git can fetch from; the public repository by
            default.
        report: Called with one line of text for each step.
        progress: Called with the number of files fetched and the total, when they come one by one.

    Returns:
        ``FaceXModel`` with the files, not yet verified; the licence lies beside it.

    Raises:
        DownloadError: If the files cannot be fetched.
    """
    if source is not None and (Path(source) / FOLDER / f"{NEUTRAL}.obj").is_file():
        report(f"using the files in {source}")
        return Path(source) / FOLDER
    folder = work / COMMIT[:12]
    if shutil.which("git"):
        try:
            _fetch_git(folder, source or REPOSITORY, report)
            return folder / FOLDER
        except DownloadError as error:
            if source is not None:
                raise
            report(str(error).splitlines()[0])
    elif source is not None:
        raise DownloadError(f"{source} holds no folder {FOLDER}, and git is not installed to fetch from it")
    _fetch_files(folder, report, progress)
    return folder / FOLDER


def _fetch_git(folder: Path, source: str, report: Report) -> None:
    """A shallow fetch of one version into a repository of its own; a second call continues with what is there."""
    folder.mkdir(parents=True, exist_ok=True)
    report(f"git fetch {source} (version {COMMIT[:12]}, about 110 MB)")
    environment = os.environ | {"GIT_TERMINAL_PROMPT": "0"}
    local = str(Path(source).resolve()) if Path(source).exists() else source
    for arguments in (
        ["init", "--quiet"],
        ["-c", "protocol.version=2", "fetch", "--depth=1", "--progress", local, COMMIT],
        ["-c", "core.autocrlf=false", "checkout", "--quiet", "--force", COMMIT, "--", FOLDER, LICENSE_FILE],
    ):
        shown = "fetch" in arguments  # git draws its own progress bar on a terminal
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *arguments],
                env=environment,
                stderr=None if shown and os.isatty(2) else subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                text=True,
                check=False,
            )
        except OSError as error:
            raise DownloadError(f"git does not run ({error})") from error
        if done.returncode:
            last = (done.stderr or "").strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
            raise DownloadError(f"git {next(a for a in arguments if a in _GIT)} failed: {last[0]}")


_GIT = ("init", "fetch", "checkout")


def _fetch_files(folder: Path, report: Report, progress: Progress | None) -> None:
    """Fetch one file after another; existing files are not fetched again."""
    report(f"downloading from {_RAW} (about 400 MB)")
    target = folder / FOLDER
    target.mkdir(parents=True, exist_ok=True)
    _download(f"{_RAW}/{LICENSE_FILE}", folder / LICENSE_FILE)
    _download(f"{_RAW}/{FOLDER}/{_INDEX}", target / _INDEX)
    names = used_files(target)
    for position, name in enumerate(names):
        _download(f"{_RAW}/{FOLDER}/{name}", target / name)
        if progress is not None:
            progress(position + 1, len(names))


def _download(address: str, path: Path) -> None:
    """Fetch one file, whole or not at all."""
    if path.is_file():
        return
    part = path.with_name(path.name + ".part")
    try:
        with urllib.request.urlopen(address, timeout=_TIMEOUT) as response, part.open("wb") as file:
            shutil.copyfileobj(response, file)
            expected = response.headers.get("Content-Length")
        if expected is not None and part.stat().st_size != int(expected):
            raise OSError(f"{part.stat().st_size} of {expected} bytes")
        os.replace(part, path)
    except (urllib.error.URLError, OSError, TimeoutError, ValueError) as error:
        part.unlink(missing_ok=True)
        raise DownloadError(f"{address}: {getattr(error, 'reason', error)}") from error
