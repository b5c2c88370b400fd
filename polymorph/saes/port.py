"""An SAE carried over to another member: the maps between the members folded into its weights."""

import copy
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

import torch
from sae_lens import SAE, TrainingSAE
from sae_lens.registry import SAE_CLASS_REGISTRY
from torch import Tensor

from polymorph.alignment.maps import Map

Exact = Literal["any map", "isometries", "never"]

EXACT: Mapping[str, Exact] = MappingProxyType(
    {
        "standard": "any map",
        "gated": "any map",
        "topk": "any map",
        "abstopk": "any map",
        "jumprelu": "any map",  # and so batchtopk and matryoshka_batchtopk, which are saved as jumprelu
        "matching_pursuit": "isometries",  # its encoder is its decoder, so only a transpose can undo the map
        "temporal": "never",  # attention over the tokens before
        "transcoder": "never",  # reads one site and writes another: one map cannot stand for both
        "skip_transcoder": "never",
        "jumprelu_transcoder": "never",
        "jumprelu_skip_transcoder": "never",
    }
)
"""For which maps `port_sae` is exact, by the architecture of SAELens' inference form; for the rest it refuses."""

ISOMETRIC_WITHIN = 1e-5  # largest entry of W Wᵀ − I taken for rounding: that of rotations in float32


def exact_for(architecture: str) -> Exact:
    """For which maps an architecture can be ported; never, where it is not known."""
    return EXACT.get(architecture, "never")


def port_sae(
    sae: SAE[Any],
    there: Map,
    back: Map | None = None,
    *,
    provenance: Mapping[str, Any] | None = None,
) -> SAE[Any]:
    """The SAE of member A as an SAE of member B: a new one of the same class, which needs no map when it runs.

    `there` maps activations of B to those of A, `back` those of A to B; it is `there.inv` if not given. They may
    be any affine maps, also between different widths, and need not undo one another:

        ported.encode(x) = sae.encode(there(x))        ported.decode(f) = back(sae.decode(f))

    So features keep their numbers, activations and thresholds, and under an isometry the explained variance too.
    Computed in float64 and rounded to the dtype of each weight; in float32, where the mean of the activations is
    hundreds of times their spread, that rounding changes which features are active on some tokens. The bias of
    the decoder is no longer subtracted from the input: it is in the biases of the encoder. The decoder norms of
    `rescale_acts_by_decoder_norm` are in the weights, because a map changes norms. Hooks are not carried over.

    A matching pursuit takes only a `there` that is measured to be an isometry (W Wᵀ = I within
    `ISOMETRIC_WITHIN`) and a `back` that is its inverse.

    `cfg.metadata.ported` is {"map", "back", "provenance"} in plain JSON, and "before" if the SAE was ported before.

    Raises ValueError for what cannot be exact: an architecture or a normalisation that does not commute with the
    map, a training form, a missing inverse, widths that do not fit, leading axes, values that are not finite.
    """
    _check_sae(sae)
    _check_map("there", there, (None, sae.cfg.d_in))
    if back is not None:
        _check_map("back", back, (sae.cfg.d_in, there.weight.shape[0]))
    way_back = "inverse" if back is None else back.name
    record = {"map": there.name, "back": way_back, "provenance": _plain(provenance or {})}
    if sae.cfg.metadata.ported is not None:
        record["before"] = copy.deepcopy(sae.cfg.metadata.ported)
    exact_there = there.to("cpu").to(torch.float64)
    exact_back = _inverse(there) if back is None else back.to("cpu").to(torch.float64)
    weights = {name: values.detach().to("cpu", torch.float64) for name, values in sae.named_parameters()}
    tied = exact_for(sae.cfg.architecture()) == "isometries"
    fold = _fold_tied if tied else _fold
    ported = _with_weights(sae, fold(sae.cfg, weights, exact_there, exact_back))
    ported.cfg.d_in = there.weight.shape[0]
    ported.cfg.apply_b_dec_to_input = tied
    if hasattr(ported.cfg, "rescale_acts_by_decoder_norm"):
        ported.cfg.rescale_acts_by_decoder_norm = False
    ported.cfg.metadata.ported = record
    return ported


def _fold(cfg: Any, weights: Mapping[str, Tensor], there: Map, back: Map) -> dict[str, Tensor]:
    """The changed weights of an encoder that is affine up to what acts on its pre-activations alone."""
    W_enc, W_dec, b_dec = (weights[name] for name in ("W_enc", "W_dec", "b_dec"))
    biases = {name: weights[name] for name in ("b_enc", "b_gate", "b_mag") if name in weights}
    if getattr(cfg, "rescale_acts_by_decoder_norm", False):
        norms = W_dec.norm(dim=-1)
        W_enc, W_dec = W_enc * norms, W_dec / norms.unsqueeze(-1)
        biases = {name: bias * norms for name, bias in biases.items()}
    shift = (_of_zero(there) - b_dec * cfg.apply_b_dec_to_input) @ W_enc
    # The magnitudes of a gated SAE use W_enc · exp(r_mag).
    gains = {"b_mag": weights["r_mag"].exp()} if "r_mag" in weights else {}
    return {
        "W_enc": there.weight @ W_enc,
        "W_dec": W_dec @ back.weight,
        "b_dec": _row(back, b_dec),
        **{name: bias + shift * gains.get(name, 1.0) for name, bias in biases.items()},
    }


