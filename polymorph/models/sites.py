"""Names of the places of the residual stream."""

from collections.abc import Sequence


def site_names(has_middle: Sequence[bool]) -> list[str]:
    """Sites of as many blocks, each with or without one between attention and MLP."""
    sites = ["blocks.0.hook_resid_pre"]
    for layer, middle in enumerate(has_middle):
        sites += [f"blocks.{layer}.hook_resid_mid"] if middle else []
        sites.append(f"blocks.{layer}.hook_resid_post")
    return sites
