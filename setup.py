"""What pyproject.toml cannot say beside a search for packages: conf/ is installed inside the package."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["polymorph", "polymorph.*"]), "polymorph.conf"],
    package_dir={"polymorph.conf": "conf"},
)
