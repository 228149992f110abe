"""Pictures of faces to learn from: synthetic worlds with known answers, and real sets.

* :mod:`~twodasl_lite.data.faces`: the structure that every source returns.
* :mod:`~twodasl_lite.data.synthetic`: pictures made on the spot, in a labelled and a wild world.
* :mod:`~twodasl_lite.data.detector`: a landmark detector's noise, simulated.
"""

from twodasl_lite.data.faces import FaceBatch

__all__ = ["FaceBatch"]
