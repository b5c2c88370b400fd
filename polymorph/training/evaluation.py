"""How good every member is on the evaluation distributions of its task."""

from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor

from polymorph.tasks.task import IGNORED, Inputs
from polymorph.training.loss import head_accuracies, head_losses
from polymorph.training.module import StackModule


@torch.no_grad()
def evaluate(module: StackModule, sequences: int) -> dict[str, Tensor]:
    """`<distribution>/loss/<head>` and `<distribution>/accuracy/<head>` of every member, float64 [members].

    Means are over tokens. Nothing of the module is changed; the sequences are a stream of their own, which
    training and probe never meet.
    """
    metrics: dict[str, Tensor] = {}
    for distribution in module.task.distributions:
        sums: dict[str, Tensor] = {}
        tokens = 0
        for step, size in enumerate(_sizes(sequences, module.task.evaluated_at_once)):
            batch = module.task.evaluation(distribution, step, size, module.device)
            inputs = module.inputs(batch).expand(module.stack.size)
            n = _tokens(inputs)
            for name, value in _measured(module.logits(inputs), inputs.labels).items():
                sums[name] = sums.get(name, 0.0) + n * value
            tokens += n
        metrics |= {f"{distribution}/{name}": total / tokens for name, total in sums.items()}
    return metrics


def least_accuracy(metrics: Mapping[str, Tensor]) -> Tensor:
    """The least accuracy over heads and distributions, [members]; NaN counts as 0."""
    accuracies = [value.nan_to_num(0.0) for key, value in metrics.items() if "/accuracy/" in key]
    return torch.stack(accuracies).min(0).values


def mean_loss(metrics: Mapping[str, Tensor]) -> Tensor:
    """The sum over heads of the mean over distributions of the cross-entropy, [members], in nats."""
    by_head: dict[str, list[Tensor]] = defaultdict(list)
    for key, value in metrics.items():
        _, kind, head = key.split("/")
        if kind == "loss":
            by_head[head].append(value)
    return torch.stack([torch.stack(own).mean(0) for own in by_head.values()]).sum(0)


def _sizes(sequences: int, at_once: int) -> list[int]:
    return [min(at_once, sequences - first) for first in range(0, sequences, at_once)]


def _tokens(inputs: Inputs) -> int:
    """Of one member; all members are given the same."""
    return int((next(iter(inputs.labels.values()))[0] != IGNORED).sum())


def _measured(logits: Mapping[str, Tensor], labels: Mapping[str, Tensor]) -> dict[str, Tensor]:
    by_kind = {"loss": head_losses(logits, labels), "accuracy": head_accuracies(logits, labels)}
    return {f"{kind}/{head}": value.double() for kind, own in by_kind.items() for head, value in own.items()}
