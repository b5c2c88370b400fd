"""Train the members of a cohort: `python train.py seed=[0,1,2]`, `python train.py -m seed=0,1,2`."""

import sys

import hydra
from omegaconf import DictConfig

from polymorph.cli import command, train
from polymorph.cli.config import TrainConfig, register

register()


@hydra.main(version_base=None, config_path="conf", config_name="train")
def job(config: DictConfig) -> None:
    train.run(command.typed(config, TrainConfig))


if __name__ == "__main__":
    sys.exit(command.main("train", TrainConfig, train.check, job, train.finish))
