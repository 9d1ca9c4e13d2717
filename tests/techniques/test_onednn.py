"""oneDNN's product: that of float32, for every shape and layout, with the weights it was given."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from baselines.base import Batch
from techniques.base import TECHNIQUES, Context
from techniques.precision.onednn import WORK, OneDNNLinear

TECHNIQUE = TECHNIQUES.make("onednn-fp32")
widths = st.integers(1, 70)


def _is_float32s(product: Tensor, x: Tensor, layer: nn.Linear) -> None:
    """Within what float32 sums in any order allow: n·2⁻²⁴ of the sum of sizes."""
    weight, bias = layer.weight.double(), None if layer.bias is None else layer.bias.double()
    exact = functional.linear(x.double(), weight, bias)
    size = functional.linear(x.abs().double(), weight.abs(), None if bias is None else bias.abs())
    assert product.dtype == torch.float32
    assert ((product - exact).abs() <= (weight.shape[1] + 2) * 2.0**-24 * size + 1e-30).all()


@given(widths, widths, st.booleans(), st.sampled_from(["whole", "columns", "turned"]))
@settings(max_examples=40)
@torch.inference_mode()
def test_a_large_product_is_float32s(fan_in: int, fan_out: int, bias: bool, layout: str) -> None:
    rows = -(-WORK // (fan_in * fan_out))
    if layout == "turned":
        x = torch.randn(fan_in, rows).T
    else:
        x = torch.randn(rows, 2 * fan_in)[:, ::2] if layout == "columns" else None
        x = torch.randn(rows, fan_in) if x is None else x
    layer = nn.Linear(fan_in, fan_out, bias)
    _is_float32s(OneDNNLinear(layer)(x), x, layer)


@pytest.mark.parametrize("shape", [(0, 64), (1, 64), (3, 5, 64), (64, 128, 64), (64,)])
@torch.inference_mode()
def test_takes_inputs_of_any_shape(shape: tuple[int, ...]) -> None:
    layer, x = nn.Linear(64, 32), torch.randn(shape)
    answer = OneDNNLinear(layer)(x)
    assert answer.shape == (*shape[:-1], 32)
    _is_float32s(answer, x, layer)


def test_weights_are_the_controls_own(click_model: nn.Module, context: Context) -> None:
    served = TECHNIQUE.deploy(click_model, context)
    assert type(served.cross) is OneDNNLinear
    assert served.cross.weight is click_model.cross.weight


@torch.inference_mode()
def test_autocast_still_decides_the_precision(
    click_model: nn.Module, request_batch: Batch, context: Context
) -> None:
    large = tuple(column.repeat(40, 1) for column in request_batch)
    bf16 = TECHNIQUES.make("bf16")
    served = bf16.deploy(TECHNIQUE.deploy(click_model, context), context)
    torch.testing.assert_close(served(*large), bf16.deploy(click_model, context)(*large))


def test_needs_linear_layers_and_a_cpu(click_model: nn.Module) -> None:
    assert TECHNIQUE.reason_against(click_model, "ctr", "cpu") is None
    assert TECHNIQUE.reason_against(click_model, "ctr", "cuda") == "needs the device cpu"
    reason = TECHNIQUE.reason_against(nn.Embedding(3, 2), "ctr", "cpu")
    assert reason == "finds no Linear in the model"


def test_a_torch_without_onednn_is_refused(
    click_model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    reason = TECHNIQUE.reason_against(click_model, "ctr", "cpu")
    assert reason == "needs a torch built with oneDNN"
