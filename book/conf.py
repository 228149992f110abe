"""Sphinx settings of the book. Sources are laid out by ``bookkit.pages``; build with ``make book``."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent))

from bookkit.assets import sphinx_settings  # noqa: E402
from bookkit.config import repository  # noqa: E402

import twodasl_lite  # noqa: E402

project = "Faces from Photographs"
author = "The twodasl_lite authors"
project_copyright = author
release = version = twodasl_lite.__version__
language = "en"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_togglebutton",
    "sphinxcontrib.bibtex",
]
exclude_patterns = ["notebooks/student", "notebooks/downloads"]

# --- text -----------------------------------------------------------------------------------------
myst_enable_extensions = ["amsmath", "attrs_inline", "colon_fence", "deflist", "dollarmath", "html_image"]
myst_heading_anchors = 3
myst_update_mathjax = False  # the classes are set with the rest of MathJax, in bookkit.assets
numfig = True
bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "plain"
bibtex_reference_style = "author_year"
togglebutton_hint = "Show"
togglebutton_hint_hide = "Hide"

# --- chapters: executed beforehand, rendered as they are ------------------------------------------
nb_execution_mode = "off"
nb_merge_streams = True
nb_number_source_lines = False
nb_output_stderr = "show"

# --- API reference --------------------------------------------------------------------------------
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # fields of dataclasses are documented once, in the class
napoleon_use_rtype = False

# --- scripts: local ones, or a CDN where they could not be fetched --------------------------------
globals().update(sphinx_settings())

# --- site -----------------------------------------------------------------------------------------
html_theme = "sphinx_book_theme"
html_title = project
html_logo = "_static/logo.svg"
html_favicon = "_static/favicon.svg"
html_static_path = ["_static", "_build/static"]
html_css_files = ["book.css"]
html_js_files = [("book.js", {"defer": "defer"})]
html_copy_source = True
html_show_sourcelink = False
html_context = {"default_mode": "auto"}

_repository, _branch = repository()
html_theme_options = {
    "path_to_docs": "",
    "navbar_persistent": [],
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "use_download_button": True,
    "use_fullscreen_button": False,
    "navigation_with_keys": False,
    "article_header_start": ["toggle-primary-sidebar.html"],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
if _repository:
    html_theme_options |= {
        "repository_url": _repository,
        "repository_branch": _branch,
        "use_repository_button": True,
        "use_issues_button": True,
        "launch_buttons": {
            "binderhub_url": "https://mybinder.org",
            "colab_url": "https://colab.research.google.com",
            "notebook_interface": "jupyterlab",
        },
    }
