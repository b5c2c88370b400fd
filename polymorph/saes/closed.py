"""Losses of SAELens' training SAEs with their gradients in closed form: products, and passes over the features.

Autograd would compute one product more (the gradient of the activations, of which only the sum over tokens is
needed), several for a gated SAE, and keep every array in between. Products are in float32, or of bfloat16 with sums
in float32; weights, residuals, losses and all sums over tokens are float32. Everything here is of one SAE, and of a
part of a batch: results of the parts are added. Under `torch.vmap` it is that of a stack, with `EagerPasses`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from sae_lens import TopKTrainingSAE, TrainingSAE
from torch import Tensor

from polymorph.saes.passes import Passes

SMALLEST = torch.finfo(torch.float32).tiny
Tensors = dict[str, Tensor]
Stepped = tuple[Tensors, Tensors, Tensor]
"""Gradients by parameter, losses by name with `loss` as their sum, and on how many tokens each feature fired, [f]."""


@dataclass(frozen=True)
class Form:
    """What decides the loss beside weights and data; equal for all SAEs of a stack."""

    architecture: str
    centred: bool
    """Whether the decoder's bias is subtracted from the input."""
    passes: Passes
    precision: torch.dtype = torch.float32
    """Of the products."""
    k: int = 0
    rescaled: bool = False
    """Whether the decoder's norms count in the choice of the k strongest."""
    revival: float = 0.0
    """Coefficient of the loss that revives dead features."""


def form_of(sae: TrainingSAE[Any], passes: Passes, precision: torch.dtype) -> Form:
    """What decides this SAE's loss; `ValueError` for more features at once than it has."""
    own = sae.cfg
    form = Form(own.architecture(), own.apply_b_dec_to_input, passes, precision)
    if not isinstance(sae, TopKTrainingSAE):
        return form
    if own.k > own.d_sae:
        raise ValueError(f"k={own.k}: there are {own.d_sae} features")
    return Form(
        form.architecture,
        form.centred,
        passes,
        precision,
        own.k,
        own.rescale_acts_by_decoder_norm,
        own.aux_loss_coefficient,
    )


