"""Fine-tuning: a compressed model trained some epochs more, once for all that serve it."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from baselines.base import Dataset, Recipe
from baselines.checkpoint import save
from baselines.errors import LeanRecError
from baselines.trainer import Trainer
from bench.store import Store
from techniques.surgery import copy_with

RATE = 0.1  # of the rate that the model was trained with


@dataclass
class Tuner:
    """What one technique of a stack has as its `Context.tune`.

    key: what the model that it tunes depends on, asked for at the first call. trainer: makes a
    trainer of a model in a recipe. earlier: seconds that the results took which were in the store
    already; what is tuned now takes its time now.
    """

    store: Store
    key: Callable[[], dict[str, object]]
    trainer: Callable[[nn.Module, Recipe], Trainer]
    recipe: Recipe
    data: Dataset
    calls: int = 0
    earlier: float = 0.0

    def __call__(self, model: nn.Module, epochs: int) -> nn.Module:
        """See `Context.tune`. `model` is left alone.

        Raises LeanRecError where the baseline is not trained at all, NonFiniteLoss where it
        diverges.
        """
        if epochs == 0:
            return model
        if self.recipe.epochs == 0:
            raise LeanRecError(
                "The model is complete when built: it has no training to go on with.",
                "It was not compressed.",
                "Set fine_tune to 0 for this baseline.",
            )
        key = {**self.key(), "call": self.calls, "epochs": epochs}
        self.calls += 1
        folder, made = self.store.ensure("tuned", key, lambda f: self._make(model, epochs, f))
        if not made:
            self.earlier += json.loads((folder / "tuning.json").read_text())["seconds"]
        device = next(model.parameters()).device
        weights = torch.load(folder / "weights.pt", map_location=device, weights_only=True)
        return _with_weights(model, weights)

    def _make(self, model: nn.Module, epochs: int, folder: Path) -> None:
        start = time.perf_counter()
        tuned = copy.deepcopy(model)
        before = self.trainer(tuned, replace(self.recipe, epochs=0)).fit(self.data)
        history = self.trainer(tuned, tuning_recipe(self.recipe, epochs)).fit(self.data)
        valid = [before.epochs[0].valid, *(epoch.valid for epoch in history.epochs)]
        best = max(valid) if history.direction == "higher" else min(valid)
        kept = model if valid[0] == best else tuned
        save(kept.state_dict(), folder / "weights.pt")
        seconds = time.perf_counter() - start
        told = {"seconds": seconds, "metric": history.metric, "valid": valid}
        (folder / "tuning.json").write_text(json.dumps(told))


def tuning_recipe(recipe: Recipe, epochs: int) -> Recipe:
    """`recipe` at a tenth of its rates, without warm-up, for all of the epochs."""
    return replace(
        recipe,
        lr=recipe.lr * RATE,
        own_rates={name: rate * RATE for name, rate in recipe.own_rates.items()},
        warmup_steps=0,
        epochs=epochs,
        patience=epochs,
    )


def _with_weights(model: nn.Module, weights: dict[str, Tensor]) -> nn.Module:
    """A copy of `model` that holds `weights`, by the names of a state dict, in place of its own."""
    held: dict[Any, Tensor] = {
        old: nn.Parameter(weights[name], requires_grad=old.requires_grad)
        for name, old in model.named_parameters()
    }
    held |= {old: weights[name] for name, old in model.named_buffers() if name in weights}
    return copy_with(model, held)
