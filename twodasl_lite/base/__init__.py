"""What every room uses: errors and checks, files that appear whole, settings, the cache folder.

May import no other room. No chapter explains it: it is about programs, not about faces.

* :mod:`~twodasl_lite.base.errors`, :mod:`~twodasl_lite.base.checks`: the exceptions, and the checks of arguments that
  raise them.
* :mod:`~twodasl_lite.base.archive`: the one safe file format; files that appear whole or not at all.
* :mod:`~twodasl_lite.base.settings`: dataclasses from TOML, with helpful errors.
* :mod:`~twodasl_lite.base.constants`: small tables on any device.
* :mod:`~twodasl_lite.base.cache`: the folder for what is made or fetched once.
* :mod:`~twodasl_lite.base.run_log`: reading the log of a training run.
"""
