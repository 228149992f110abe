"""Pages for tests to open, from a file or over http, without access to any other network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def address(folder: Path, scheme: str) -> Iterator[str]:
    """Address of a folder's files, without a trailing slash; ``scheme`` is ``"file"`` or ``"http"``."""
    from bookkit.browser import serve

    if scheme == "file":
        yield folder.as_uri()
        return
    with serve(folder) as base:
        yield base.rstrip("/")


def watch(page, base: str) -> list[str]:
    """Block every request to the outside; the list fills with those, with errors of scripts and of the console."""
    problems: list[str] = []

    def guard(route) -> None:
        url = route.request.url
        if url.endswith("favicon.ico"):
            route.fulfill(status=204)
        elif url.startswith((base, "data:", "blob:")):
            route.continue_()
        else:
            problems.append(f"asks for {url}")
            route.abort()

    page.route("**/*", guard)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: message.type == "error" and problems.append(message.text))
    return problems
