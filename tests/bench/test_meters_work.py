"""FLOPs and bytes of calls whose work is known."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from bench.device import get_device
from bench.meters.peaks import peak_bandwidth, peak_flops
from bench.meters.work import count_work
from techniques.base import TECHNIQUES, Context
from techniques.quantisation.quantised_linear import quantise_linear

M, K, N = 32, 64, 16
F32 = 4
CPU = get_device("cpu")


@pytest.mark.parametrize("mode", [True, False])
def test_a_product_of_known_size(mode: bool) -> None:
    weight = torch.randn(K, N)
    with torch.inference_mode(mode):
        work = count_work(lambda x: x @ weight, (torch.randn(M, K),))
    assert work["aten::mm"].flops == 2 * M * K * N
    assert work["aten::mm"].bytes == F32 * (M * K + K * N + M * N)


def test_a_layer_counts_as_the_product_that_it_is() -> None:
    with torch.inference_mode():
        work = count_work(nn.Linear(K, N), (torch.randn(M, K),))
    assert work["aten::addmm"].flops == 2 * M * K * N
    assert work["aten::t"].bytes == 0


def test_an_int8_layer_counts_the_same_flops_and_fewer_bytes() -> None:
    layer = nn.Linear(K, N)
    with torch.inference_mode():
        work = count_work(quantise_linear(layer), (torch.randn(M, K),))
    (int8,) = (w for name, w in work.items() if name.startswith("quantized::linear"))
    assert int8.flops == 2 * M * K * N
    assert int8.bytes == F32 * (M * K + M * N + N) + K * N


@pytest.mark.parametrize("name", ["int4-weight-only", "int8-weight-only", "onednn-fp32"])
def test_layers_of_other_kernels_count_as_plain_ones(name: str) -> None:
    x = torch.randn(M, 128)
    model = nn.Sequential(nn.Linear(128, 64)).eval()
    technique, context = TECHNIQUES.make(name), Context("ctr", CPU.torch_device, 0, ((x,),))
    served = technique.deploy(technique.compress(model, context), context)
    with torch.inference_mode():
        work = count_work(served, (x,))
    assert sum(w.flops or 0 for w in work.values()) == 2 * M * 128 * 64


def test_a_look_up_moves_its_rows_not_its_table() -> None:
    table = torch.randn(1000, K)
    ids = torch.randint(0, 1000, (M,))
    with torch.inference_mode():
        single = count_work(lambda i: functional.embedding(i, table), (ids,))
        bags = count_work(
            lambda i: functional.embedding_bag(i, table, torch.arange(0, M, 4)), (ids,)
        )
    assert single["aten::embedding"].bytes == 8 * M + 2 * F32 * M * K
    assert single["aten::embedding"].flops is None
    bag = next(w for name, w in bags.items() if "embedding_bag" in name)
    assert F32 * M * K < bag.bytes < 3 * F32 * M * K


def test_what_is_overwritten_is_not_read() -> None:
    to = torch.zeros(M, K)
    work = count_work(to.copy_, (torch.randn(M, K),))
    assert work["aten::copy_"].bytes == 2 * F32 * M * K


def test_an_expanded_tensor_is_as_small_as_it_is() -> None:
    work = count_work(lambda x: x.expand(M, K) + 1, (torch.ones(1, K),))
    assert work["aten::add"].bytes == F32 * (K + M * K)


def test_a_training_step_counts_both_ways() -> None:
    layer = nn.Linear(K, N, bias=False)

    def step(x: torch.Tensor) -> None:
        layer(x.requires_grad_()).sum().backward()

    work = count_work(step, (torch.randn(M, K),))
    assert sum(w.flops or 0 for w in work.values()) == 3 * 2 * M * K * N


def test_sparse_gradients_are_their_rows() -> None:
    table = nn.Embedding(1000, K, sparse=True)

    def step(i: torch.Tensor) -> None:
        table(i).sum().backward()

    work = count_work(step, (torch.randint(0, 1000, (M,)),))
    assert sum(w.bytes for w in work.values()) < 1000 * K * F32


def test_peaks_are_rates_of_this_machine() -> None:
    assert 1e6 < peak_flops(CPU, [64]) < 1e15
    assert 1e6 < peak_bandwidth(CPU, 4096) < 1e14
