"""Quantised linear layers: within their bounds, those that were asked for, the rest as it was."""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from baselines.base import Batch
from baselines.errors import LeanRecError
from techniques.base import TECHNIQUES, Context
from techniques.quantisation.quantised_linear import (
    LEVELS,
    QuantisedLinear,
    quantise_linear,
    weight_scale,
)

LEAST_STEP = 6.1e-5  # of an input: PyTorch's SMALL_SCALE_THRESHOLD


def test_quantised_linear_layers_err_little(
    click_model: nn.Module, request_batch: Batch, context: Context
) -> None:
    compressed = TECHNIQUES.make("int8-linear").compress(click_model, context)
    exact, answer = click_model(*request_batch), compressed(*request_batch)
    assert 0 < (answer - exact).norm() / exact.norm() < 0.03


@given(
    rows=st.integers(1, 9), fan_in=st.integers(1, 70), fan_out=st.integers(1, 40),
    low=st.floats(-100, 100), spread=st.floats(0, 100), weight=st.sampled_from([-2.0, 0.0, 2.0]),
    seed=st.integers(0, 999),
)  # fmt: skip
@example(rows=1, fan_in=4, fan_out=1, low=0.0, spread=3e-5, weight=-2.0, seed=0)  # a least step
@settings(deadline=None, max_examples=100)
@torch.inference_mode()
def test_an_answer_is_off_by_half_a_step_of_each_number(
    rows: int, fan_in: int, fan_out: int, low: float, spread: float, weight: float, seed: int
) -> None:
    """Also where all inputs and weights are as large as they get, and sums in 16 bits overflow."""
    torch.manual_seed(seed)
    layer, x = nn.Linear(fan_in, fan_out), low + spread * torch.rand(rows, fan_in)
    layer.weight += weight
    step = ((x.max().clamp(min=0) - x.min().clamp(max=0)) / LEVELS).clamp(min=LEAST_STEP)
    # The zero point is rounded, too: at the ends of the range that costs another half step.
    bound = step * layer.weight.abs().sum(1)
    bound = bound + weight_scale(layer.weight) / 2 * (x.abs() + step).sum(1, keepdim=True)
    error = (quantise_linear(layer)(x) - layer(x)).abs()
    assert (error <= bound + 1e-4 * (1 + bound)).all()


def test_only_layers_wide_on_both_sides_are_quantised(
    click_model: nn.Module, context: Context
) -> None:
    compressed = TECHNIQUES.make("int8-linear(min_width=100)").compress(click_model, context)
    kinds = {name: type(m) for name, m in compressed.named_modules() if "." in name or name}
    assert kinds["mlp.4"] is QuantisedLinear  # 128 × 128
    assert {kinds[name] for name in ("mlp.0", "cross", "head")} == {nn.Linear}


def test_untouched_weights_are_shared_with_the_control(
    click_model: nn.Module, context: Context
) -> None:
    compressed = TECHNIQUES.make("int8-linear").compress(click_model, context)
    assert compressed.embedding.weight is click_model.embedding.weight
    assert compressed.embedding is not click_model.embedding


def test_a_model_without_wide_layers_is_refused_with_the_width(click_model: nn.Module) -> None:
    technique = TECHNIQUES.make("int8-linear(min_width=500)")
    reason = technique.reason_against(click_model, "ctr", "cpu")
    assert reason == "finds no linear layer at least 500 wide"
    assert technique.reason_against(click_model, "ctr", "cuda") == "needs the device cpu"
    assert TECHNIQUES.make("int8-linear").reason_against(click_model, "ctr", "cpu") is None


def test_quantising_warns_of_nothing(click_model: nn.Module, context: Context) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TECHNIQUES.make("int8-linear").compress(click_model, context)


@pytest.mark.parametrize("spec", ["int8-linear(min_width=0)", 'int8-linear(min_width="wide")'])
def test_a_width_that_makes_no_sense_is_an_error(spec: str) -> None:
    with pytest.raises(LeanRecError, match="min_width"):
        TECHNIQUES.make(spec)
