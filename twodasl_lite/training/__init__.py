"""Training of the networks (Tu et al. 2019, section 3).

May import ``base``, ``geometry``, ``render``, ``faces``, ``worlds``, ``datasets``, ``losses``, ``networks`` and
``evaluation``. See chapter 14.

* :mod:`~twodasl_lite.training.config`: the configuration of a run, one small file;
* :mod:`~twodasl_lite.training.loop`: the training loop, written to be read from top to bottom;
* :mod:`~twodasl_lite.training.steps`: the losses of one step, for the regressor and for the critic;
* :mod:`~twodasl_lite.training.pictures`: the pictures of a run, rendered once and cached;
* :mod:`~twodasl_lite.training.schedule`, :mod:`~twodasl_lite.training.ema`,
  :mod:`~twodasl_lite.training.distributed`, :mod:`~twodasl_lite.training.checkpoint`,
  :mod:`~twodasl_lite.training.log`: learning rate schedule, averaged weights, several processes, checkpoints, logging;
* :mod:`~twodasl_lite.training.validation`: the error of a network;
* :mod:`~twodasl_lite.training.ablation`: the effect of each loss.

Everything here needs the extra ``train``.
"""
