"""Training: where networks meet data and losses (Tu et al. 2019, section 3).

* :mod:`~twodasl_lite.training.config`: what a run is, as one small file;
* :mod:`~twodasl_lite.training.loop`: the loop, to be read from top to bottom;
* :mod:`~twodasl_lite.training.steps`: what one step computes for the regressor and for the critic;
* :mod:`~twodasl_lite.training.pictures`: the pictures of a run, drawn once and kept;
* :mod:`~twodasl_lite.training.schedule`, :mod:`~twodasl_lite.training.ema`,
  :mod:`~twodasl_lite.training.distributed`, :mod:`~twodasl_lite.training.checkpoint`,
  :mod:`~twodasl_lite.training.log`: learning rate, averaged weights, several processes, restarting, what is written
  down;
* :mod:`~twodasl_lite.training.validation`: how good a network is;
* :mod:`~twodasl_lite.training.ablation`: which of the losses carry the gain.

Everything here needs the extra ``train``.
"""
