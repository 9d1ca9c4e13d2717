"""Two of four: the mask on any device, the kernel on CUDA."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor, nn

from baselines.base import Batch
from techniques.base import TECHNIQUES, Context
from techniques.pruning.semi_structured import HalfSparseLinear
from techniques.pruning.sparsity import two_of_four

PRUNE = TECHNIQUES.make("prune-2to4")
SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 4).map(lambda n: 4 * n))


@given(arrays("float32", SHAPES, elements=st.floats(-9, 9, width=32)))
def test_the_larger_two_of_each_four_stay(numbers: object) -> None:
    weight = torch.tensor(numbers)
    mask = two_of_four(weight)
    assert mask.dtype == torch.bool
    fours, kept = weight.abs().reshape(-1, 4), mask.reshape(-1, 4)
    assert (kept.sum(1) == 2).all()
    for four, stay in zip(fours, kept, strict=True):
        assert four[stay].min() >= four[~stay].max()


def fours(weight: Tensor) -> Tensor:
    """How many numbers of each four are there."""
    return (weight.unflatten(1, (-1, 4)) != 0).sum(-1)


def test_layers_that_fit_get_their_zeros_and_the_others_stay(
    click_model: nn.Module, context: Context
) -> None:
    pruned = PRUNE.compress(click_model, context)
    for layer in (pruned.cross, pruned.mlp[0], pruned.mlp[4]):
        assert (fours(layer.weight) == 2).all()
    assert pruned.head.weight is click_model.head.weight  # one output
    assert pruned.embedding.weight is click_model.embedding.weight
    assert not (click_model.cross.weight == 0).any()


def test_zeros_are_held_while_the_rest_is_trained(click_model: nn.Module, context: Context) -> None:
    def nudge(model: nn.Module, epochs: int) -> nn.Module:
        assert epochs == 1
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.01)
        return model

    tuning = dataclasses.replace(context, tune=nudge)
    pruned = TECHNIQUES.make("prune-2to4(fine_tune=1)").compress(click_model, tuning)
    assert (fours(pruned.mlp[4].weight) == 2).all()


def test_elsewhere_than_on_cuda_it_says_why_not(click_model: nn.Module) -> None:
    assert PRUNE.reason_against(click_model, "ctr", "cpu") == "needs the device cuda"


def test_layers_of_other_shapes_are_refused() -> None:
    odd = nn.Sequential(nn.Linear(60, 32), nn.Linear(64, 33))
    assert PRUNE.reason_against(odd, "ctr", "cuda") == (
        "finds no linear layer of 32·n outputs and 64·m inputs"
    )


def test_a_layer_that_lost_its_zeros_is_served_as_it_is(
    click_model: nn.Module, context: Context
) -> None:
    served = PRUNE.deploy(click_model, context)
    assert not any(isinstance(module, HalfSparseLinear) for module in served.modules())


@pytest.mark.cuda
def test_the_kernel_answers_as_the_dense_layer_does(
    click_model: nn.Module, request_batch: Batch
) -> None:
    device = torch.device("cuda")
    context = Context("ctr", device, 0, (request_batch,))
    pruned = PRUNE.compress(click_model.to(device), context)
    served = PRUNE.deploy(pruned, context)
    assert any(isinstance(module, HalfSparseLinear) for module in served.modules())
    ids = request_batch[0].to(device)
    with torch.inference_mode():
        for few in (ids, ids[:1], ids[:7]):
            torch.testing.assert_close(served(few), pruned(few), rtol=0, atol=1e-2)
