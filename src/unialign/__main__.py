"""`python -m unialign`."""

import sys

from unialign.cli import main

if __name__ == "__main__":
    sys.exit(main())
