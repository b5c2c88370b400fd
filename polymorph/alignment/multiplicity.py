"""Many tests at once: Holm for the declared primary family, Benjamini–Hochberg for the rest."""

from collections.abc import Mapping
from typing import TypeVar

from scipy.stats import false_discovery_control

SIGNIFICANCE = 0.05
Key = TypeVar("Key")


def holm(p_values: Mapping[Key, float]) -> dict[Key, float]:
    """Adjusted p-values under which rejecting at α keeps the chance of any false rejection ≤ α (Holm 1979)."""
    adjusted: dict[Key, float] = {}
    largest = 0.0
    for place, (key, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(p_values) - place) * p))
        adjusted[key] = largest
    return adjusted


def benjamini_hochberg(p_values: Mapping[Key, float]) -> dict[Key, float]:
    """Adjusted p-values under which rejecting at q keeps the expected share of false rejections ≤ q."""
    if not p_values:
        return {}
    return dict(zip(p_values, false_discovery_control(list(p_values.values())).tolist(), strict=True))
