"""Every study is a folder here, or below a folder that the environment variable `POLYMORPH_STUDIES` names."""

import os

OWN = "POLYMORPH_STUDIES"
"""Folders of studies of one's own, separated like those of PATH."""

__path__ += [folder for folder in os.environ.get(OWN, "").split(os.pathsep) if folder]
