"""Tables in fewer bits: within their bounds, as small as they say, the same call as before."""

from __future__ import annotations

import warnings
from functools import partial

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor, nn

from techniques.base import TECHNIQUES, Context
from techniques.quantisation.narrow_embedding import (
    Bits,
    HalfEmbedding,
    NarrowEmbedding,
    QuantisedEmbedding,
)
from techniques.sizes import deployed_bytes

NAMES = ("int8-embedding", "int4-embedding", "int2-embedding", "fp16-embedding")
FORMS = [*(partial(QuantisedEmbedding, bits=bits) for bits in (8, 4, 2)), HalfEmbedding]
EACH = pytest.mark.parametrize("form", FORMS, ids=NAMES)
TINY = 2.0**-25  # half a step of float16 about zero

finite = st.floats(-100, 100, width=32)
shapes = st.tuples(st.integers(1, 6), st.integers(1, 3).map(lambda fours: 4 * fours))
tables = arrays.arrays("float32", shapes, elements=finite).map(torch.from_numpy)


@given(tables, st.sampled_from([8, 4, 2]))
@example(torch.randn(20, 8) * 1e-4, 4)
@example(torch.randn(20, 8) * 1e-7, 2)
@example(torch.randn(20, 8) * 0.01 + 1, 4)
@settings(max_examples=150)
def test_a_weight_comes_back_within_half_its_rows_scale(weight: Tensor, bits: Bits) -> None:
    looked_up = QuantisedEmbedding(weight, bits)(torch.arange(len(weight)))
    codes = 2**bits - 1
    extent, largest = weight.amax(1) - weight.amin(1), weight.abs().amax(1)
    rounding = 1e-6 * largest if bits == 8 else 2.0**-11 * (extent + largest) + codes * TINY
    assert ((looked_up - weight).abs().amax(1) <= extent / codes / 2 + rounding + 1e-7).all()


@given(tables)
@settings(max_examples=60)
def test_a_weight_in_float16_comes_back_within_a_part_in_2048(weight: Tensor) -> None:
    error = (HalfEmbedding(weight)(torch.arange(len(weight))) - weight).abs()
    assert (error <= torch.clamp(weight.abs() * 2.0**-11, min=TINY)).all()


@EACH
@pytest.mark.parametrize("shape", [(), (0,), (5,), (3, 4), (2, 3, 4)])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_look_up_takes_ids_of_any_shape(
    form: type[NarrowEmbedding], shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    table = nn.Embedding(50, 16)
    ids = torch.randint(50, shape, dtype=dtype)
    narrow = form(table.weight)
    assert narrow(ids).dtype == torch.float32
    torch.testing.assert_close(narrow(ids), narrow.weight[ids.long()], rtol=0, atol=1e-6)
    assert narrow(ids).shape == table(ids).shape


@EACH
def test_every_row_decodes_as_it_is_looked_up(form: type[NarrowEmbedding]) -> None:
    narrow = form(torch.randn(300, 12))
    assert torch.allclose(narrow.weight, narrow(torch.arange(300)), rtol=0, atol=1e-6)


@EACH
def test_ids_out_of_range_are_refused(form: type[NarrowEmbedding]) -> None:
    narrow = form(torch.randn(30, 8))
    for id_ in (-1, 30):
        with pytest.raises((RuntimeError, IndexError), match=r"out of (bounds|range)"):
            narrow(torch.tensor([id_]))


@pytest.mark.parametrize(
    ("name", "dim", "row", "times"),
    [
        ("int8-embedding", 64, 72, 3.55),
        ("int8-embedding", 10, 18, 2.2),
        ("int8-embedding", 128, 136, 3.7),
        ("int4-embedding", 64, 36, 7.1),
        ("int4-embedding", 10, 9, 4.4),
        ("int2-embedding", 64, 20, 12.8),
        ("int2-embedding", 16, 8, 8.0),
        ("fp16-embedding", 7, 14, 2.0),
    ],
)
def test_table_is_as_much_smaller_as_its_overheads_allow(
    context: Context, name: str, dim: int, row: int, times: float
) -> None:
    technique, model = TECHNIQUES.make(name), nn.Sequential(nn.Embedding(1000, dim))
    narrow = technique.compress(model, context)
    assert deployed_bytes(narrow) == 1000 * row
    assert deployed_bytes(model) / deployed_bytes(narrow) >= times
    told = technique.explain(model, context)
    assert f"rows of {dim} numbers get {4 * dim / row:.2f}× smaller" in told


@pytest.mark.parametrize("name", NAMES)
def test_padding_rows_stay_exactly_zero(name: str, context: Context) -> None:
    model = nn.Sequential(nn.Embedding(10, 16, padding_idx=0))
    narrow = TECHNIQUES.make(name).compress(model, context)
    assert torch.equal(narrow(torch.tensor([0])), torch.zeros(1, 16))


@pytest.mark.parametrize(("name", "multiple"), [("int4-embedding", 2), ("int2-embedding", 4)])
def test_a_width_that_does_not_fill_bytes_stays(context: Context, name: str, multiple: int) -> None:
    technique, odd, even = TECHNIQUES.make(name), nn.Embedding(10, 65), nn.Embedding(10, 64)
    narrow = technique.compress(nn.ModuleList((odd, even)), context)
    assert [type(module) for module in narrow] == [nn.Embedding, QuantisedEmbedding]
    assert narrow[0].weight is odd.weight
    reason = technique.reason_against(nn.ModuleList((odd,)), "ctr", "cpu")
    assert reason == f"finds no embedding table whose width is a multiple of {multiple}"


@pytest.mark.parametrize("name", NAMES)
def test_narrowing_warns_of_nothing(click_model: nn.Module, context: Context, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TECHNIQUES.make(name).compress(click_model, context)


@pytest.mark.cuda
@EACH
def test_look_up_on_cuda_is_that_on_the_cpu(form: type[NarrowEmbedding]) -> None:
    weight, ids = torch.randn(50, 16), torch.randint(50, (3, 4))
    on_cuda = form(weight.cuda())(ids.cuda())
    torch.testing.assert_close(on_cuda.cpu(), form(weight)(ids))
