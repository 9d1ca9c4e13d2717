"""A scaled loss: the same steps, small gradients kept in float16, overflowing steps left out."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from baselines.base import Batch, Recipe
from baselines.tasks.ctr import CTR
from baselines.trainer import Trainer

CPU = torch.device("cpu")
BATCH = (torch.arange(8), torch.arange(8).remainder(2).float())
FLOAT16: Any = partial(torch.autocast, "cpu", torch.float16)


class Scaled(CTR):
    """Click-through with a loss of any size."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        object.__setattr__(self, "factor", factor)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return self.factor * super().loss(model, batch)  # type: ignore[attr-defined]


def _after(recipe: Recipe, factor: float = 1.0, steps: int = 3) -> tuple[nn.Module, Trainer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(10, 16), nn.Linear(16, 16), nn.Linear(16, 1), nn.Flatten(0))
    trainer = Trainer(model, Scaled(factor), recipe, CPU, 0)
    for _ in range(steps):
        loss = trainer.step(BATCH)
        assert loss.dtype == torch.float32
    return model, trainer


@pytest.mark.parametrize("sparse", [False, True])
def test_in_float32_the_steps_are_those_of_the_plain_loss(sparse: bool) -> None:
    plain, scaled = (
        _after(Recipe(clip_norm=0.01, sparse_embeddings=sparse, scale_loss=scale))[0]
        for scale in (False, True)
    )
    for a, b in zip(plain.parameters(), scaled.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("scale", [False, True])
def test_small_gradients_of_float16_vanish_unless_the_loss_is_scaled(scale: bool) -> None:
    recipe = Recipe(scale_loss=scale, contexts=(FLOAT16,))
    start = [p.detach().clone() for p in _after(recipe, steps=0)[0].parameters()]
    moved = [p.detach() for p in _after(recipe, factor=1e-7, steps=1)[0].parameters()]
    table = (moved[0] - start[0])[:8]
    assert bool(table.abs().max() > 1e-4) is scale


def test_a_step_whose_gradients_overflow_is_left_out_and_the_scale_halved() -> None:
    recipe = Recipe(scale_loss=True, contexts=(FLOAT16,))
    model, trainer = _after(recipe, factor=1e4, steps=0)
    start = [p.detach().clone() for p in model.parameters()]
    before = trainer.scaler.get_scale()
    trainer.step(BATCH)
    assert trainer.scaler.get_scale() == before / 2
    for a, b in zip(start, model.parameters(), strict=True):
        assert torch.equal(a, b)
    for _ in range(30):
        trainer.step(BATCH)
    assert all(p.isfinite().all() for p in model.parameters())
    assert not torch.equal(start[0], model[0].weight)


@pytest.mark.cuda
def test_scales_on_cuda() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(10, 16), nn.Linear(16, 1), nn.Flatten(0))
    recipe = Recipe(scale_loss=True, contexts=(partial(torch.autocast, "cuda", torch.float16),))
    trainer = Trainer(model, CTR(), recipe, torch.device("cuda"), 0)
    losses = [trainer.step(tuple(t.cuda() for t in BATCH)) for _ in range(50)]
    assert losses[-1] < losses[0]
