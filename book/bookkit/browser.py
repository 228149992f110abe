"""Open the built pages in a headless browser without network access, and operate their controls.

Every page is opened over http and from ``file://``. Each of these is a problem: a request that leaves the site, a
missing file, a message on the console's error channel, an uncaught exception, a figure that is not drawn, a missing
widget, a formula that is not typeset, code that is cut at the right edge, and a broken picture. So is a control that
does not change the drawn data when moved:

* ``[data-test-changes="SELECTOR"]``: a control that must change the element that the selector names. The state of the
  element is the result of its ``bookState()``, its pixels (for a canvas), or its markup;
* ``[data-face-explorer]``: every slider inside must change ``element.explorer.state().checksum``;
* ``.noUi-handle``: sliders of Jupyter widgets must move.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlencode

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
FLAGS = (
    "--no-sandbox",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--disable-dev-shm-usage",
    # No host name resolves except the local server's.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    # WebGL without a graphics card.
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
)
# Chromium's own remarks about software rendering and slow canvas reads say nothing about the page.
HARMLESS = ("GPU stall due to ReadPixels", "swiftshader", "willReadFrequently", "CONTEXT_LOST_WEBGL")
DRAW_SECONDS = 30
REACT_SECONDS = 10
INSTALL_SECONDS = 600
PHONE_WIDTH = 400
MAX_SLIDERS = 12  # sliders tested in one explorer: enough to cover each kind


# --- the browser ----------------------------------------------------------------------------------


def find_browser() -> str | None:
    """Path of a Chromium or Chrome: ``TWODASL_BROWSER``, one installed on the machine, or Playwright's own."""
    for name in (os.environ.get("TWODASL_BROWSER"), *NAMES):
        path = shutil.which(name) if name else None
        if path:
            return path
    for path in (
        "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
        "/Applications/Chromium.app/Contents/MacOS/Chromium",
        r"C:\Program Files\Google\Chrome\Application\chrome.exe",
    ):
        if Path(path).exists():
            return path
    try:
        from playwright.sync_api import sync_playwright

        with sync_playwright() as playwright:
            path = playwright.chromium.executable_path
        return path if Path(path).exists() else None
    except Exception:  # Playwright does not support this platform, so it has no browser either
        return None


def install_browser() -> str | None:
    """Install a browser in a way that the machine allows: Playwright's download, or (as root) the system's packages.

    Returns:
        Path of the browser, or ``None`` if none could be installed.
    """
    attempts = [[[sys.executable, "-m", "playwright", "install", "chromium"]]]
    if hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get"):
        install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", "chromium"]
        attempts.append([["apt-get", "update", "-q"], install])
    for commands in attempts:
        try:
            for command in commands:
                subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    check=True,
                    timeout=INSTALL_SECONDS,
                    env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                )
        except (OSError, subprocess.SubprocessError):
            continue
        path = find_browser()
        if path:
            return path
    return None


@contextmanager
def open_browser(executable: str) -> Iterator:
    """A running headless browser (Playwright's ``Browser``)."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, headless=True, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


# --- the site -------------------------------------------------------------------------------------


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Log nothing: the check reports what failed."""


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve a folder on the loopback interface and yield its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_QuietHandler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def list_pages(folder: Path) -> list[str]:
    """All pages of a built site except listings of source code."""
    pages = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.html"))
    return [page for page in pages if not page.startswith(("_static/", "_modules/", "_downloads/"))]


# --- what is looked at ----------------------------------------------------------------------------

UNFOLD = """() => {
  for (const details of document.querySelectorAll(".bd-article details")) details.open = true;
  for (const folded of document.querySelectorAll(".toggle-hidden")) folded.classList.remove("toggle-hidden");
}"""

INTERACTIVE = (
    ".book-plotly, [data-face-explorer], .light-studio-figure, .loss-figure-page, .start-head, .widget-subarea"
)

STARTED = """(e) => (!e.matches(".book-plotly") || Boolean(e.dataset.state)) &&
  (!e.matches(".start-head") || e.dataset.mounted === "yes") &&
  (!e.matches("[data-face-explorer]") || Boolean(e.explorer && e.explorer.state && e.explorer.state())) &&
  (!e.matches(".light-studio-figure") || Boolean(e.studio)) &&
  (!e.matches(".loss-figure-page") || e.dataset.mounted === "yes")"""

