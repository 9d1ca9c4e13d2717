"""Static int8: within its bound, saturating where it says, ranges from requests alone."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor, nn

from baselines.base import Batch
from baselines.errors import LeanRecError
from techniques.base import TECHNIQUES, Context
from techniques.quantisation.calibration import input_ranges
from techniques.quantisation.quantised_linear import LEVELS, StaticLinear, weight_scale
from techniques.sizes import deployed_bytes

TECHNIQUE = TECHNIQUES.make("int8-static")
CPU = torch.device("cpu")

inside = arrays.arrays("float32", (5, 8), elements=st.floats(-3, 9, width=32)).map(torch.from_numpy)
weights = arrays.arrays("float32", (6, 8), elements=st.floats(-2, 2, width=32))


def _layer(weight: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight = nn.Parameter(weight)
    return layer


@given(inside, weights.map(torch.from_numpy))
@settings(max_examples=80)
@torch.inference_mode()
def test_inside_the_range_an_answer_is_off_by_half_a_step_of_each_number(
    x: Tensor, weight: Tensor
) -> None:
    layer = _layer(weight)
    step, steps = 12 / LEVELS, weight_scale(weight)
    error = (StaticLinear(layer, -3, 9)(x) - layer(x)).abs()
    # The zero point is rounded, too: at the ends of the range that costs another half step.
    bound = step * weight.abs().sum(1) + steps / 2 * (x.abs() + step).sum(1, keepdim=True)
    assert (error <= bound + 1e-4).all()


@pytest.mark.parametrize(("given_", "counts_as"), [(-30.0, -3.0), (12.0, 12.0), (1e6, 21.1)])
def test_beyond_the_range_an_input_counts_as_the_nearest_number_that_8_bits_hold(
    given_: float, counts_as: float
) -> None:
    layer = _layer(torch.eye(8))
    static = StaticLinear(layer, -3, 9)
    x, near = torch.full((1, 8), given_), torch.full((1, 8), counts_as)
    torch.testing.assert_close(static(x), layer(near), rtol=0.01, atol=0.06)


def test_an_answer_does_not_depend_on_its_batch(click_model: nn.Module, context: Context) -> None:
    served = TECHNIQUE.deploy(click_model, context)
    (ids,) = context.examples[0]
    linear = served.mlp[4]
    x = served.mlp[:4](served.embedding(ids).flatten(1))
    assert type(linear) is StaticLinear
    assert torch.equal(linear(x)[:1], linear(x[:1]))
    assert torch.equal(linear(x), linear(torch.cat((x, 100 * x)))[: len(x)])


def test_a_served_model_errs_little_and_its_layers_are_a_quarter_as_large(
    click_model: nn.Module, request_batch: Batch, context: Context
) -> None:
    served = TECHNIQUE.deploy(click_model, context)
    exact, answer = click_model(*request_batch), served(*request_batch)
    assert 0 < (answer - exact).norm() / exact.norm() < 0.03
    ratio = deployed_bytes(click_model.mlp[4]) / deployed_bytes(served.mlp[4])
    assert 3.4 < ratio < 4
    assert served.embedding.weight is click_model.embedding.weight
    assert torch.equal(copy.deepcopy(served)(*request_batch), answer)


def test_ranges_are_those_of_the_examples_and_hold_zero(
    click_model: nn.Module, context: Context
) -> None:
    ranges = input_ranges(click_model, context.examples, CPU)
    x = click_model.embedding(context.examples[0][0]).flatten(1)
    assert ranges[click_model.mlp[0]] == (x.min().item(), x.max().item())
    assert ranges[click_model.mlp[4]][0] == 0.0  # after a ReLU
    assert all(not module._forward_pre_hooks for module in click_model.modules())


def test_a_layer_that_no_example_reaches_stays(context: Context) -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.spare, self.silent = (nn.Linear(64, 64) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x) + self.silent(0 * x)

    model = Unused()
    examples = (torch.randn(5, 64),), (torch.randn(0, 64),)
    served = TECHNIQUE.deploy(model, Context("ctr", CPU, 0, examples))
    kinds = [type(m) for m in (served.used, served.spare, served.silent)]
    assert kinds == [StaticLinear, nn.Linear, nn.Linear]


def test_calibration_without_examples_is_an_error(click_model: nn.Module) -> None:
    with pytest.raises(LeanRecError, match="no example requests"):
        TECHNIQUE.deploy(click_model, Context("ctr", CPU, 0))


def test_says_how_many_requests_the_ranges_rest_on(
    click_model: nn.Module, context: Context
) -> None:
    told = TECHNIQUE.explain(click_model, context)
    assert told.endswith(
        "layers 64 and 128 wide; the ranges of their inputs are those of 64 requests"
    )


def test_a_torch_without_the_kernels_is_refused(
    click_model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert TECHNIQUE.reason_against(click_model, "ctr", "cpu") is None
    assert TECHNIQUE.reason_against(click_model, "ctr", "cuda") == "needs the device cpu"
    engines = type("Engines", (), {"supported_engines": ["qnnpack"], "engine": "qnnpack"})
    monkeypatch.setattr(torch.backends, "quantized", engines)
    assert TECHNIQUE.reason_against(click_model, "ctr", "cpu") == "needs a torch built with FBGEMM"
