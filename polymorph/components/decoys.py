"""Models that are not what they pretend to be: copies of a member with something essential changed.

Whatever is said to show that two members compute alike must refuse these. The first two are the paper's (its
`averaged_unembedding` confuses depths 0 and 1, 2 and 3, …), the others add Gaussian noise to every parameter, with a
standard deviation in shares of the parameter's own root mean square.
"""

import copy
import re
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from polymorph.models.architecture import HookedModel

AVERAGED, SWAPPED = "averaged_unembedding", "swapped_layers"
NOISE: Mapping[str, float] = {"noise_0.01": 0.01, "noise_0.1": 0.1, "noise_1": 1.0}
DECOYS = (AVERAGED, SWAPPED, *NOISE)
_BLOCK = re.compile(r"(.*\bblocks\.)(\d{1,6})(\..*)")


def decoys_of(
    model: HookedModel, head: str, classes: int, generator: Callable[[str], torch.Generator]
) -> Iterator[tuple[str, HookedModel]]:
    """Every decoy that there is of a model, by name; `head`, of so many classes, is the one that is averaged.

    One that cannot be made is left out: a model of one layer, or one whose unembedding is not found by name.
    """
    for name in DECOYS:
        made = copy.deepcopy(model)
        assert isinstance(made, nn.Module)
        with torch.no_grad():
            if name == AVERAGED:
                changed = _average(made, head, classes)
            elif name == SWAPPED:
                changed = _swap(made)
            else:
                changed = _add_noise(made, NOISE[name], generator(name))
        if changed:
            yield name, made


def _average(model: nn.Module, head: str, classes: int) -> bool:
    """What gives classes 2k and 2k + 1 of a head is their mean; the last class of an odd number stays."""
    found = {
        name: own for name, own in model.named_parameters() if "unembed" in name and classes in own.shape
    }
    own_head = {name: own for name, own in found.items() if head in name.split(".")}
    for own in (own_head or found).values():
        axis = max(i for i, size in enumerate(own.shape) if size == classes)
        rows = own.movedim(axis, 0)
        pairs = classes // 2
        means = rows[: 2 * pairs].unflatten(0, (pairs, 2)).mean(1)
        rows[: 2 * pairs] = means.repeat_interleave(2, 0)
    return bool(found)


def _swap(model: nn.Module) -> bool:
    """The parameters of the first block and of the last change places."""
    blocks: dict[int, dict[str, Tensor]] = {}
    for name, own in model.named_parameters():
        if (at := _BLOCK.match(name)) is not None:
            blocks.setdefault(int(at[2]), {})[at[1] + at[3]] = own
    if len(blocks) < 2:
        return False
    first, last = blocks[min(blocks)], blocks[max(blocks)]
    if {name: own.shape for name, own in first.items()} != {name: own.shape for name, own in last.items()}:
        return False
    for name, early in first.items():
        kept = early.clone()
        early.copy_(last[name])
        last[name].copy_(kept)
    return True


def _add_noise(model: nn.Module, share: float, generator: torch.Generator) -> bool:
    for own in model.parameters():
        noise = torch.randn(own.shape, generator=generator).to(own)
        own.add_(noise, alpha=share * float(own.square().mean().sqrt()))
    return True
