"""The subcommands of ``twodasl``, one module each; :mod:`twodasl_lite.apps.cli` holds their table."""

FAILED, PAUSED, INTERRUPTED = 1, 3, 130
"""Exit statuses, beside 0 for done and argparse's 2."""
