"""The subcommands of ``twodasl``, one module each; :mod:`twodasl_lite.cli` holds their table."""
