"""Are two networks of one's own the same inside? Activations in, a verdict out.

Two small networks learn the same thing from different seeds. Their hidden activations on the same inputs go through
every study, and so does a rotated copy of the first network's, where the truth is known.

    python examples/align_two_models.py
"""

import torch
from torch import nn

from polymorph import compare

INPUTS, HIDDEN, CLASSES, PER_DOCUMENT = 20, 24, 8, 8


def trained(seed: int, x: torch.Tensor, labels: torch.Tensor) -> nn.Sequential:
    """A network of its own initialisation, trained on the same data as its siblings."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(INPUTS, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, CLASSES))
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(300):
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(x), labels).backward()
        optimiser.step()
    return network


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8000, INPUTS, generator=generator)
    labels = (x @ torch.randn(INPUTS, CLASSES, generator=generator)).argmax(-1)
    networks = [trained(seed, x[:4000], labels[:4000]) for seed in (1, 2)]
    with torch.no_grad():
        first, second = (network[:2](x[4000:]) for network in networks)  # hidden activations, on new inputs
    turn = torch.linalg.qr(torch.randn(HIDDEN, HIDDEN, generator=generator)).Q
    document = (
        torch.arange(len(first)) // PER_DOCUMENT
    )  # which tokens belong together: the unit of every interval

    for name, members in (
        ("two seeds", [first, second]),
        ("a network and a rotated copy", [first, first @ turn]),
    ):
        found = compare(members, document)
        ladder = found.tables["ladder"].filter(role="estimate", metric="r2")
        print(f"{name}: {found.statement}")
        for rung in ("identity", "orthogonal", "affine"):
            print(f"    R² of the {rung} map: {ladder.filter(map=rung)['value'].median():.3f}")


if __name__ == "__main__":
    main()