def _fold_tied(cfg: Any, weights: Mapping[str, Tensor], there: Map, back: Map) -> dict[str, Tensor]:
    """The changed weights of a matching pursuit, which compares residuals with the rows of its decoder."""
    round_trip = there @ back  # of A: the identity only if both have the same width
    size = 1 + float(torch.cat([there.mean_in, there.mean_out]).abs().max())
    off = {
        "there from an isometry": _off_identity(there.weight @ there.weight.mT),
        "back from its inverse": _off_identity(round_trip.weight),
        "their shifts from undoing one another": float(_of_zero(round_trip).abs().max()) / size,
    }
    wrong = ", ".join(f"{what} by {by:.1e}" for what, by in off.items() if by > ISOMETRIC_WITHIN)
    if wrong:
        raise ValueError(f"a matching_pursuit SAE needs an isometry and its inverse: off is {wrong}")
    # Without apply_b_dec_to_input it has no bias on either side, and only that of the map is left.
    b_dec = weights["b_dec"] * cfg.apply_b_dec_to_input
    return {"W_dec": weights["W_dec"] @ back.weight, "b_dec": _row(back, b_dec)}


def _off_identity(product: Tensor) -> float:
    return float((product - torch.eye(len(product), dtype=product.dtype)).abs().max())


def _row(map_: Map, row: Tensor) -> Tensor:
    return map_(row.unsqueeze(0)).squeeze(0)


def _of_zero(map_: Map) -> Tensor:
    return _row(map_, torch.zeros_like(map_.mean_in))


def _inverse(there: Map) -> Map:
    try:
        _ = there.inv  # in its own dtype: in float64 the rounding of a float32 map would count as rank
    except ValueError as missing:
        raise ValueError(f"{missing}; give `back`, from the activations of A to those of B") from missing
    return there.to("cpu").to(torch.float64).inv


def _with_weights(sae: SAE[Any], folded: Mapping[str, Tensor]) -> SAE[Any]:
    ported = copy.deepcopy(sae)
    ported.reset_hooks(including_permanent=True)
    for name, values in folded.items():
        parameter = ported.get_parameter(name)
        parameter.data = values.to(parameter)
    _check_finite("the ported SAE", dict(ported.named_parameters()))
    return ported


def _check_sae(sae: SAE[Any]) -> None:
    if isinstance(sae, TrainingSAE):
        raise ValueError(  # noqa: TRY004
            f"{type(sae).__name__} is a training form: write it with save_inference_model, read it with "
            "SAE.load_from_disk and port that"
        )
    architecture = sae.cfg.architecture()
    if exact_for(architecture) == "never":
        raise ValueError(f"a {architecture} SAE cannot be ported: no change of its weights stands for a map")
    if type(sae) is not SAE_CLASS_REGISTRY[architecture][0]:
        raise ValueError(
            f"{type(sae).__name__} is not SAELens' own {architecture} SAE: what it computes is not known"
        )
    if sae.cfg.normalize_activations != "none":
        raise ValueError(
            f"normalize_activations is {sae.cfg.normalize_activations!r}: only an SAE on plain activations can be "
            "ported; fold the normalisation first where SAELens can (expected_average_only_in, covariance_whitening)"
        )
    if sae.cfg.reshape_activations != "none" or sae.hook_z_reshaping_mode:
        raise ValueError("an SAE that reshapes its activations (hook_z) cannot be ported")
    _check_finite("the SAE", dict(sae.named_parameters()))


def _check_map(role: str, given: Map, widths: tuple[int | None, int]) -> None:
    shape = tuple(given.weight.shape)
    if len(shape) != 2:
        raise ValueError(f"{role} is a stack of maps {shape}: index it to have one [d_in d_out]")
    if any(right not in (None, width) for right, width in zip(widths, shape, strict=True)):
        wanted = " to ".join("any" if width is None else str(width) for width in widths)
        raise ValueError(f"{role} maps {shape[0]} to {shape[1]} dimensions; wanted is {wanted}")
    _check_finite(role, {key: getattr(given, key) for key in ("weight", "mean_in", "mean_out")})


def _check_finite(what: str, tensors: Mapping[str, Tensor]) -> None:
    wrong = sorted(name for name, values in tensors.items() if not bool(values.isfinite().all()))
    if wrong:
        raise ValueError(f"{what} has values that are not finite: {', '.join(wrong)}")


def _plain(provenance: Mapping[str, Any]) -> dict[str, Any]:
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(provenance), allow_nan=False))
    except (TypeError, ValueError) as wrong:
        raise ValueError(f"provenance must be plain JSON: {wrong}") from wrong
    return plain
