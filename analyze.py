"""Analyse a cohort: `python analyze.py cohort=<name or folder>`."""

import sys

import hydra
from omegaconf import DictConfig

from polymorph.cli import analyze, command
from polymorph.cli.config import AnalyzeConfig, register

register()
codes: list[int] = []


@hydra.main(version_base=None, config_path="conf/analyze", config_name="analyze")
def job(config: DictConfig) -> None:
    codes.append(analyze.run(command.typed(config, AnalyzeConfig)))


if __name__ == "__main__":
    sys.exit(command.main("analyze", AnalyzeConfig, analyze.check, job, lambda jobs: max(codes, default=1)))
