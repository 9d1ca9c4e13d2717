"""Quantisation-aware training: it trains what int8 serves, and saves what a plain model holds."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from baselines.base import BASELINES, Batch
from baselines.trainer import Trainer
from bench.device import get_device
from bench.pipeline import Pipeline
from bench.store import Store
from techniques.base import TECHNIQUES, Context
from techniques.quantisation.quantised_linear import (
    FakeQuantisedLinear,
    QuantisedLinear,
    quantise_linear,
)

QAT = TECHNIQUES.make("qat-int8")
SPEC = 'dcnv2(dataset="planted(rows=2000, ids=300)", width=64, depth=1)'


@pytest.mark.parametrize("shape", [(1, 96), (40, 96), (3, 7, 96)])
@pytest.mark.parametrize("shift", [-3.0, 0.0, 5.0])
def test_training_multiplies_what_int8_multiplies(shape: tuple[int, ...], shift: float) -> None:
    layer = nn.Linear(96, 80)
    x = torch.randn(shape) + shift
    fake, real = FakeQuantisedLinear.of(layer)(x), quantise_linear(layer)(x)
    # Not to the bit: the two may round a tie to either side.
    assert (fake - real).norm() < 0.1 * (fake - layer(x)).norm()


def test_gradients_pass_the_rounding_as_if_it_were_not_there() -> None:
    layer, x = nn.Linear(8, 4), torch.randn(16, 8, requires_grad=True)
    FakeQuantisedLinear.of(layer)(x).sum().backward()
    assert x.grad is not None
    assert layer.weight.grad is not None
    torch.testing.assert_close(x.grad, layer.weight.sum(0).expand(16, 8), rtol=0, atol=0.05)
    torch.testing.assert_close(layer.weight.grad, x.sum(0).expand(4, 8), rtol=0, atol=0.3)


def test_the_int8_model_answers_as_the_trained_one(
    click_model: nn.Module, request_batch: Batch, context: Context
) -> None:
    built = QAT.build(click_model, context).eval()
    served = QAT.compress(built, context)
    torch.testing.assert_close(served(*request_batch), built(*request_batch), rtol=1e-2, atol=1e-2)
    assert type(served.mlp[4]) is QuantisedLinear
    assert served.mlp[4].weight().int_repr().dtype == torch.int8
    assert type(built.mlp[4]) is FakeQuantisedLinear
    assert type(click_model.mlp[4]) is nn.Linear


def test_weights_keep_their_names_and_their_places(
    click_model: nn.Module, context: Context
) -> None:
    built = QAT.build(click_model, context)
    assert list(built.state_dict()) == list(click_model.state_dict())
    for mine, its in zip(built.parameters(), click_model.parameters(), strict=True):
        assert mine is its


def test_only_wide_layers_are_rounded(click_model: nn.Module, context: Context) -> None:
    built = TECHNIQUES.make("qat-int8(min_width=100)").build(click_model, context)
    kinds = [type(m) for m in (built.mlp[0], built.mlp[4], built.head)]
    assert kinds == [nn.Linear, FakeQuantisedLinear, nn.Linear]


def test_training_lowers_the_loss_of_the_rounded_model(
    click_model: nn.Module, request_batch: Batch, context: Context
) -> None:
    model = QAT.build(copy.deepcopy(click_model), context).train()
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    labels = torch.arange(64).remainder(2).float()

    def step() -> Tensor:
        loss = nn.functional.binary_cross_entropy_with_logits(model(*request_batch), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss.detach()

    first, *_, last = [step() for _ in range(30)]
    assert last < first / 2


@pytest.mark.slow
def test_a_pipeline_trains_saves_and_serves_it(tmp_path: Path) -> None:
    baseline = BASELINES.make(SPEC)
    pipeline = Pipeline(baseline, (QAT,), get_device("cpu"), 0, Store(tmp_path))
    assert pipeline.changes_training
    assert pipeline.reason_against() is None
    model = pipeline.trained_model()
    assert any(type(module) is FakeQuantisedLinear for module in model.modules())
    predictor = pipeline.predictor(model)
    assert any(type(module) is QuantisedLinear for module in predictor.modules())
    (request, *_) = pipeline.context.examples
    rounded = baseline.task.predictor(model, pipeline.data)
    with torch.inference_mode():
        torch.testing.assert_close(predictor(*request), rounded(*request), rtol=1e-2, atol=1e-2)


def test_the_recipe_is_the_baselines_own(context: Context) -> None:
    recipe = BASELINES.make(SPEC).recipe
    assert QAT.train(recipe, context) is recipe
    trainer = Trainer(
        QAT.build(nn.Sequential(nn.Linear(64, 64)), context), BASELINES.make(SPEC).task,
        dataclasses.replace(recipe, epochs=1), torch.device("cpu"), 0,
    )  # fmt: skip
    assert sum(len(group["params"]) for group in trainer.optimisers[0].param_groups) == 2