UNDRAWN = """() => {
  const problems = [];
  const name = (e) => e.id ? "#" + e.id : e.outerHTML.slice(0, 120);
  for (const figure of document.querySelectorAll(".book-plotly"))
    if (figure.dataset.state !== "drawn" || !figure.querySelector(".main-svg"))
      problems.push(`figure ${name(figure)} is not drawn (${figure.dataset.state || "not started"})`);
  for (const figure of document.querySelectorAll(".loss-figure-page, .start-head"))
    if (figure.dataset.mounted !== "yes") problems.push(`figure ${name(figure)} is not drawn`);
  for (const script of document.querySelectorAll('script[type="application/vnd.jupyter.widget-view+json"]')) {
    const area = script.parentElement.querySelector(".widget-subarea");
    const view = area && area.firstElementChild;
    const shows = (e) => e.childElementCount || e.textContent.trim() || e.shadowRoot || e.matches("img, canvas, input");
    if (!view || !shows(view))
      problems.push("a widget is not there: " + script.textContent.trim().slice(0, 120));
  }
  for (const explorer of document.querySelectorAll("[data-face-explorer]"))
    if (!explorer.explorer || !explorer.explorer.state || !explorer.explorer.state())
      problems.push(`face explorer ${name(explorer)} has not started`);
  for (const figure of document.querySelectorAll(".light-studio-figure"))
    if (!figure.studio) problems.push(`light studio ${name(figure)} has not started`);
  for (const math of document.querySelectorAll("span.math, div.math"))
    if (!math.querySelector("mjx-container"))
      problems.push("formula not typeset: " + math.textContent.trim().slice(0, 80));
  for (const error of document.querySelectorAll("mjx-merror, [data-mjx-error]")) {
    const message = error.getAttribute("data-mjx-error") || error.textContent;
    problems.push("formula with an error: " + message.slice(0, 120));
  }
  for (const image of document.querySelectorAll("img"))
    if (!image.complete || image.naturalWidth === 0) problems.push("picture missing: " + image.src.slice(0, 120));
  return problems;
}"""

TOO_WIDE = """() => {
  const limit = document.documentElement.clientWidth + 1;
  if (document.documentElement.scrollWidth <= limit) return [];
  const all = [...document.querySelectorAll(".bd-article *")];
  const wide = all.filter((e) => e.getBoundingClientRect().right > limit);
  const scrolls = (e) =>
    e && e !== document.body && (getComputedStyle(e).overflowX !== "visible" || scrolls(e.parentElement));
  const guilty = wide.filter((e) => !scrolls(e.parentElement)).slice(0, 3).map((e) => e.outerHTML.slice(0, 120));
  const width = document.documentElement.scrollWidth;
  return [`page is ${width} px wide in a window of ${limit - 1} px: ${guilty.join(" ; ")}`];
}"""

CUT = """() => {
  const problems = [];
  for (const box of document.querySelectorAll(".bd-article div.highlight pre, .bd-article pre")) {
    if (box.scrollWidth <= box.clientWidth + 1 || box.clientWidth === 0) continue;
    const output = box.closest(".cell_output");
    // A table that was printed must not wrap; its box has to scroll, and to show that it does.
    const scroller = output && [box, box.parentElement, output].find(
      (e) => ["auto", "scroll"].includes(getComputedStyle(e).overflowX) && e.dataset.scrolls !== undefined);
    if (scroller) continue;
    const style = getComputedStyle(box);
    const letters = box.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    const lines = box.textContent.split("\\n");
    const longest = lines.reduce((a, b) => (b.length > a.length ? b : a), "");
    const fits = Math.floor((letters / (box.scrollWidth - parseFloat(style.paddingLeft))) * longest.length);
    const what = output ? "output" : "code";
    problems.push(`${what} is cut at the right edge after about ${fits} characters: ${longest.slice(0, 100)}`);
  }
  return problems;
}"""

DOUBLED = """() => {
  // Links and controls find the first of two; those that libraries make inside their drawings are theirs to keep apart.
  const ours = document.querySelectorAll(".bd-article [id]:not(svg *, mjx-container *, .gl-container *)");
  const all = [...ours].map((e) => e.id);
  const doubled = new Set(all.filter((id, i) => all.indexOf(id) !== i));
  return [...doubled].map((id) => `several elements have the id ${id}`);
}"""

