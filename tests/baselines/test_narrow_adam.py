"""Adam with moments in bfloat16: Adam's own path but for rounding, in half the memory."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from baselines.base import Recipe
from baselines.narrow_adam import MOMENTS, NarrowAdam, round_stochastically
from baselines.tasks.ctr import CTR
from baselines.trainer import Trainer

CPU = torch.device("cpu")


def _path(optimiser: torch.optim.Optimizer, weight: nn.Parameter, steps: int) -> Tensor:
    """Where `weight` is after gradients that point one way, with noise."""
    generator = torch.Generator().manual_seed(3)
    for _ in range(steps):
        weight.grad = 0.3 + torch.randn(weight.shape, generator=generator)
        optimiser.step()
    return weight.detach()


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("decoupled", [False, True])
def test_goes_the_way_of_adam(decay: float, decoupled: bool) -> None:
    torch.manual_seed(0)
    ours, theirs = (nn.Parameter(torch.linspace(-1, 1, 600).view(20, 30)) for _ in range(2))
    adam = torch.optim.AdamW if decoupled else torch.optim.Adam
    mine = NarrowAdam([ours], 1e-2, weight_decay=decay, decoupled=decoupled)
    start = ours.detach().clone()
    exact = _path(adam([theirs], 1e-2, weight_decay=decay), theirs, 60)
    error = (_path(mine, ours, 60) - exact).norm() / (exact - start).norm()
    assert error < 0.03
    assert ours.dtype == torch.float32


def test_the_first_step_is_adams_own() -> None:
    ours, theirs = (nn.Parameter(torch.ones(4, 5)) for _ in range(2))
    exact = _path(torch.optim.Adam([theirs], 1e-2), theirs, 1)
    torch.testing.assert_close(_path(NarrowAdam([ours], 1e-2), ours, 1), exact)


def test_the_second_moment_forgets() -> None:
    """It falls by a thousandth a step, less than half a step of bfloat16."""
    weight = nn.Parameter(torch.zeros(100, 100))
    optimiser = NarrowAdam([weight], 1e-3)
    weight.grad = torch.ones(100, 100)
    optimiser.step()
    (before,) = (state["exp_avg_sq"].float().mean() for state in optimiser.state.values())
    weight.grad = torch.zeros(100, 100)
    for _ in range(200):
        optimiser.step()
    after = optimiser.state[weight]["exp_avg_sq"].float().mean()
    torch.testing.assert_close(after / before, torch.tensor(0.999**200), rtol=0.01, atol=0)


@given(st.floats(2.0**-100, 2.0**100, width=32), st.booleans())
@settings(max_examples=60)
def test_rounding_keeps_the_expectation_and_takes_a_neighbour(size: float, negative: bool) -> None:
    torch.manual_seed(0)
    x = torch.full((20_000,), -size if negative else size)
    rounded = round_stochastically(x.clone()).double()
    step = 2.0**-7 * x[0].double().abs()
    assert ((rounded - x).abs() <= step).all()
    assert abs(rounded.mean() - x[0]) <= 5 * step / 20_000**0.5


@pytest.mark.parametrize("x", [0.0, 1.0, -2.0, float("inf"), float("-inf")])
def test_what_bfloat16_holds_stays(x: float) -> None:
    assert torch.equal(round_stochastically(torch.full((99,), x)).float(), torch.full((99,), x))


@pytest.mark.parametrize("shape", [(), (0,), (1,), (7, 3)])
def test_takes_parameters_of_any_shape(shape: tuple[int, ...]) -> None:
    weight = nn.Parameter(torch.ones(shape))
    assert _path(NarrowAdam([weight], 1e-2), weight, 2).shape == shape


def test_a_parameter_without_a_gradient_stays() -> None:
    weight = nn.Parameter(torch.ones(3))
    optimiser = NarrowAdam([weight])
    optimiser.step()
    assert torch.equal(weight.detach(), torch.ones(3))
    assert not optimiser.state


def test_saved_moments_come_back_to_the_bit() -> None:
    weight = nn.Parameter(torch.ones(8, 8))
    optimiser = NarrowAdam([weight], 1e-2)
    _path(optimiser, weight, 3)
    again = NarrowAdam([nn.Parameter(torch.ones(8, 8))], 1e-2)
    again.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    (mine,), (its,) = optimiser.state.values(), again.state.values()
    assert mine["step"] == its["step"] == 3
    for name in MOMENTS:
        assert its[name].dtype == torch.bfloat16
        assert torch.equal(mine[name], its[name])


def _state_bytes(recipe: Recipe) -> dict[str, int]:
    """Bytes of the moments of a table and of a layer after a step."""
    model: Any = nn.Sequential(nn.Embedding(50, 16), nn.Linear(16, 1), nn.Flatten(0))
    trainer = Trainer(model, CTR(), recipe, CPU, 0)
    trainer.step((torch.arange(8), torch.ones(8)))
    held = {p: s for optimiser in trainer.optimisers for p, s in optimiser.state.items()}
    return {
        name: sum(held[p][moment].nbytes for moment in MOMENTS)
        for name, p in (("table", model[0].weight), ("layer", model[1].weight))
    }


@pytest.mark.parametrize("optimiser", ["adam", "adamw"])
def test_a_trainers_state_is_half_as_large(optimiser: Any) -> None:
    whole = Recipe(optimiser=optimiser)
    half = dataclasses.replace(whole, moments="bfloat16")
    assert _state_bytes(half) == {name: n / 2 for name, n in _state_bytes(whole).items()}


def test_sparse_tables_keep_theirs() -> None:
    whole = Recipe(sparse_embeddings=True)
    half = _state_bytes(dataclasses.replace(whole, moments="bfloat16"))
    exact = _state_bytes(whole)
    assert (half["table"], half["layer"]) == (exact["table"], exact["layer"] / 2)
