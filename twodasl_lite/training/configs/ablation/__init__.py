"""The rows of the ablation, see :mod:`twodasl_lite.training.ablation`."""
