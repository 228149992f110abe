"""The tools that turn the chapters into a book: execute, lay out, build, check.

Data flows one way::

    notebooks/*.ipynb  --execute-->  book/_build/executed  --pages-->  book/_build/source  --site-->  book/_build/html

``python -m bookkit --help`` (with ``book/`` on the path) lists the commands; the ``Makefile`` calls them.
"""
