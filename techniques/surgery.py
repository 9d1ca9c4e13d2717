"""Look into a model, and change parts of it without touching, or copying, the rest."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def holdings(model: nn.Module) -> Iterator[Tensor | torch.ScriptObject]:
    """All that a model's modules hold: parameters, buffers, other tensors, packed weights."""
    for module in model.modules():
        attributes = vars(module).values()
        for held in (*module._parameters.values(), *module._buffers.values(), *attributes):
            if isinstance(held, (Tensor, torch.ScriptObject)):
                yield held


def exactly(model: nn.Module, kind: type[M]) -> list[M]:
    """The modules of class `kind`, each once. Not subclasses, whose owners expect their insides."""
    return [module for module in model.modules() if type(module) is kind]


def copy_with(
    model: nn.Module, replaced: Mapping[Any, nn.Module | Tensor] | None = None
) -> nn.Module:
    """A copy of `model` with other modules, or tensors, in place of those that `replaced` maps.

    The copy has modules of its own but shares all other weights with `model`, so that a table of
    many gigabytes is held once: put new tensors into it, never write into those it holds.
    """
    memo: dict[int, object] = {id(held): held for held in holdings(model)}
    memo |= {id(old): new for old, new in (replaced or {}).items()}
    return copy.deepcopy(model, memo)
