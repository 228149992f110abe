"""The subcommands of ``twodasl``, one module each; the table is in :mod:`twodasl_lite.cli`."""
