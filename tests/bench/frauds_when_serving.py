"""A plug-in of a technique that fails only in a process started anew."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from techniques.base import Change, Context, Technique, technique


class Shifted(nn.Module):
    """Serves something else than `predictor` does."""

    def __init__(self, predictor: nn.Module) -> None:
        super().__init__()
        self.predictor = predictor

    def forward(self, *request: Tensor) -> Any:
        return self.predictor(*request) + 1


@technique("breaks-anew")
@dataclass(frozen=True)
class BreaksAnew(Technique):
    """Serves as it should, but for a process that was started to serve."""

    how: str = "raises"
    family = "test"
    changes = frozenset({Change.NUMERICS})

    def deploy(self, predictor: nn.Module, context: Context) -> nn.Module:
        if Path(sys.argv[0]).stem != "cold_start":
            return predictor
        if self.how == "raises":
            raise RuntimeError("no such kernel")
        if self.how == "silent":
            sys.exit(0)
        if self.how == "hangs":
            time.sleep(600)
        return Shifted(predictor)
