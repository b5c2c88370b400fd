"""Train the members of a cohort: `python train.py seed=[0,1,2]`, `python train.py -m seed=0,1,2`."""

import sys

from polymorph.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
