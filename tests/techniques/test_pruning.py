"""Pruned models: as sparse or as narrow as asked, and right about what matters least."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from baselines.base import Batch
from baselines.errors import LeanRecError
from techniques.base import TECHNIQUES, Context


def linear_weights(model: nn.Module) -> Tensor:
    """All weights of linear layers, flat."""
    return torch.cat([m.weight.flatten() for m in model.modules() if isinstance(m, nn.Linear)])


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.9])
def test_hidden_layers_lose_the_share_asked_and_nothing_else_does(
    click_model: nn.Module, context: Context, ratio: float
) -> None:
    pruned = TECHNIQUES.make(f"prune-structured(ratio={ratio})").compress(click_model, context)
    left = 128 - int(ratio * 128)
    assert pruned.mlp[0].weight.shape == (left, 64)
    assert pruned.mlp[1].weight.shape == (left,)
    assert pruned.mlp[4].weight.shape == (left, left)
    assert pruned.head.weight.shape == (1, 64 + left)
    assert pruned.cross.weight is click_model.cross.weight
    assert pruned.embedding.weight is click_model.embedding.weight


def test_units_of_no_magnitude_are_those_that_go(request_batch: Batch, context: Context) -> None:
    """Half the units of every hidden layer do nothing: without them, the answers are the same."""
    model = nn.Sequential(
        nn.Embedding(200, 8), nn.Flatten(),
        nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1),
    ).eval()  # fmt: skip
    with torch.no_grad():
        for layer, after in ((model[2], model[4]), (model[4], model[6])):
            idle = torch.randperm(64)[:32]
            layer.weight[idle] = layer.bias[idle] = 0
            after.weight[:, idle] = 0
    pruned = TECHNIQUES.make("prune-structured").compress(model, context)
    assert [pruned[i].weight.shape for i in (2, 4, 6)] == [(32, 16), (32, 32), (1, 32)]
    torch.testing.assert_close(pruned(*request_batch), model(*request_batch), rtol=0, atol=1e-6)


class OneCross(nn.Module):
    """A cross layer that no other layer reveals to be tied to the input."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(200, 8)
        self.cross = nn.Linear(16, 16)
        self.head = nn.Linear(16, 1)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids).flatten(1)
        return self.head(x * self.cross(x) + x).squeeze(1)


class Towers(nn.Module):
    """Two outputs, whose widths must agree: no unit of theirs is hidden."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(200, 8)
        self.left, self.right = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        x = self.embedding(ids)
        return self.left(x[:, 0]), self.right(x[:, 1])


@pytest.mark.parametrize("model", [OneCross(), Towers()], ids=["cross", "towers"])
def test_a_model_without_hidden_units_is_an_error(model: nn.Module, context: Context) -> None:
    with pytest.raises(LeanRecError, match="no linear layer whose units are hidden"):
        TECHNIQUES.make("prune-structured").compress(model, context)


def test_after_quantisation_there_is_nothing_to_prune(
    click_model: nn.Module, context: Context
) -> None:
    quantised = TECHNIQUES.make("int8-linear").compress(click_model, context)
    with pytest.raises(LeanRecError, match="Prune before"):
        TECHNIQUES.make("prune-structured").compress(quantised, context)


def test_a_cross_layer_over_a_quantised_table_is_an_error_that_says_to_prune_first(
    context: Context,
) -> None:
    quantised = TECHNIQUES.make("int8-embedding").compress(OneCross(), context)
    with pytest.raises(
        LeanRecError, match=r"hidden units taken out does not run.*first in the stack"
    ):
        TECHNIQUES.make("prune-structured").compress(quantised, context)


def test_a_request_that_the_model_does_not_take_is_an_error(click_model: nn.Module) -> None:
    ids = torch.zeros(4, 2, dtype=torch.int64)
    context = Context("ctr", torch.device("cpu"), 0, ((ids, ids),))
    with pytest.raises(LeanRecError, match="as it is does not run"):
        TECHNIQUES.make("prune-structured").compress(click_model, context)


@pytest.mark.cuda
def test_hidden_units_are_found_on_cuda_from_a_request_on_the_cpu(
    click_model: nn.Module, request_batch: Batch
) -> None:
    device = torch.device("cuda")
    context = Context("ctr", device, 0, (request_batch,))
    pruned = TECHNIQUES.make("prune-structured").compress(click_model.to(device), context)
    assert pruned.mlp[4].weight.shape == (64, 64)


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.95])
def test_the_share_of_zeros_is_the_ratio(
    click_model: nn.Module, context: Context, ratio: float
) -> None:
    pruned = TECHNIQUES.make(f"prune-unstructured(ratio={ratio})").compress(click_model, context)
    before, after = linear_weights(click_model), linear_weights(pruned)
    assert (after == 0).float().mean().item() == pytest.approx(ratio, abs=1e-3)
    assert before[after == 0].abs().max() <= before[after != 0].abs().min()
    assert torch.equal(after[after != 0], before[after != 0])


def test_pruning_is_permanent(click_model: nn.Module, context: Context) -> None:
    pruned = TECHNIQUES.make("prune-unstructured").compress(click_model, context)
    assert pruned.state_dict().keys() == click_model.state_dict().keys()
    assert not any(m._forward_pre_hooks for m in pruned.modules())


class Deep(nn.Module):
    """x plus what each of its layers adds; the n-th adds n."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(1, 1) for _ in range(depth))
        for n, layer in enumerate(self.blocks, 1):
            nn.init.zeros_(layer.weight)
            nn.init.constant_(layer.bias, n)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.blocks:
            x = x + layer(x)
        return x


@pytest.mark.parametrize(
    ("depth", "ratio", "kept"), [(2, 0.5, 1), (3, 0.5, 2), (6, 0.5, 3), (6, 0.9, 1), (4, 0.25, 3)]
)
def test_the_first_layers_stay_and_are_shared(
    context: Context, depth: int, ratio: float, kept: int
) -> None:
    technique, model = TECHNIQUES.make(f"drop-layers(ratio={ratio})"), Deep(depth)
    shallow = technique.compress(model, context)
    assert shallow(torch.zeros(1)).item() == kept * (kept + 1) / 2
    assert model(torch.zeros(1)).item() == depth * (depth + 1) / 2
    for layer, own in zip(shallow.blocks, model.blocks, strict=False):
        assert layer.weight is own.weight
        assert layer is not own
    assert f"blocks keeps {kept} of {depth} layers" in technique.explain(model, context)


@pytest.mark.parametrize("model", [Deep(1), Towers()], ids=["one", "none"])
def test_a_model_that_would_lose_no_layer_is_refused(model: nn.Module) -> None:
    reason = TECHNIQUES.make("drop-layers").reason_against(model, "ctr", "cpu")
    assert reason == "finds no list of layers named blocks or cross that would lose one of them"


@pytest.mark.parametrize(
    "name", ["prune-structured", "prune-unstructured", "prune-rows", "drop-layers"]
)
@pytest.mark.parametrize("ratio", ["0", "1", "1.5", "-0.1", "nan", '"half"'])
def test_a_ratio_outside_0_to_1_is_an_error(name: str, ratio: str) -> None:
    with pytest.raises(LeanRecError, match="ratio"):
        TECHNIQUES.make(f"{name}(ratio={ratio})")
