"""Which device an accelerator means, on machines with every kind of GPU and without one."""

import pytest
import torch

from polymorph.errors import RequestError
from polymorph.training.numerics import device_of


def machine(monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("cuda", "mps", "auto"), [(True, False, "cuda"), (False, True, "cpu"), (False, False, "cpu")]
)
def test_auto_takes_a_gpu_that_has_float64(monkeypatch, cuda, mps, auto):
    machine(monkeypatch, cuda, mps)
    assert device_of("auto").type == auto
    assert device_of("cpu").type == "cpu"


@pytest.mark.parametrize(("mps", "reason"), [(True, "Apple's GPU has no float64"), (False, "no GPU here")])
def test_a_gpu_that_cannot_be_used_is_refused_in_one_line(monkeypatch, mps, reason):
    machine(monkeypatch, False, mps)
    with pytest.raises(RequestError, match=reason) as refused:
        device_of("gpu")
    assert "\n" not in str(refused.value)


def test_a_gpu_that_is_there_is_taken(monkeypatch):
    machine(monkeypatch, True, False)
    assert device_of("gpu").type == "cuda"
