"""Look for what shuts readers out: axe-core's rules on every page, light and dark.

axe-core comes through npm, at an exact version and only if its digest matches, like the scripts of the pages; it is no
part of the site. What it calls *serious* or *critical* is a problem.
"""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path

from bookkit import assets
from bookkit.browser import serve

AXE = assets.Asset(
    name="axe-core",
    version="4.14.1",
    integrity="sha512-FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==",
    folder="axe",
    keep=("axe.min.js",),
)
SERIOUS = {"serious", "critical"}
RUN = """async (serious) => {
  for (const details of document.querySelectorAll(".bd-article details")) details.open = true;
  const found = await axe.run(document, { resultTypes: ["violations"] });
  return found.violations
    .filter((violation) => serious.includes(violation.impact))
    .map((v) => `${v.id} (${v.impact}): ${v.help}; ${v.nodes.length} times, first ` +
      `${v.nodes[0].target.join(" ")}: ${v.nodes[0].html.slice(0, 140)}`);
}"""


def axe_script() -> Path | None:
    """The rules as one script; ``None`` where they are not here and cannot be fetched."""
    if not assets._cached(AXE).is_dir():
        try:
            assets._fetch(AXE)
        except (OSError, subprocess.SubprocessError, ValueError, tarfile.TarError) as error:
            print(f"WARNING: could not fetch {AXE.name} {AXE.version}: {error}")
            return None
    return assets._cached(AXE) / "axe.min.js"


def violations(browser, folder: Path, pages: Iterable[str], script: Path, *, dark: bool = False) -> list[str]:
    """What is serious on pages of a built site.

    Args:
        browser: Playwright's ``Browser``.
        folder: The site.
        pages: Names of pages, relative to it.
        script: From `axe_script`.
        dark: In dark mode.

    Returns:
        One line for each rule that a page breaks, beginning with the page.
    """
    rules = script.read_text(encoding="utf-8")
    found = []
    with serve(folder) as base:
        context = browser.new_context(
            viewport={"width": 1400, "height": 900}, color_scheme="dark" if dark else "light", reduced_motion="reduce"
        )
        for name in pages:
            page = context.new_page()
            page.goto(base + name, wait_until="load", timeout=60_000)
            page.wait_for_timeout(600)  # formulas are set, controls made
            page.evaluate(rules)
            found += [f"{name}: {line}" for line in page.evaluate(RUN, sorted(SERIOUS))]
            page.close()
        context.close()
    return found
