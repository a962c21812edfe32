"""`python -m rfdiff` is the command line `rfdiff`."""

import sys

from rfdiff.cli.entry import main

if __name__ == "__main__":
    sys.exit(main())
