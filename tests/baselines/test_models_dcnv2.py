"""DCN-V2 against the paper's equations written again in numpy, and its baseline."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from baselines.base import BASELINES
from baselines.errors import LeanRecError
from baselines.models.dcnv2 import DCNv2, DCNv2Baseline


def reference(model: DCNv2, cardinalities: list[int], ids: np.ndarray) -> np.ndarray:
    """Equation 1 of the paper, row by row, in float64; no table fused, no module called."""
    state = {name: value.double().numpy() for name, value in model.state_dict().items()}
    starts = np.r_[0, np.cumsum(cardinalities)]
    logits = []
    for row in ids:
        x0 = np.concatenate(
            [state["embedding.table.weight"][starts[f] + i] for f, i in enumerate(row)]
        )
        x = x0
        for k in range(len(model.cross)):
            x = x0 * (state[f"cross.{k}.weight"] @ x + state[f"cross.{k}.bias"]) + x
        h = x0
        for name in [n[:-7] for n in state if n.startswith("mlp.") and n.endswith("weight")]:
            h = np.maximum(state[f"{name}.weight"] @ h + state[f"{name}.bias"], 0)
        deep = state["head.weight"][0] @ h + state["head.bias"][0]
        logits.append(state["cross_head.weight"][0] @ x + deep)
    return np.array(logits)


@settings(max_examples=20)
@given(
    cardinalities=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    dim=st.integers(1, 5),
    hidden=st.lists(st.integers(1, 8), min_size=1, max_size=3),
    crosses=st.integers(0, 3),
    rows=st.integers(1, 6),
    seed=st.integers(0, 1000),
)
def test_the_forward_pass_is_the_papers(
    cardinalities: list[int], dim: int, hidden: list[int], crosses: int, rows: int, seed: int
) -> None:
    torch.manual_seed(seed)
    model = DCNv2(cardinalities, dim, hidden, crosses, dropout=0.3).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    ids = torch.stack([torch.randint(c, (rows,)) for c in cardinalities], dim=1)
    with torch.no_grad():
        logits = model(ids)
    assert logits.shape == (rows,)
    np.testing.assert_allclose(
        logits.numpy(), reference(model, cardinalities, ids.numpy()), rtol=1e-3, atol=1e-3
    )


def test_initialisation_follows_the_reference_recipe() -> None:
    torch.manual_seed(0)
    model = DCNv2([500, 500], 16, (64,))
    assert model.embedding.table.weight.std().item() == pytest.approx(1e-4, rel=0.05)
    first = model.mlp[0]
    assert isinstance(first, nn.Linear)
    assert first.weight.std().item() == pytest.approx((2 / (32 + 64)) ** 0.5, rel=0.1)
    assert not first.bias.any()


def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(0)
    model = DCNv2([9, 9], 4, (32, 32), dropout=0.5)
    nn.init.normal_(model.embedding.table.weight)
    ids = torch.randint(9, (16, 2))
    model.train()
    assert not torch.equal(model(ids), model(ids))
    model.eval()
    assert torch.equal(model(ids), model(ids))


def test_weights_round_trip_and_hold_no_offsets() -> None:
    torch.manual_seed(0)
    model, other = DCNv2([5, 7], 4, (8,)), DCNv2([5, 7], 4, (8,))
    other.load_state_dict(model.state_dict())
    ids = torch.tensor([[4, 6], [0, 0]])
    assert torch.equal(model(ids), other(ids))
    assert "offsets" not in model.state_dict()


def test_shapes_can_be_had_without_memory() -> None:
    with torch.device("meta"):
        model = DCNv2([10**9, 10**9], 64)
    assert model.embedding.table.weight.shape == (2 * 10**9, 64)
    assert model.embedding.table.weight.is_meta


def test_a_spec_sets_the_sizes_of_the_planted_baseline() -> None:
    made = BASELINES.make(
        'dcnv2(dataset="planted(rows=500, ids=7)", width=24, depth=3, embedding_dim=4)'
    )
    assert isinstance(made, DCNv2Baseline)
    data = made.data()
    assert list(data.fields.values()) == [7] * 10
    assert sum(map(len, (data.train, data.valid, data.test))) == 500
    model = made.build(data)
    assert model.embedding.table.weight.shape == (70, 4)
    widths = [layer.out_features for layer in model.mlp if isinstance(layer, nn.Linear)]
    assert widths == [24, 24, 24]


def test_a_spec_sets_the_recipe() -> None:
    made = BASELINES.make("dcnv2(sparse_embeddings=true, embedding_l2=0.0, lr=1e-3, epochs=4)")
    assert made.recipe.sparse_embeddings
    assert (made.recipe.lr, made.recipe.epochs, made.recipe.embedding_l2) == (1e-3, 4, 0)
    assert not DCNv2Baseline().recipe.sparse_embeddings


def test_an_unknown_data_set_is_refused() -> None:
    with pytest.raises(LeanRecError, match="Unknown data set 'ml-100'"):
        BASELINES.make('dcnv2(dataset="ml-100")').data()
