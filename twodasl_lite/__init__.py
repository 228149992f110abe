"""2DASL, small and complete: 3D faces from single pictures, learnt with the help of 2D pictures.

The package behind the book. Its floors, each standing only on those below it:

1. ``errors``, ``archive``, ``coefficients``, ``camera``, ``landmarks``, ``images``, ``render``, ``least_squares``,
   ``networks``, ``evaluation``: the words of the field, each alone.
2. ``morphable``: the face: the linear model, how one is built, the embedded one, readers for those of others.
3. ``decode``: 62 numbers to vertices and landmarks in pixels, the one road everybody takes.
4. ``data``, ``losses``, ``fitting``, ``prediction``, ``reconstruct``, ``applications``, ``benchmark``, ``export``,
   ``texture``, ``viz``, ``examples``: pictures with answers; what is wrong with an answer; answers without a network,
   and with one; files for other programs; what a reader sees.
5. ``training``, ``trained``: the loop: networks meet data and losses; what it has made.
6. ``cli``, ``commands`` and ``course``: words from a person become calls; coursework for a class.

Importing it needs torch, numpy and opencv alone.
"""

__version__ = "0.1.0"
