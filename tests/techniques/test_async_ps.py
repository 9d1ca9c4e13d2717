"""Asynchronous training as a technique."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from baselines.base import Asynchronous, Recipe
from baselines.errors import LeanRecError
from baselines.registry import format_spec
from techniques.base import TECHNIQUES, Context


def test_the_recipe_is_told_how_many_and_how_stale() -> None:
    context = Context("ctr", torch.device("cpu"), 0)
    recipe = TECHNIQUES.make("async-ps(workers=3, staleness=0)").train(Recipe(), context)
    assert recipe == Recipe(asynchronous=Asynchronous(3, 0))


@pytest.mark.parametrize("wrong", ["workers=0", "staleness=-1", 'workers="many"', "rounds=2"])
def test_what_cannot_be_is_refused(wrong: str) -> None:
    with pytest.raises(LeanRecError, match=wrong.partition("=")[0]):
        TECHNIQUES.make(f"async-ps({wrong})")


def test_it_is_for_the_cpu() -> None:
    technique = TECHNIQUES.make("async-ps")
    assert format_spec(technique) == "async-ps"
    assert technique.reason_against(nn.Linear(1, 1), "ctr", "cpu") is None
    assert technique.reason_against(nn.Linear(1, 1), "ctr", "cuda") == "needs the device cpu"
    assert technique.reason_against(nn.ReLU(), "ctr", "cpu") == "finds no weights in the model"
