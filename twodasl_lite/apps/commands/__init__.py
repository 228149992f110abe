"""The subcommands of ``twodasl``, one module each; :mod:`twodasl_lite.apps.cli` holds their table.

May import ``apps`` and all that ``apps`` may: ``base``, ``geometry``, ``render``, ``faces``, ``worlds``, ``datasets``,
``losses``, ``networks``, ``evaluation``, ``training``, ``viz`` and ``course``. See chapters 16 and 17.
"""

FAILED, PAUSED, INTERRUPTED = 1, 3, 130
"""Exit statuses, beside 0 for done and argparse's 2."""
