"""A sparse autoencoder of one member, made to work on another: a rotation folded into its weights.

Member B is a rotated and noisy copy of member A. An SAE of SAELens is trained on A. On B it fails as it is; ported
through a map that was fitted on other tokens it explains what it explains on A. Beside it stands a map that was fitted
to the same tokens in another order: what it reaches is no sign of a shared code.

    python examples/port_an_sae.py
"""

import torch
from sae_lens import StandardSAE, StandardSAEConfig

from polymorph import explained_variance, fit_orthogonal, port_sae

D, FEATURES, ACTIVE = 32, 48, 2


def activations(tokens: int, generator: torch.Generator) -> torch.Tensor:
    """Sparse sums of directions, as an SAE expects them."""
    directions = torch.nn.functional.normalize(
        torch.randn(FEATURES, D, generator=torch.Generator().manual_seed(7)), dim=-1
    )
    strength = torch.rand(tokens, FEATURES, generator=generator)
    on = torch.rand(tokens, FEATURES, generator=generator) < ACTIVE / FEATURES
    return (strength * on) @ directions


def trained_sae(x: torch.Tensor) -> StandardSAE:
    """ReLU with L1, a few hundred steps."""
    torch.manual_seed(0)
    sae = StandardSAE(StandardSAEConfig(d_in=D, d_sae=FEATURES))
    with torch.no_grad():
        sae.W_dec.copy_(0.1 * torch.nn.functional.normalize(torch.randn(FEATURES, D), dim=-1))
        sae.W_enc.copy_(sae.W_dec.T)
    optimiser = torch.optim.Adam(sae.parameters(), lr=3e-3)
    for step in range(400):
        batch = x[torch.arange(step * 256, (step + 1) * 256) % len(x)]
        features = sae.encode(batch)
        loss = (sae.decode(features) - batch).square().sum(-1).mean() + 0.1 * features.sum(-1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return sae.eval().requires_grad_(False)


def main() -> None:
    generator = torch.Generator().manual_seed(1)
    a = activations(20_000, generator)
    turn = torch.linalg.qr(torch.randn(D, D, generator=generator)).Q
    b = a @ turn + 0.02 * torch.randn(a.shape, generator=generator)
    fit, new = slice(0, 10_000), slice(10_000, None)

    sae = trained_sae(a[fit])
    to_a = fit_orthogonal(b[fit], a[fit])
    unpaired = fit_orthogonal(b[fit], a[fit].roll(1, 0))  # the same tokens, each with another's
    for name, member, its in (
        ("on A, where it was trained", a, sae),
        ("on B as it is", b, sae),
        ("on B, ported", b, port_sae(sae, to_a)),
        ("on B, ported through a map without the pairing", b, port_sae(sae, unpaired)),
    ):
        print(f"explained variance {name}: {explained_variance(its(member[new]), member[new]):.3f}")


if __name__ == "__main__":
    main()
