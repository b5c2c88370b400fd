"""The small cohorts of the training tests serve here as well."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "training"))