TARGET_STATE = """(control) => {
  const selector = control.dataset.testChanges;
  const target = control.getRootNode().querySelector(selector) || document.querySelector(selector);
  if (!target) return null;
  if (target.bookState) return JSON.stringify(target.bookState());
  return target instanceof HTMLCanvasElement ? target.toDataURL() : target.innerHTML + (target.value ?? "");
}"""

EXPLORER_STATE = """(slider) => {
  let node = slider;
  while (node && !(node.matches && node.matches("[data-face-explorer]"))) node = node.parentNode || node.host;
  return JSON.stringify(node.explorer.state().checksum);
}"""

CONTROL_NAME = """(e) => {
  const label = e.labels && e.labels[0] ? e.labels[0].textContent : "";
  return (e.getAttribute("aria-label") || label || e.id || e.name || e.outerHTML.slice(0, 80)).trim();
}"""


def wait_started(page, figure) -> bool:
    """Wait until a figure that stands on the screen is drawn; whether it was, within `DRAW_SECONDS`."""
    started = time.monotonic()
    while not (drawn := figure.evaluate(STARTED)) and time.monotonic() - started < DRAW_SECONDS:
        page.wait_for_timeout(50)
    return drawn


class PageCheck:
    """Opens pages of one site in one browser and collects their problems.

    Attributes:
        problems: One line for each problem, beginning with the name of the page.
        interactive: Number of interactive figures on each page.
        moved: Number of controls on each page that were operated and changed the data.
    """

    def __init__(self, browser, base: str, width: int = 1400, dark: bool = False) -> None:
        self.base = base
        self.problems: list[str] = []
        self.interactive: Counter[str] = Counter()
        self.moved: Counter[str] = Counter()
        scheme = "dark" if dark else "light"
        self._context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self._context.route("**/*", self._guard)
        self._page_name = ""

    def close(self) -> None:
        """Close the pages; the browser stays open."""
        self._context.close()

    def _note(self, text: str) -> None:
        line = f"{self._page_name}: {text}"
        if line not in self.problems:
            self.problems.append(line)

    def _guard(self, route) -> None:
        url = route.request.url
        if url.startswith((self.base, "data:", "blob:")):
            route.continue_()
        else:
            self._note(f"asks for {url}, outside the site")
            route.abort()

    def _on_console(self, message) -> None:
        if message.type == "error" and not any(text in message.text for text in HARMLESS):
            self._note(f"console error: {message.text[:300]}")

    def _on_failed(self, request) -> None:
        if request.url.startswith(self.base) and "ERR_ABORTED" not in (request.failure or ""):
            self._note(f"cannot load {request.url}: {request.failure}")

    def _on_response(self, response) -> None:
        if response.status >= 400:
            self._note(f"{response.status} for {response.url}")

    def _new_page(self, page_name: str):
        self._page_name = page_name
        page = self._context.new_page()
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self._note(f"script error: {str(error)[:300]}"))
        page.on("requestfailed", self._on_failed)
        page.on("response", self._on_response)
        return page

    def open(self, page_name: str):
        """Open one page, to look at it by other means; the caller closes it."""
        page = self._new_page(page_name)
        page.goto(self.base + page_name, wait_until="load", timeout=60_000)
        return page

    def check(self, page_name: str, *, operate: bool = True, screenshot: Path | None = None) -> None:
        """Open one page and check everything on it.

        Args:
            page_name: Name of the page relative to the site's root.
            operate: Whether to move the controls too.
            screenshot: File for a picture of the whole page, if any.
        """
        from playwright.sync_api import Error

        page = self._new_page(page_name)
        try:
            page.goto(self.base + page_name, wait_until="load", timeout=60_000)
            page.evaluate(UNFOLD)
            # Figures are drawn when they come near the screen.
            for figure in page.locator(INTERACTIVE).all():
                figure.evaluate("(e) => e.scrollIntoView({ block: 'center', behavior: 'instant' })")
                wait_started(page, figure)
            undrawn = self._wait_drawn(page)
            self.interactive[page_name] = page.locator(INTERACTIVE).count()
            for problem in [*undrawn, *page.evaluate(TOO_WIDE), *page.evaluate(CUT), *page.evaluate(DOUBLED)]:
                self._note(problem)
            if operate and not undrawn:
                self._operate(page)
            if screenshot is not None:
                page.screenshot(path=str(screenshot), full_page=True)
            page.set_viewport_size({"width": PHONE_WIDTH, "height": 800})
            page.wait_for_timeout(200)
            for problem in page.evaluate(TOO_WIDE):
                self._note(problem)
        except Error as error:
            self._note(f"browser: {str(error).splitlines()[0]}")
        finally:
            page.close()

    def _wait_drawn(self, page) -> list[str]:
        deadline = time.monotonic() + DRAW_SECONDS
        problems = page.evaluate(UNDRAWN)
        while problems and time.monotonic() < deadline:
            page.wait_for_timeout(100)
            problems = page.evaluate(UNDRAWN)
        return problems

    def _operate(self, page) -> None:
        """Move every control that declares what it changes."""
        for control in page.locator("[data-test-changes]").all():
            self._expect_change(page, control, TARGET_STATE)
        for explorer in page.locator("[data-face-explorer]").all():
            sliders = explorer.locator("input[type=range]").all()
            if not sliders:
                self._note("a face explorer has no slider")
            for slider in sliders[:MAX_SLIDERS]:
                self._expect_change(page, slider, EXPLORER_STATE)
        for handle in page.locator(".noUi-handle").all():
            self._expect_change(page, handle, "(e) => e.getAttribute('aria-valuenow')")

    def _expect_change(self, page, control, state: str) -> None:
        name = control.evaluate(CONTROL_NAME)
        if not control.is_visible() or control.is_disabled():
            return
        before = control.evaluate(state)
        if before is None:
            self._note(f"control {name!r} names an element that is not on the page")
            return
        control.scroll_into_view_if_needed()
        kind = control.evaluate("(e) => e.type || e.tagName.toLowerCase()")
        if kind == "checkbox":
            control.focus()
            page.keyboard.press("Space")
        elif kind == "select-one":
            control.evaluate("(e) => { e.selectedIndex = (e.selectedIndex + 1) % e.length; }")
            control.dispatch_event("input")
            control.dispatch_event("change")
        elif kind in {"button", "submit"}:
            control.click()
        else:
            top = control.evaluate("(e) => Number(e.value) >= Number(e.max || NaN)")
            control.focus()
            page.keyboard.press("ArrowLeft" if top else "ArrowRight")
        deadline = time.monotonic() + REACT_SECONDS
        while time.monotonic() < deadline:
            if control.evaluate(state) != before:
                self.moved[self._page_name] += 1
                return
            page.wait_for_timeout(50)
        self._note(f"control {name!r} was moved, and the drawn data stayed the same")


