"""`python -m rfdiff` is the command line `rfdiff`."""

import sys

from rfdiff.cli.entry import main

sys.exit(main())
