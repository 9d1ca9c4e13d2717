"""Pruned models: as sparse or as narrow as asked, and right about what matters least."""

from __future__ import annotations

import copy
import dataclasses

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


def trained_on(model: nn.Module, epochs: int) -> nn.Module:
    """A copy of a model of `request_batch` after that many steps of Adam, as `Context.tune`."""
    trained = copy.deepcopy(model)
    ids = torch.randint(200, (64, 2), generator=torch.Generator().manual_seed(3))
    optimiser = torch.optim.Adam(trained.parameters(), lr=0.01, weight_decay=0.1)
    for _ in range(epochs):
        optimiser.zero_grad()
        nn.functional.softplus(trained(ids)).mean().backward()
        optimiser.step()
    return trained.eval()


def test_what_is_pruned_stays_zero_while_the_rest_is_trained(
    click_model: nn.Module, context: Context
) -> None:
    before = copy.deepcopy(click_model.state_dict())
    tuning = dataclasses.replace(context, tune=trained_on)
    once = TECHNIQUES.make("prune-unstructured(ratio=0.8)").compress(click_model, context)
    tuned = TECHNIQUES.make("prune-unstructured(ratio=0.8, fine_tune=3)").compress(
        click_model, tuning
    )
    zero = linear_weights(once) == 0
    assert torch.equal(linear_weights(tuned) == 0, zero)
    assert (linear_weights(tuned) != linear_weights(once))[~zero].all()
    assert tuned.state_dict().keys() == before.keys()
    assert [type(m) for m in tuned.modules()] == [type(m) for m in click_model.modules()]
    assert all(torch.equal(t, before[name]) for name, t in click_model.state_dict().items())


def test_rounds_zero_more_and_more_by_the_cubic_rule(
    click_model: nn.Module, context: Context
) -> None:
    shares = []

    def watched(model: nn.Module, epochs: int) -> nn.Module:
        shares.append((linear_weights(model) == 0).float().mean().item())
        return trained_on(model, epochs)

    gradual = TECHNIQUES.make("prune-unstructured(ratio=0.8, fine_tune=2, rounds=4)")
    pruned = gradual.compress(click_model, dataclasses.replace(context, tune=watched))
    assert shares == pytest.approx([0.4625, 0.7, 0.7875, 0.8], abs=1e-3)
    assert (linear_weights(pruned) == 0).float().mean().item() == pytest.approx(0.8, abs=1e-3)


def test_rounds_without_training_come_to_the_same_as_one(
    click_model: nn.Module, context: Context
) -> None:
    once, gradual = (
        TECHNIQUES.make(f"prune-unstructured(rounds={n})").compress(click_model, context)
        for n in (1, 3)
    )
    assert torch.equal(linear_weights(once), linear_weights(gradual))


TUNED = ["prune-structured", "prune-unstructured", "drop-layers"]


@pytest.mark.parametrize("name", TUNED)
def test_to_fine_tune_without_data_is_an_error(
    click_model: nn.Module, context: Context, name: str
) -> None:
    with pytest.raises(LeanRecError, match=r"cannot be fine-tuned.*set fine_tune to 0"):
        TECHNIQUES.make(f"{name}(fine_tune=1)").compress(click_model, context)


@pytest.mark.parametrize("name", [*TUNED, "prune-2to4"])
@pytest.mark.parametrize("epochs", ["-1", "1.5", '"one"'])
def test_epochs_below_0_or_not_whole_are_an_error(name: str, epochs: str) -> None:
    with pytest.raises(LeanRecError, match="fine_tune"):
        TECHNIQUES.make(f"{name}(fine_tune={epochs})")


def test_no_rounds_are_an_error() -> None:
    with pytest.raises(LeanRecError, match="rounds"):
        TECHNIQUES.make("prune-unstructured(rounds=0)")


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
