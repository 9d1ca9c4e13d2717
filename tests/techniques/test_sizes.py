"""Bytes counted against allocations of known size."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.ao.nn.quantized import dynamic
from torch.testing._internal.two_tensor import TwoTensor

from techniques.quantisation.quantised_linear import quantise_linear
from techniques.sizes import deployed_bytes


def holder(**tensors: torch.Tensor) -> nn.Module:
    """A module that holds tensors as plain attributes."""
    module = nn.Module()
    vars(module).update(tensors)
    return module


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.uint8])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_an_allocation_of_known_bytes(dtype: torch.dtype, device: str) -> None:
    module = nn.Module()
    module.register_buffer("table", torch.empty(1000, 37, dtype=dtype, device=device))
    assert deployed_bytes(module) == 1000 * 37 * dtype.itemsize


def test_parameters_and_buffers_persistent_or_not() -> None:
    module = nn.BatchNorm1d(10)  # weight, bias, mean, variance; and a count in int64
    module.register_buffer("temporary", torch.zeros(3), persistent=False)
    assert deployed_bytes(module) == 4 * 10 * 4 + 8 + 3 * 4


def test_a_shared_weight_counts_once_and_a_view_by_what_it_keeps_alive() -> None:
    first, second = nn.Linear(100, 100, bias=False), nn.Linear(100, 100, bias=False)
    second.weight = first.weight
    pair = nn.Sequential(first, second, first)
    assert deployed_bytes(pair) == 100 * 100 * 4
    pair.register_buffer("row", torch.zeros(1000, 10)[3])
    assert deployed_bytes(pair) == 100 * 100 * 4 + 1000 * 10 * 4


def test_a_tensor_hidden_in_a_plain_attribute_counts() -> None:
    assert deployed_bytes(holder(cache=torch.zeros(250))) == 1000


def test_nothing_holds_nothing() -> None:
    assert deployed_bytes(nn.Sequential(nn.ReLU())) == 0
    assert deployed_bytes(holder(empty=torch.empty(0))) == 0


@pytest.mark.filterwarnings("ignore:Sparse")
def test_sparse_tensors_count_values_and_indices() -> None:
    values, rows, columns = torch.ones(50), torch.arange(101).clamp(max=50), torch.arange(50)
    coo = torch.sparse_coo_tensor(torch.stack((columns, columns)), values, (100, 100))
    csr = torch.sparse_csr_tensor(rows, columns, values, (100, 100))
    assert deployed_bytes(holder(coo=coo)) == 50 * 4 + 2 * 50 * 8
    assert deployed_bytes(holder(csr=csr)) == 50 * 4 + 50 * 8 + 101 * 8


def test_wrapped_tensors_count_what_is_inside() -> None:
    two = TwoTensor(torch.zeros(10), torch.zeros(10))
    assert deployed_bytes(holder(two=two)) == 2 * 10 * 4


def test_quantised_tensors_count_their_scales() -> None:
    weight = torch.quantize_per_channel(
        torch.zeros(5, 7), torch.ones(5, dtype=torch.float64), torch.zeros(5, dtype=torch.int64), 0,
        torch.qint8,
    )  # fmt: skip
    assert deployed_bytes(holder(weight=weight)) == 5 * 7 + 5 * (8 + 8)


@pytest.mark.parametrize(("engine", "kept"), [("fbgemm", 1), ("onednn", 2)])
def test_packed_weights_count_with_scales_bias_and_a_second_copy_where_one_is_kept(
    engine: str, kept: int
) -> None:
    if engine not in torch.backends.quantized.supported_engines:
        pytest.skip(f"no {engine} in this build")
    scales_and_bias = 64 * (8 + 8 + 4)
    packed = quantise_linear(nn.Linear(128, 64), engine)
    assert deployed_bytes(packed) == kept * 64 * 128 + scales_and_bias


@pytest.mark.skipif(
    "fbgemm" not in torch.backends.quantized.supported_engines, reason="no FBGEMM in this build"
)
def test_an_engine_that_keeps_no_original_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = torch.backends.quantized.engine
    torch.backends.quantized.engine = "fbgemm"
    try:
        packed = dynamic.Linear(128, 64, bias_=False)
    finally:
        torch.backends.quantized.engine = engine
    assert deployed_bytes(packed) == 64 * 128
