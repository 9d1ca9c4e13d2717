"""Techniques together: in order, each right after the others."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from baselines.base import Batch
from techniques.base import TECHNIQUES, Context
from techniques.quantisation.narrow_embedding import QuantisedEmbedding
from techniques.quantisation.quantised_linear import QuantisedLinear
from techniques.sizes import deployed_bytes

NEAR = ("int8-linear", "int8-embedding", "bf16")  # each stays close to the control


def serve(model: nn.Module, context: Context, *names: str) -> nn.Module:
    """What the stack of `names` serves."""
    stack = [TECHNIQUES.make(name) for name in names]
    for technique in stack:
        model = technique.compress(model, context)
    for technique in stack:
        model = technique.deploy(model, context)
    return model


@pytest.mark.parametrize(
    "names", [*itertools.permutations(NEAR, 2), *itertools.permutations(NEAR)], ids="+".join
)
def test_near_techniques_stay_near_in_any_order(
    click_model: nn.Module, request_batch: Batch, context: Context, names: tuple[str, ...]
) -> None:
    with torch.inference_mode():
        exact = click_model(*request_batch)
        answer = serve(click_model, context, *names)(*request_batch)
    assert (answer - exact).norm() / exact.norm() < 0.04


def test_order_of_quantisations_does_not_matter(
    click_model: nn.Module, request_batch: Batch, context: Context
) -> None:
    one, other = (
        serve(click_model, context, *names)
        for names in (("int8-linear", "int8-embedding"), ("int8-embedding", "int8-linear"))
    )
    assert torch.equal(one(*request_batch), other(*request_batch))
    assert deployed_bytes(one) == deployed_bytes(other)
    for model in (one, other):
        kinds = [type(module) for module in model.modules()]
        assert QuantisedEmbedding in kinds
        assert QuantisedLinear in kinds


def test_a_pruned_model_quantises_as_a_narrow_one(
    click_model: nn.Module, request_batch: Batch, context: Context
) -> None:
    pruned = serve(click_model, context, "prune-structured")
    both = serve(click_model, context, "prune-structured", "int8-linear", "int8-embedding")
    exact, answer = pruned(*request_batch), both(*request_batch)
    assert (answer - exact).norm() / exact.norm() < 0.04
    assert deployed_bytes(both) < deployed_bytes(pruned)


def test_techniques_that_change_nothing_in_common_keep_what_the_others_did(
    click_model: nn.Module, context: Context
) -> None:
    served = serve(click_model, context, "int8-embedding", "prune-unstructured", "bf16")
    assert isinstance(served.predictor.embedding, QuantisedEmbedding)
    assert (served.predictor.mlp[4].weight == 0).any()
