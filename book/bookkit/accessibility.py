"""Find barriers for readers with disabilities: axe-core's rules on every page, light and dark.

Like the scripts of the pages, axe-core is fetched through npm, at an exact version and only if its digest matches; it
is not part of the site. Violations that it calls *serious* or *critical* count as problems.
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
    """The rules as one script; ``None`` if they are not cached and cannot be fetched."""
    if not assets._cached(AXE).is_dir():
        try:
            assets._fetch(AXE)
        except (OSError, subprocess.SubprocessError, ValueError, tarfile.TarError) as error:
            print(f"WARNING: could not fetch {AXE.name} {AXE.version}: {error}")
            return None
    return assets._cached(AXE) / "axe.min.js"


def violations(browser, folder: Path, pages: Iterable[str], script: Path, *, dark: bool = False) -> list[str]:
    """Serious violations on pages of a built site.

    Args:
        browser: Playwright's ``Browser``.
        folder: Folder of the site.
        pages: Names of the pages, relative to the folder.
        script: Script from `axe_script`.
        dark: Whether to check in dark mode.

    Returns:
        One line for each rule that a page violates, beginning with the name of the page.
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
            page.wait_for_timeout(600)  # formulas are typeset and controls exist
            page.evaluate(rules)
            found += [f"{name}: {line}" for line in page.evaluate(RUN, sorted(SERIOUS))]
            page.close()
        context.close()
    return found
