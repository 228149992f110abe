"""The subcommands of ``twodasl``, one module each; :mod:`twodasl_lite.apps.cli` holds their table."""
