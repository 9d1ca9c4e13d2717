"""From a predictor to a graph: what every exporter of torch needs around it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from baselines.errors import LeanRecError


class Call(nn.Module):
    """A module as one function of positional tensors, whatever its arguments are called.

    Exporters name a graph's inputs after them, and dynamic shapes are given in their order.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *request: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Takes and gives what the module does."""
        answer: Tensor | tuple[Tensor, ...] = self.module(*request)
        return answer


@contextmanager
def exporting(form: str) -> Iterator[None]:
    """What torch cannot export to `form` is a LeanRecError. No gradients are kept."""
    try:
        with torch.no_grad():
            yield
    except (RuntimeError, ValueError, TypeError) as error:  # the exporters' own are RuntimeErrors
        cause = error.__cause__ or error
        raise LeanRecError(
            f"The model cannot be exported to {form}: {str(cause).strip().splitlines()[0]}",
            "It was not deployed.",
            "Leave it out for this baseline, or techniques before it that replace layers.",
        ) from error