class Weights:
    """The weights of one SAE, and what a step needs of them more than once."""

    def __init__(self, own: Mapping[str, Tensor], precision: torch.dtype) -> None:
        self.own = own
        self.precision = precision
        self.encoder, self.decoder = own["W_enc"].to(precision), own["W_dec"].to(precision)
        self.norms: Float[Tensor, " f"] = own["W_dec"].norm(dim=1)
        self.directions = own["W_dec"] / self.norms.clamp(min=SMALLEST)[:, None]

    def residual(self, features: Float[Tensor, "n f"], target: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """What the features rebuild, minus `target`; float32."""
        return (features @ self.decoder).float() - target


def gradients(
    form: Form,
    weights: Weights,
    x: Float[Tensor, "n d"],
    dead: Bool[Tensor, " f"] | None,
    coefficients: Mapping[str, float],
    tokens: int,
) -> Stepped:
    """Of the mean over `tokens` tokens, of which `x` are some; `dead` is None where no feature is."""
    bias = weights.own["b_dec"]
    target = x - bias  # rebuilt without the bias: a mean that is large would cost bfloat16 its digits
    low = (target if form.centred else x).to(form.precision)
    if form.architecture == "topk":
        return _topk(form, weights, low, target, dead, tokens)
    step = _gated if form.architecture == "gated" else _standard
    return step(form, weights, low, target, coefficients["l1"], tokens)


def _standard(form: Form, weights: Weights, low: Tensor, target: Tensor, l1: float, tokens: int) -> Stepped:
    """ReLU with the features' L1 norm, weighted by the decoder's norms."""
    features = form.passes.rectified(low @ weights.encoder, weights.own["b_enc"])
    residual = weights.residual(features, target)
    back = (residual * (2 / tokens)).to(low.dtype)
    price = weights.norms * (l1 / tokens)
    passed = form.passes.masked(features, back @ weights.decoder.T, price)
    found = {
        "W_enc": (low.T @ passed.gradient).float(),
        "b_enc": passed.bias,
        "W_dec": _decoder(weights, features.T @ back, passed.total * (l1 / tokens)),
        "b_dec": _decoder_bias(form, weights, residual, passed.bias, tokens),
    }
    losses = _summed(mse_loss=_square(residual, tokens), l1_loss=passed.total @ weights.norms * (l1 / tokens))
    return found, losses, passed.fired


def _gated(form: Form, weights: Weights, low: Tensor, target: Tensor, l1: float, tokens: int) -> Stepped:
    """Gates and magnitudes from one product; gates alone rebuild the activations as well, and pay the L1 norm."""
    own = weights.own
    scale = own["r_mag"].exp()
    pre = low @ weights.encoder
    features, gates = form.passes.split(pre, own["b_gate"], scale, own["b_mag"])
    residual, by_gates = weights.residual(features, target), weights.residual(gates, target)
    back, gates_back = ((each * (2 / tokens)).to(low.dtype) for each in (residual, by_gates))
    price = weights.norms * (l1 / tokens)
    joined = form.passes.joined(
        pre,
        scale,
        features,
        gates,
        back @ weights.decoder.T,
        gates_back @ weights.decoder.T,
        price,
    )
    found = {
        "W_enc": (low.T @ joined.gradient).float(),
        "b_gate": joined.gate_bias,
        "b_mag": joined.bias,
        "r_mag": joined.scale * scale,
        "W_dec": _decoder(
            weights,
            (features.T @ back).float() + gates.T @ gates_back,
            joined.total * (l1 / tokens),
        ),
        "b_dec": _decoder_bias(
            form, weights, residual + by_gates, joined.bias * scale + joined.gate_bias, tokens
        ),
    }
    losses = _summed(
        mse_loss=_square(residual, tokens),
        l1_loss=joined.total @ weights.norms * (l1 / tokens),
        auxiliary_reconstruction_loss=_square(by_gates, tokens),
    )
    return found, losses, joined.fired


def _topk(
    form: Form, weights: Weights, low: Tensor, target: Tensor, dead: Tensor | None, tokens: int
) -> Stepped:
    """The k strongest features.

    Where the decoder's norms count, SAELens multiplies by them, chooses, and divides again: the norms decide the
    choice, and neither a value nor a gradient.
    """
    norms = weights.norms if form.rescaled else torch.ones_like(weights.norms)
    pre = torch.addmm(weights.own["b_enc"].to(low.dtype), low, weights.encoder)
    features = form.passes.strongest(pre, norms, form.k, None)
    residual = weights.residual(features, target)
    back = (residual * (2 / tokens)).to(low.dtype)
    passed = form.passes.masked(features, back @ weights.decoder.T, None)
    gradient, bias, decoder = passed.gradient, passed.bias, (features.T @ back).float()
    revival = torch.zeros((), device=low.device)
    if dead is not None:
        revival, more, more_bias, more_decoder = _revival(form, weights, pre, norms, residual, dead, tokens)
        gradient, bias, decoder = gradient + more, bias + more_bias, decoder + more_decoder
    found = {
        "W_enc": (low.T @ gradient).float(),
        "b_enc": bias,
        "W_dec": decoder,
        "b_dec": _decoder_bias(form, weights, residual, bias, tokens),
    }
    losses = _summed(mse_loss=_square(residual, tokens), auxiliary_reconstruction_loss=revival)
    return found, losses, passed.fired


def _revival(
    form: Form, weights: Weights, pre: Tensor, norms: Tensor, residual: Tensor, dead: Tensor, tokens: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What the strongest dead features leave of the residual: SAELens' `calculate_topk_aux_loss` without branches.

    The loss, and its gradient by `pre`, the encoder's bias and the decoder. SAELens takes k = min(d/2, dead
    features). Here k is always d/2, and a feature that is alive, which a rank beyond the number of dead ones
    picks, counts nothing.
    """
    most = residual.shape[-1] // 2
    share = form.revival * (dead.sum() / most).clamp(max=1.0)
    features = form.passes.strongest(pre, norms, most, dead)
    left = weights.residual(features, -residual)  # SAELens' residual has the other sign
    back = (left * (share * (2 / tokens))).to(pre.dtype)
    passed = form.passes.masked(features.abs(), back @ weights.decoder.T, None)
    return share * _square(left, tokens), passed.gradient, passed.bias, (features.T @ back).float()


def _decoder(weights: Weights, product: Tensor, price: Float[Tensor, " f"]) -> Float[Tensor, "f d"]:
    """The gradient of the decoder, with that of the norms that weigh the features."""
    return product.float() + weights.directions * price[:, None]


def _decoder_bias(
    form: Form, weights: Weights, residual: Tensor, encoded: Float[Tensor, " f"], tokens: int
) -> Float[Tensor, " d"]:
    """From what is rebuilt and, where the input is centred, from the input; `encoded` are sums by feature."""
    rebuilt = residual.sum(0) * (2 / tokens)
    return rebuilt - weights.own["W_enc"] @ encoded if form.centred else rebuilt


def _square(residual: Float[Tensor, "n d"], tokens: int) -> Tensor:
    return residual.square().sum() / tokens


def _summed(**losses: Tensor) -> Tensors:
    return {"loss": torch.stack(list(losses.values())).sum(0), **losses}
