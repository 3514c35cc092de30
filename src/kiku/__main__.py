"""`python -m kiku` is `kiku`."""

import sys

from kiku.cli import main

if __name__ == "__main__":
    sys.exit(main())
