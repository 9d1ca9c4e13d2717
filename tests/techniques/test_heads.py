"""Heads and feed-forward units taken out of transformers: the right ones, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from baselines.base import BASELINES, Batch
from techniques.base import TECHNIQUES, Context
from techniques.pruning.cost import multiply_adds
from techniques.pruning.heads import attentions, prune_heads

DATA = 'dataset="planted(rows=500, ids=50)", length=12, embedding_dim=16'
HEADED = {
    "sasrec": f"sasrec({DATA}, heads=4)",
    "bert4rec": f"bert4rec({DATA}, heads=4)",
    "hstu": f"hstu({DATA}, heads=4)",
}


def made(spec: str) -> tuple[Any, Batch, Context]:
    """A fresh model, a request for it, and the context of `compress`."""
    baseline = BASELINES.make(spec)
    data = baseline.data()
    torch.manual_seed(0)
    model = baseline.build(data).eval()
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.3)
    request = baseline.task.requests(data, 16, 1, 0)[0]
    return model, request, Context("sequence", torch.device("cpu"), 0, (request,))


@pytest.mark.parametrize(
    ("name", "projection", "feed"), [("sasrec", 24, 8), ("bert4rec", 24, 32), ("hstu", 32, None)]
)
def test_heads_and_hidden_units_go_and_states_keep_their_width(
    name: str, projection: int, feed: int | None
) -> None:
    model, request, context = made(HEADED[name])
    pruned: Any = TECHNIQUES.make("prune-structured").compress(model, context)
    for block in pruned.blocks:
        linear = block.qkv if hasattr(block, "qkv") else block.uvqk
        assert (linear.out_features, linear.in_features) == (projection, 16)
        assert tuple(block.out.weight.shape) == (16, 8)
        assert block.heads == 2
        if feed is not None:
            assert block.feed[0].out_features == block.feed[-1].in_features == feed
    assert pruned.item is not model.item
    shared = {p.data_ptr() for p in model.parameters()} & {
        p.data_ptr() for p in pruned.parameters()
    }
    assert pruned.position.weight.data_ptr() in shared
    assert [a.shape for a in pruned(*request)] == [a.shape for a in model(*request)]
    assert all(block.heads == 4 for block in model.blocks)


@pytest.mark.parametrize("name", ["sasrec", "bert4rec"])
def test_heads_that_nothing_reads_go_without_a_trace(name: str) -> None:
    model, request, _ = made(HEADED[name])
    before = model(*request)[0]
    with torch.no_grad():
        for block in model.blocks:
            block.out.weight[:, [*range(4), *range(8, 12)]] = 0  # heads 0 and 2
    silenced = model(*request)[0]
    assert not torch.allclose(silenced, before, atol=1e-3)
    for attention in attentions(model):
        with torch.no_grad():
            parts = attention.qkv.weight.view(3, 4, 4, 16)
            parts[:, [0, 2]] *= 0.1
        prune_heads(attention, 0.5)
    torch.testing.assert_close(model(*request)[0], silenced, rtol=0, atol=1e-5)


def test_of_hstu_gates_and_norm_and_bias_go_with_their_heads() -> None:
    model, _, _ = made(HEADED["hstu"])
    layer = model.blocks[0]
    with torch.no_grad():
        layer.uvqk.weight.view(4, 4, 4, 16)[:, [1, 3]] *= 10
        layer.bias.weight.copy_(torch.arange(4.0).expand(12, 4))
        layer.read_norm.weight.copy_(torch.arange(16.0))
    prune_heads(layer, 0.5)
    assert torch.equal(layer.bias.weight, torch.tensor([[1.0, 3.0]]).expand(12, 2))
    assert layer.read_norm.weight.tolist() == [4, 5, 6, 7, 12, 13, 14, 15]
    assert layer.read_norm.normalized_shape == (8,)


def test_a_layer_that_loses_no_head_is_left_as_it_is() -> None:
    model, _, context = made(HEADED["sasrec"])
    pruned: Any = TECHNIQUES.make("prune-structured(ratio=0.2)").compress(model, context)
    assert pruned.blocks[0].qkv.weight is model.blocks[0].qkv.weight
    assert pruned.blocks[0].heads == 4


@pytest.mark.parametrize(
    ("spec", "applies"),
    [
        (f"sasrec({DATA})", True),  # one head, and units
        (f"hstu({DATA}, heads=2)", True),  # heads, and no units
        (f"hstu({DATA})", False),
        (f"gru4rec({DATA})", False),
    ],
)
def test_a_sequence_model_with_nothing_to_lose_is_refused(spec: str, applies: bool) -> None:
    model = made(spec)[0].to("meta")
    reason = TECHNIQUES.make("prune-structured").reason_against(model, "sequence", "cpu")
    expected = "finds no attention that would lose a head or has a feed-forward block"
    assert reason == (None if applies else expected)


def test_multiply_adds_are_those_of_the_shapes() -> None:
    model, request, context = made(HEADED["sasrec"])
    batch, length = request[0].shape
    linear = 16 * (3 * 16 + 16 + 16 + 16)  # qkv, out and feed-forward, a place
    attention = 2 * length * 16
    assert multiply_adds(model, request) == batch * length * 2 * (linear + attention)
    told = TECHNIQUES.make("prune-structured").explain(model, context)
    assert told.startswith("prune-structured: 0.50 × the multiply-adds of a request; 2.00 ×")
