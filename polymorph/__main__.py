"""`python -m polymorph` is the command `polymorph`."""

import sys

from polymorph.cli.main import main

sys.exit(main())
