"""What an opened model is: its architecture measured, its answers kept, and in what two configurations differ."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from polymorph.errors import RequestError
from polymorph.models.causal_lm import HookedCausalLM, residual_sites
from polymorph.models.pretrained.config import PretrainedArchitecture
from polymorph.models.pretrained.reference import first_line


@torch.no_grad()
def describe(model: PreTrainedModel) -> tuple[PretrainedArchitecture, list[float]]:
    """What is stated of the architecture, measured on the model, and its answers on a few tokens.

    `RequestError` for one that sees the tokens after, that the hooks change, or that they do not fit. The model is
    taken over by the hooks: nothing else can be done with it afterwards.
    """
    read = _few_tokens(model)
    plain = model(read).logits.float()
    changed = read.clone()
    changed[:, -1] = (changed[:, -1] + 1) % int(model.config.vocab_size)
    if not _close(model(changed).logits.float()[:, :-1], plain[:, :-1]):
        raise RequestError(f"a {model.config.model_type} model that sees the tokens after is not causal")
    try:
        hooked = HookedCausalLM(model)
        same = _close(hooked(read)["tok"], plain)
    except Exception as error:  # the bridge has an adapter for each architecture, and errors of their own
        raise RequestError(
            f"TransformerLens cannot hook this {model.config.model_type}: {first_line(error)}"
        ) from error
    if not same:
        raise RequestError(
            f"under TransformerLens' hooks this {model.config.model_type} computes something else"
        )
    own = hooked.bridge.cfg
    sites = residual_sites(hooked, int(own.n_layers))
    architecture = PretrainedArchitecture(
        model_type=str(model.config.model_type),
        n_layers=int(own.n_layers),
        d_model=int(own.d_model),
        d_vocab=int(model.config.vocab_size),
        n_ctx=int(own.n_ctx),
        norm=str(own.normalization_type),
        mean_free=all(_is_mean_free(hooked, site, read, plain) for site in sites),
        sites=sites,
    )
    return architecture, _answers(plain)


def check_answers(model: PreTrainedModel, answers: Sequence[float], name: str) -> None:
    """`RequestError` unless the model answers as when it was imported: a changed config changes no weight."""
    with torch.no_grad():
        found = _answers(model(_few_tokens(model)).logits.float())
    if not _close(torch.tensor(found), torch.tensor(list(answers))):
        raise RequestError(
            f"{name} answers otherwise than when it was imported: its configuration has changed"
        )


def _few_tokens(model: PreTrainedModel) -> Tensor:
    vocabulary = int(model.config.vocab_size)
    longest = getattr(model.config, "max_position_embeddings", None) or 12
    return (torch.arange(1, 1 + min(12, longest)) * 7919 % vocabulary)[None]


def _answers(logits: Tensor) -> list[float]:
    """A few logits of the last tokens, which all earlier ones decide."""
    return [float(value) for value in logits[0, -4:, :: max(1, logits.shape[-1] // 8)].flatten()]


def _is_mean_free(hooked: HookedCausalLM, site: str, read: Tensor, plain: Tensor) -> bool:
    def shifted(values: Tensor, hook: Any) -> Tensor:
        return values + values.std() * torch.linspace(-3, 3, values.shape[1])[:, None]

    return _close(hooked.run_with_hooks(read, fwd_hooks=[(site, shifted)])["tok"], plain)


def _close(found: Tensor, wanted: Tensor) -> bool:
    """To a thousandth of the spread: far above rounding, far below any other computation."""
    return bool((found - wanted).abs().max() <= 1e-3 * wanted.std())


NOT_DECIDING = (
    *(
        "_name_or_path",
        "transformers_version",
        "transformers_weights",
        "architectures",
        "dtype",
        "torch_dtype",
    ),
    *("use_cache", "bos_token_id", "eos_token_id", "pad_token_id", "_attn_implementation_autoset"),
)
"""Of a configuration, what two members may differ in."""


def differing(first: Any, other: Any) -> list[str]:
    """Each part in which two configurations of `transformers` differ, with both values."""
    mine, theirs = first.to_dict(), other.to_dict()
    keys = sorted((mine.keys() | theirs.keys()) - set(NOT_DECIDING))
    return [
        f"{key}: {mine.get(key)} and {theirs.get(key)}" for key in keys if mine.get(key) != theirs.get(key)
    ]
