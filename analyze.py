"""Analyse a cohort: `python analyze.py cohort=<name or folder>`."""

import sys

from polymorph.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["analyze", *sys.argv[1:]]))
