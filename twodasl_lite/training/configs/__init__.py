"""Configurations that come with the package, see :mod:`twodasl_lite.training.config`."""
