"""float8: where it applies, and why not elsewhere; what it gives is for a device that has it."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import nn

from baselines.base import Batch
from techniques.base import TECHNIQUES, Context

FP8 = TECHNIQUES.make("fp8")


def _device(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)


@pytest.mark.parametrize(
    ("capability", "reason"),
    [
        ((8, 0), "needs compute capability 8.9, and the device has 8.0"),
        ((8, 9), None),
        ((9, 0), None),
    ],
)
def test_needs_a_device_with_float8(
    click_model: nn.Module,
    monkeypatch: pytest.MonkeyPatch,
    capability: tuple[int, int],
    reason: str | None,
) -> None:
    _device(monkeypatch, capability)
    assert FP8.reason_against(click_model, "ctr", "cuda") == reason
    assert FP8.reason_against(click_model, "ctr", "cpu") == "needs the device cuda"


def test_needs_torchao(click_model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    reason = FP8.reason_against(click_model, "ctr", "cuda")
    assert reason == "needs the package torchao, which is not installed"


def test_needs_layers_that_the_kernels_take(monkeypatch: pytest.MonkeyPatch) -> None:
    _device(monkeypatch, (9, 0))
    for odd in (nn.Linear(15, 16), nn.Linear(16, 15)):
        reason = FP8.reason_against(odd, "ctr", "cuda")
        assert reason == "finds no linear layer whose inputs and outputs are multiples of 16"
    assert FP8.reason_against(nn.Linear(16, 32), "ctr", "cuda") is None


@pytest.mark.cuda
def test_serves_on_cuda(click_model: nn.Module, request_batch: Batch) -> None:
    device = torch.device("cuda")
    model = click_model.to(device)
    if reason := FP8.reason_against(model, "ctr", "cuda"):
        pytest.skip(reason)
    weight = model.mlp[4].weight.clone()
    served = FP8.deploy(model, Context("ctr", device, 0))
    with torch.inference_mode():
        exact, answer = (m(*(t.to(device) for t in request_batch)) for m in (model, served))
    assert 0 < (answer - exact).norm() / exact.norm() < 0.1
    assert torch.equal(model.mlp[4].weight, weight)
    assert type(served.head.weight) is nn.Parameter
