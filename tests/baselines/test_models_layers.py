"""The bricks of the click models."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from baselines.errors import LeanRecError
from baselines.models.layers import MLP, FastDropout, FieldEmbedding


def test_fast_dropout_keeps_the_expectation_and_drops_the_share() -> None:
    torch.manual_seed(0)
    layer = FastDropout(0.3)
    out = layer(torch.ones(1000, 1003))
    share = round(256 * 0.3) / 256
    assert (out == 0).float().mean().item() == pytest.approx(share, abs=0.002)
    assert out.mean().item() == pytest.approx(1, abs=0.002)
    assert out[out != 0].unique().tolist() == pytest.approx([1 / (1 - share)])


def test_fast_dropout_follows_the_seed_and_rests_in_evaluation() -> None:
    layer, x = FastDropout(0.5), torch.ones(7, 13)
    torch.manual_seed(1)
    first = layer(x)
    torch.manual_seed(1)
    assert torch.equal(layer(x), first)
    assert not torch.equal(layer(x), first)
    assert layer.eval()(x) is x


def test_fast_dropout_masks_neighbours_independently() -> None:
    torch.manual_seed(2)
    kept = (FastDropout(0.5)(torch.ones(4000, 64)) != 0).float()
    correlation = torch.corrcoef(kept.T) - torch.eye(64)
    assert correlation.abs().max() < 0.08  # 5 standard errors of 4,000 rows


@pytest.mark.parametrize("p", [-0.1, 1.0, float("nan")])
def test_a_rate_that_is_no_share_is_refused(p: float) -> None:
    with pytest.raises(LeanRecError, match="dropout rate"):
        FastDropout(p)


def test_fields_are_looked_up_and_numbers_are_multiples() -> None:
    torch.manual_seed(0)
    layer = FieldEmbedding([3, 4], 5, numbers=2, std=1.0)
    ids, numbers = torch.tensor([[2, 0], [0, 3]]), torch.tensor([[0.5, -1.0], [0.0, 2.0]])
    out = layer(ids, numbers)
    assert out.shape == (2, 4, 5)
    table = layer.table.weight
    assert torch.equal(out[0, 0], table[2])
    assert torch.equal(out[1, 1], table[3 + 3])
    assert layer.numbers is not None
    assert torch.equal(out[0, 3], -layer.numbers[1])
    assert layer.width == 20


@given(dim=st.integers(1, 20), rows=st.integers(0, 40), seed=st.integers(0, 99))
def test_the_gradient_of_a_look_up_is_that_of_an_embedding(dim: int, rows: int, seed: int) -> None:
    torch.manual_seed(seed)
    layer = FieldEmbedding([3, 1, 7], dim, std=1.0)
    plain = nn.Embedding.from_pretrained(layer.table.weight.detach().clone(), freeze=False)
    ids = torch.stack([torch.randint(c, (rows,)) for c in (3, 1, 7)], dim=1)
    weights = torch.randn(rows, 3, dim)
    out = layer(ids)
    assert torch.equal(out, plain(ids + layer.offsets))
    (out * weights).sum().backward()
    (plain(ids + layer.offsets) * weights).sum().backward()
    assert layer.table.weight.grad.is_contiguous()
    torch.testing.assert_close(layer.table.weight.grad, plain.weight.grad)


def test_a_table_that_is_frozen_sparse_or_replaced_is_looked_up_as_it_is() -> None:
    ids = torch.tensor([[0, 1], [2, 1]])
    frozen, sparse, other = (FieldEmbedding([3, 4], 2) for _ in range(3))
    frozen.table.weight.requires_grad_(False)
    assert not frozen(ids).requires_grad
    sparse.table.sparse = True
    sparse(ids).sum().backward()
    assert sparse.table.weight.grad.is_sparse
    other.table = nn.Sequential(other.table)
    assert "Embedding" in type(other(ids).grad_fn).__name__


def test_in_evaluation_the_graph_of_autograd_is_that_of_the_layers() -> None:
    out = FieldEmbedding([3, 4], 2).eval()(torch.tensor([[0, 1]]))
    assert "Embedding" in type(out.grad_fn).__name__


def test_hooks_of_a_table_see_its_look_ups() -> None:
    layer, seen = FieldEmbedding([3, 4], 2), []
    layer.table.register_forward_hook(lambda module, given, out: seen.append(given[0].tolist()))
    layer(torch.tensor([[2, 1]]))
    assert seen == [[[2, 4]]]


def test_an_mlp_of_no_layers_is_the_identity() -> None:
    x = torch.randn(3, 6)
    assert MLP(6, ())(x) is x
    assert MLP(6, (4, 2), dropout=0.1, batch_norm=True)(x).shape == (3, 2)


def test_a_layer_has_no_bias_where_a_normalisation_would_take_it_off() -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 6)
    plain, normed = MLP(6, (4,)), MLP(6, (4,), batch_norm=True)
    assert plain[0].bias is not None
    assert normed[0].bias is None
    torch.testing.assert_close(normed[1](normed[0](x) + torch.randn(4)), normed[1](normed[0](x)))
