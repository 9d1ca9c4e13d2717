"""Weights in half the bits: within their bound, half the bytes, shared memory still shared."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor, nn

from baselines.base import Batch
from techniques.base import TECHNIQUES, Context
from techniques.quantisation.half_weights import half_copy
from techniques.sizes import deployed_bytes

BF16 = TECHNIQUES.make("bf16-weights")
ROUNDING = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
TINY = {torch.bfloat16: 2.0**-134, torch.float16: 2.0**-25}  # half of the smallest number held

finite = st.floats(-100, 100, width=32)
matrices = arrays.arrays("float32", (4, 8), elements=finite).map(torch.from_numpy)


@given(matrices, st.sampled_from(list(ROUNDING)))
@example(torch.full((4, 8), 2.0**-149), torch.bfloat16)
@settings(max_examples=80)
def test_a_weight_is_off_by_its_rounding_at_most(w: Tensor, dtype: torch.dtype) -> None:
    layer = nn.Linear(8, 4)
    layer.weight = nn.Parameter(w)
    held = half_copy(layer, dtype).weight
    error = (held.float() - w).abs()
    assert held.dtype is dtype
    assert (error <= torch.clamp(w.abs() * ROUNDING[dtype], min=TINY[dtype])).all()


@given(matrices, matrices)
@settings(max_examples=80)
def test_a_product_is_off_by_what_three_roundings_allow(weight: Tensor, x: Tensor) -> None:
    layer = nn.Linear(8, 4)
    layer.weight = nn.Parameter(weight)
    context = Context("ctr", torch.device("cpu"), 0)
    with torch.inference_mode():
        exact, answer = layer(x), BF16.deploy(layer, context)(x)
        size = x.abs() @ weight.abs().T + layer.bias.abs()
    u = ROUNDING[torch.bfloat16]
    assert answer.dtype == torch.float32
    assert ((answer - exact).abs() <= (3 * u + 4 * u * u) * size + 1e-6).all()


def test_a_model_takes_half_the_bytes_but_for_its_norm(
    click_model: nn.Module, request_batch: Batch, context: Context
) -> None:
    served = BF16.deploy(click_model, context)
    norm = sum(p.nbytes for p in click_model.mlp[1].parameters())
    assert deployed_bytes(served) == (deployed_bytes(click_model) - norm) / 2 + norm
    exact, answer = click_model(*request_batch), served(*request_batch)
    assert 0 < (answer - exact).norm() / exact.norm() < 0.02


def test_norms_and_integers_are_shared_with_the_control(click_model: nn.Module) -> None:
    click_model.register_buffer("steps", torch.arange(3))
    narrow = half_copy(click_model, torch.bfloat16)
    assert narrow.mlp[1].weight is click_model.mlp[1].weight
    assert narrow.steps is click_model.steps
    assert click_model.mlp[0].weight.dtype is torch.float32


class Index(nn.Module):
    """A table, a view of all its rows but the last, and the table again as a tied weight."""

    def __init__(self) -> None:
        super().__init__()
        self.item = nn.Embedding(10, 4)
        self.register_buffer("index", self.item.weight.detach()[1:])
        self.out = nn.Linear(4, 10, bias=False)
        self.out.weight = self.item.weight


def test_a_view_of_a_table_takes_no_memory_of_its_own() -> None:
    model = Index()
    narrow = half_copy(model, torch.bfloat16)
    assert narrow.out.weight is narrow.item.weight
    assert narrow.index.untyped_storage()._cdata == narrow.item.weight.untyped_storage()._cdata
    assert torch.equal(narrow.index, model.index.bfloat16())
    assert deployed_bytes(narrow) == deployed_bytes(model) / 2


@pytest.mark.parametrize("first", ["int8-linear", "int8-embedding", "fp16-embedding"])
def test_what_other_techniques_left_in_their_own_form_stays(
    click_model: nn.Module, request_batch: Batch, context: Context, first: str
) -> None:
    compressed = TECHNIQUES.make(first).compress(click_model, context)
    exact, answer = compressed(*request_batch), BF16.deploy(compressed, context)(*request_batch)
    assert (answer - exact).norm() / exact.norm() < 0.03


def test_float16_is_for_cuda_alone(click_model: nn.Module) -> None:
    technique = TECHNIQUES.make("fp16-weights")
    assert technique.reason_against(click_model, "ctr", "cpu") == "needs the device cuda"
    assert technique.reason_against(click_model, "ctr", "cuda") is None


@pytest.mark.cuda
@pytest.mark.parametrize("name", ["bf16-weights", "fp16-weights"])
def test_serves_on_cuda(click_model: nn.Module, request_batch: Batch, name: str) -> None:
    device = torch.device("cuda")
    model = click_model.to(device)
    served = TECHNIQUES.make(name).deploy(model, Context("ctr", device, 0))
    exact, answer = (m(*(t.to(device) for t in request_batch)) for m in (model, served))
    assert answer.dtype == torch.float32
    assert (answer - exact).norm() / exact.norm() < 0.02
