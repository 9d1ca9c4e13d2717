"""Weights alone in 8 or 4 bits: within their bounds at every width, and as small as they say."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from baselines.base import Batch
from techniques.base import TECHNIQUES, Context
from techniques.quantisation.quantised_linear import weight_scale
from techniques.quantisation.weight_only import (
    GROUP,
    Int4WeightLinear,
    Int8WeightLinear,
    NarrowLinear,
)
from techniques.sizes import deployed_bytes

U = 2.0**-8  # bfloat16's rounding
FORMS = pytest.mark.parametrize("form", [Int8WeightLinear, Int4WeightLinear])
sizes, seeds = st.floats(1e-3, 1e3), st.integers(0, 999)


def _bound(x: Tensor, layer: nn.Linear, step: Tensor) -> Tensor:
    """What weights off by `step` [out, in] and four roundings to bfloat16 allow."""
    size = x.abs() @ (layer.weight.abs() + step).T
    return x.abs() @ step.T + 4 * U * size + 1e-5 * (1 + size)


@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 40), sizes, seeds)
@settings(max_examples=80)
@torch.inference_mode()
def test_int8_is_within_a_step_of_each_weight_at_every_width(
    fan_in: int, fan_out: int, rows: int, size: float, seed: int
) -> None:
    torch.manual_seed(seed)
    layer, x = nn.Linear(fan_in, fan_out), torch.randn(rows, fan_in)
    layer.weight *= size
    step = weight_scale(layer.weight)[:, None].expand(fan_out, fan_in)
    error = (Int8WeightLinear(layer)(x) - layer(x)).abs()
    assert (error <= _bound(x, layer, step)).all()


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 40), sizes, seeds)
@settings(max_examples=60)
@torch.inference_mode()
def test_int4_is_within_half_a_step_of_its_group(
    groups: int, blocks: int, rows: int, size: float, seed: int
) -> None:
    torch.manual_seed(seed)
    layer, x = nn.Linear(32 * groups, 16 * blocks), torch.randn(rows, 32 * groups)
    layer.weight *= size
    parts = layer.weight.unflatten(1, (-1, GROUP))
    extent = (parts.amax(2) - parts.amin(2)).repeat_interleave(GROUP, dim=1)
    step = extent / 30 + U * (extent + parts.abs().amax(2).repeat_interleave(GROUP, dim=1))
    error = (Int4WeightLinear(layer)(x) - layer(x)).abs()
    assert (error <= _bound(x, layer, step)).all()


@torch.inference_mode()
def test_few_rows_and_many_are_answered_alike() -> None:
    layer, x = Int8WeightLinear(nn.Linear(64, 48)), torch.randn(200, 64)
    torch.testing.assert_close(layer(x)[:5], layer(x[:5]), rtol=2 * U, atol=0.01)


@FORMS
@pytest.mark.parametrize("shape", [(64,), (0, 64), (1, 64), (2, 3, 64)])
@torch.inference_mode()
def test_takes_inputs_of_any_shape_and_layout(form: type[NarrowLinear], shape: tuple[int]) -> None:
    layer, x = nn.Linear(64, 32, bias=False), torch.randn(*shape[:-1], 128)[..., ::2]
    answer = form(layer)(x)
    assert (answer.shape, answer.dtype) == ((*shape[:-1], 32), torch.float32)
    torch.testing.assert_close(answer, layer(x), rtol=0.1, atol=0.3)


@FORMS
@torch.inference_mode()
def test_weights_of_zero_stay_zero(form: type[NarrowLinear]) -> None:
    layer = nn.Linear(64, 32)
    nn.init.zeros_(layer.weight)
    assert torch.equal(form(layer)(torch.randn(3, 64)), layer.bias.expand(3, 32))


@pytest.mark.parametrize(
    ("name", "bytes_"),
    [("int8-weight-only", 128 * 128 + 2 * 128), ("int4-weight-only", 128 * 128 * 5 // 8)],
)
def test_a_model_errs_little_and_is_as_small_as_said(
    click_model: nn.Module, request_batch: Batch, context: Context, name: str, bytes_: int
) -> None:
    compressed = TECHNIQUES.make(name).compress(click_model, context)
    exact, answer = click_model(*request_batch), compressed(*request_batch)
    limit = 0.01 if "8" in name else 0.1
    assert 0 < (answer - exact).norm() / exact.norm() < limit
    assert deployed_bytes(compressed.mlp[4]) == bytes_ + 4 * 128  # and the bias
    assert compressed.embedding.weight is click_model.embedding.weight
    assert compressed.mlp[4].bias is click_model.mlp[4].bias
    assert type(compressed.head) is nn.Linear


def test_layers_that_the_int4_kernel_does_not_take_stay(context: Context) -> None:
    technique = TECHNIQUES.make("int4-weight-only")
    odd = nn.Sequential(nn.Linear(80, 64), nn.Linear(64, 72))
    even = nn.Sequential(nn.Linear(96, 64), *odd)
    compressed = technique.compress(even, context)
    assert [type(m) for m in compressed] == [Int4WeightLinear, nn.Linear, nn.Linear]
    assert technique.reason_against(even, "ctr", "cpu") is None
    assert technique.reason_against(odd, "ctr", "cpu") == (
        "finds no linear layer at least 64 wide whose inputs are a multiple of 32 and outputs of 16"
    )
    assert technique.reason_against(even, "ctr", "cuda") == "needs the device cpu"


@pytest.mark.cuda
@torch.inference_mode()
def test_int8_on_cuda_is_that_on_the_cpu() -> None:
    layer, x = Int8WeightLinear(nn.Linear(64, 48)), torch.randn(7, 64)
    torch.testing.assert_close(layer.cuda()(x.cuda()).cpu(), layer.cpu()(x), rtol=2 * U, atol=0.01)
