"""The symmetries of the Dyck transformer, all of them exact.

RMSNorm without its gain commutes with O(d_model), and nothing has a bias. Positions are a table of numbers that the
stream starts from: a turned model carries a turned table. Not in the table is what leaves probabilities alone but not
logits, a constant added to all classes of a head.
"""

from polymorph.models.dyck_transformer.config import DyckTransformerConfig
from polymorph.models.symmetries import Heads, Neurons, Norm, Symmetries


def symmetries(model: DyckTransformerConfig) -> Symmetries:
    """The table of a Dyck transformer of these dimensions."""
    norms, heads, neurons = [], [], []
    for layer in range(model.n_layers):
        block = f"blocks.{layer}"
        of_heads = [f"{block}.attn.W_{part}" for part in "QKVO"]
        heads.append(Heads(f"{block}.attn", *of_heads))
        neurons.append(Neurons(f"{block}.mlp", f"{block}.mlp.W_in", f"{block}.mlp.W_out"))
        norms.append(Norm(f"{block}.ln1.w", tuple(of_heads[:3])))
        norms.append(Norm(f"{block}.ln2.w", (f"{block}.mlp.W_in",)))
    reads = {f"unembed.{head}.W_U": head for head in ("tok", "depth", "valid")}
    return Symmetries(
        d_model=model.d_model,
        norms=(*norms, Norm("ln_final.w", tuple(reads))),
        writes={"W_E": "tokens", "W_pos": "positions"},
        reads=reads,
        heads=tuple(heads),
        neurons=tuple(neurons),
    )
