"""`python -m holdover`."""

import sys

from holdover.cli import main

sys.exit(main())
