"""Quantised layers: within their bounds, as small as they say, the same call as before."""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import nn

from baselines.base import Batch
from baselines.errors import LeanRecError
from techniques.base import TECHNIQUES, Context
from techniques.quantised_embedding import QuantisedEmbedding
from techniques.quantised_linear import QuantisedLinear
from techniques.sizes import deployed_bytes

finite = st.floats(-100, 100, width=32)
tables = arrays.arrays("float32", st.tuples(st.integers(1, 6), st.integers(1, 9)), elements=finite)


@given(tables)
@settings(deadline=None, max_examples=60)
def test_a_weight_comes_back_within_half_its_rows_scale(table) -> None:
    weight = torch.from_numpy(table)
    looked_up = QuantisedEmbedding(weight)(torch.arange(len(weight)))
    scale = (weight.amax(1) - weight.amin(1)) / 255
    rounding = 1e-5 * (1 + weight.abs().amax(1))  # of float32 arithmetic
    assert ((looked_up - weight).abs().amax(1) <= scale / 2 + rounding).all()


@pytest.mark.parametrize("shape", [(), (0,), (5,), (3, 4), (2, 3, 4)])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_look_up_takes_ids_of_any_shape(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    table = nn.Embedding(50, 16)
    ids = torch.randint(50, shape, dtype=dtype)
    vectors = QuantisedEmbedding(table.weight)(ids)
    assert vectors.shape == table(ids).shape
    assert vectors.dtype == torch.float32
    assert torch.allclose(vectors, table(ids), atol=0.02)


def test_the_whole_table_reads_as_its_rows_do() -> None:
    quantised = QuantisedEmbedding(torch.randn(30, 10))
    assert torch.allclose(quantised.weight, quantised(torch.arange(30)), rtol=0, atol=1e-6)


def test_ids_out_of_range_are_refused() -> None:
    quantised = QuantisedEmbedding(torch.randn(30, 10))
    for id_ in (-1, 30):
        with pytest.raises(RuntimeError, match="out of bounds"):
            quantised(torch.tensor([id_]))


@pytest.mark.parametrize(("dim", "times"), [(64, 3.5), (10, 2.2), (128, 3.7)])
def test_table_is_as_much_smaller_as_its_overheads_allow(dim: int, times: float) -> None:
    table = nn.Embedding(1000, dim)
    quantised = QuantisedEmbedding(table.weight)
    assert deployed_bytes(quantised) == 1000 * (dim + 8)
    assert deployed_bytes(table) / deployed_bytes(quantised) >= times


@pytest.mark.cuda
def test_look_up_on_cuda_is_that_on_the_cpu() -> None:
    weight, ids = torch.randn(50, 16), torch.randint(50, (3, 4))
    on_cuda = QuantisedEmbedding(weight.cuda())(ids.cuda())
    torch.testing.assert_close(on_cuda.cpu(), QuantisedEmbedding(weight)(ids))


def test_padding_rows_stay_exactly_zero(context: Context) -> None:
    model = nn.Sequential(nn.Embedding(10, 16, padding_idx=0))
    quantised = TECHNIQUES.make("int8-embedding").compress(model, context)
    assert torch.equal(quantised(torch.tensor([0])), torch.zeros(1, 16))


def test_quantised_linear_layers_err_little(
    click_model: nn.Module, request_batch: Batch, context: Context
) -> None:
    compressed = TECHNIQUES.make("int8-linear").compress(click_model, context)
    exact, answer = click_model(*request_batch), compressed(*request_batch)
    assert 0 < (answer - exact).norm() / exact.norm() < 0.03


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
        for name in ("int8-linear", "int8-embedding"):
            TECHNIQUES.make(name).compress(click_model, context)


@pytest.mark.parametrize("spec", ["int8-linear(min_width=0)", 'int8-linear(min_width="wide")'])
def test_a_width_that_makes_no_sense_is_an_error(spec: str) -> None:
    with pytest.raises(LeanRecError, match="min_width"):
        TECHNIQUES.make(spec)
