"""The contract of a technique: a class that overrides the pipeline stages it changes.

    prepare(data) → build(model) → train(recipe) → compress(model) → deploy(predictor)

A technique is applied to a baseline from outside and never touches what the control holds: each
stage returns a new object, or the one it was given where it changes nothing.
"""

from __future__ import annotations

import enum
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import nn

from baselines.base import Batch, Dataset, Recipe, Split
from baselines.errors import LeanRecError
from baselines.registry import Registry


class Change(enum.StrEnum):
    """What a technique declares that it changes; checked against what is observed."""

    NUMERICS = "numerics"  # outputs differ from the control's
    SIZE = "size"  # the deployed predictor's bytes differ from the control's
    REPEATS = "repeats"  # what a request asks for is answered faster once it was asked for before


@dataclass(frozen=True)
class Requires:
    """Where a technique applies. What is left empty asks for nothing."""

    tasks: frozenset[str] = frozenset()
    devices: frozenset[str] = frozenset()
    packages: frozenset[str] = frozenset()
    modules: tuple[type[nn.Module], ...] = ()  # the model must hold at least one of these
    weights: bool = False  # the model must have some

    def reason_against(self, task: str, device: str, model: nn.Module) -> str | None:
        """Why it does not apply, in words for the report; None where it does."""
        if self.tasks and task not in self.tasks:
            return f"is made for {' or '.join(sorted(self.tasks))}, not for {task}"
        if self.devices and device not in self.devices:
            return f"needs the device {' or '.join(sorted(self.devices))}"
        missing = sorted(p for p in self.packages if importlib.util.find_spec(p) is None)
        if missing:
            return f"needs the package {' and '.join(missing)}, which is not installed"
        if self.modules and not any(isinstance(m, self.modules) for m in model.modules()):
            return f"finds no {' or '.join(m.__name__ for m in self.modules)} in the model"
        if self.weights and next(model.parameters(), None) is None:
            return "finds no weights in the model"
        return None


def _without_training(model: nn.Module, epochs: int) -> nn.Module:
    """The `tune` of a context that has nothing to train with."""
    if epochs:
        raise LeanRecError(
            "A compressed model cannot be fine-tuned without data and recipe.",
            "It was not compressed.",
            "Give the Context a `tune`, as a Pipeline does, or set fine_tune to 0.",
        )
    return model


@dataclass(frozen=True)
class Context:
    """What a stage may know beside the object it changes.

    tune: gives a copy of a compressed model, trained for so many epochs more; the model itself, for
    0 epochs. Its best epoch is kept, or its state before. For `compress` alone.
    """

    task: str
    device: torch.device
    seed: int
    examples: tuple[Batch, ...] = field(default_factory=tuple)  # requests, for calibration
    train: Split | None = None  # what was trained on, for counting; from compress on
    tune: Callable[[nn.Module, int], nn.Module] = _without_training


class Technique:
    """One efficiency change. Subclass it as a frozen dataclass; its fields are its parameters."""

    name: ClassVar[str]
    family: ClassVar[str]
    requires: ClassVar[Requires] = Requires()
    changes: ClassVar[frozenset[Change]] = frozenset()
    caches: ClassVar[bool] = False  # what it serves holds a `techniques.caching.counters.Cache`
    fine_tune: int = 0  # epochs that `compress` asks of `Context.tune`

    def prepare(self, data: Dataset, context: Context) -> Dataset:
        """Change the data."""
        return data

    def build(self, model: nn.Module, context: Context) -> nn.Module:
        """Change the fresh model before it is trained."""
        return model

    def train(self, recipe: Recipe, context: Context) -> Recipe:
        """Change how the model is trained."""
        return recipe

    def compress(self, model: nn.Module, context: Context) -> nn.Module:
        """Change the trained model; return a new one."""
        return model

    def deploy(self, predictor: nn.Module, context: Context) -> nn.Module:
        """Change what is served."""
        return predictor

    def online(self, recipe: Recipe) -> Recipe | None:
        """How what is served goes on learning from what becomes known while it answers; None where
        it does not. recipe: the baseline's. Where it does, `deploy` gives a DoubleBuffered."""
        return None

    def reason_against(self, model: nn.Module, task: str, device: str) -> str | None:
        """Why this technique does not apply to `model`; None where it does."""
        return self.requires.reason_against(task, device, model)

    def explain(self, model: nn.Module, context: Context) -> str:
        """What to expect on `model` and why, in words for the report; "" where nothing is known.

        model, context: what `compress` is given.
        """
        return ""

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages that this technique overrides, in pipeline order."""
        return tuple(s for s in STAGES if getattr(type(self), s) is not getattr(Technique, s))


STAGES = ("prepare", "build", "train", "compress", "deploy")
TECHNIQUES: Registry[Technique] = Registry("technique", "techniques", "leanrec.techniques")
technique = TECHNIQUES.register
