"""What happens when: learning rate and checkpoints as functions of the step."""

import math

from polymorph.training.config import CheckpointsConfig, OptimizerConfig


def learning_rate(step: int, config: OptimizerConfig, max_steps: int) -> float:
    """Rate of the update that follows `step` updates: linear from 0 over the warm-up, then a cosine."""
    if step < config.warmup_steps:
        return config.lr * step / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, max_steps - config.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return config.lr * (config.final_lr_ratio + (1 - config.final_lr_ratio) * cosine)


def checkpoint_steps(config: CheckpointsConfig, max_steps: int) -> list[int]:
    """Every step of the cadence from 0 to `max_steps`, both included."""
    powers = [2**k for k in range(config.powers_until.bit_length()) if 2**k <= config.powers_until]
    even = range(config.every, max_steps, config.every)
    return sorted({step for step in (0, *powers, *even, *config.also, max_steps) if step <= max_steps})
