"""The command ``twodasl`` as ``python -m twodasl_lite``, which is what ``torchrun -m`` takes."""

import sys

from twodasl_lite.apps.cli import main

if __name__ == "__main__":
    sys.exit(main())