def search(browser, folder: Path, words: str) -> list[str]:
    """Titles of the pages that the search of a built site finds, best first.

    Args:
        browser: Playwright's ``Browser``, from `open_browser`.
        folder: The built site.
        words: What a reader types.
    """
    with serve(folder) as base:
        check = PageCheck(browser, base)
        try:
            page = check.open(f"search.html?{urlencode({'q': words})}")
            # The last thing that Sphinx does is to say how many pages it found.
            page.wait_for_selector("#search-results .search-summary:not(:empty)", timeout=1000 * DRAW_SECONDS)
            page.wait_for_function(
                "/finished|did not match/.test(document.querySelector('#search-results .search-summary').textContent)",
                timeout=1000 * DRAW_SECONDS,
            )
            return page.locator("#search-results ul.search > li > a").all_inner_texts()
        finally:
            check.close()


def check_site(browser, folder: Path, scheme: str, *, width: int = 1400, operate: bool = True) -> PageCheck:
    """Check every page of a site.

    Args:
        browser: Playwright's ``Browser``, from `open_browser`.
        folder: Folder of the built site.
        scheme: ``http`` or ``file``.
        width: Width of the window in CSS pixels.
        operate: Whether to move the controls too.

    Returns:
        The finished check with its list of problems.

    Raises:
        ValueError: If the scheme is unknown, or there are no pages.
    """
    pages = list_pages(folder)
    if not pages:
        raise ValueError(f"no pages in {folder}; build the book first")
    if scheme == "http":
        with serve(folder) as base:
            return _check_pages(PageCheck(browser, base, width), pages, operate)
    if scheme == "file":
        return _check_pages(PageCheck(browser, folder.resolve().as_uri() + "/", width), pages, operate)
    raise ValueError(f"scheme must be 'http' or 'file', found {scheme!r}")


def _check_pages(check: PageCheck, pages: list[str], operate: bool) -> PageCheck:
    for page in pages:
        check.check(page, operate=operate)
    check.close()
    return check
