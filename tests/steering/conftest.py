"""Small texts, small language models and rotated transformers are made where theirs are tested."""

import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
sys.path += [str(TESTS / folder) for folder in ("texts", "models", "studies")]
