"""Intervals from document blocks."""

import torch
from jaxtyping import Float
from scipy.stats import t as student
from torch import Tensor

CONFIDENCE = 0.95


def jackknife_interval(
    value: Float[Tensor, "*batch"], leave_one_out: Float[Tensor, "blocks *batch"]
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """The 95 % interval value ± t·SE from the delete-one-block values, with blocks − 1 degrees of freedom.

    SE² = (B − 1)/B · Σ_b (θ₍₋b₎ − mean θ₍₋·₎)² (Efron and Stein 1981). The blocks must be independent, and at
    least two; the interval is symmetric and may pass the bounds of the statistic.
    """
    blocks = leave_one_out.shape[0]
    if blocks < 2:
        raise ValueError(f"an interval needs at least two blocks of documents, got {blocks}")
    scatter = (leave_one_out - leave_one_out.mean(0)).square().sum(0)
    half = float(student.ppf((1 + CONFIDENCE) / 2, blocks - 1)) * torch.sqrt(scatter * (blocks - 1) / blocks)
    return value - half, value + half
