"""The model as a graph, compiled ahead of the calls that it serves."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from techniques.base import Context, Technique, technique


@technique("compile")
@dataclass(frozen=True)
class Compile(Technique):
    """`torch.compile` of what is served.

    Source: Ansel et al., "PyTorch 2", ASPLOS 2024. Batch sizes are symbolic: one graph serves
    batch 1 and one all larger batches, where a graph for each size would be compiled until the
    recompilation limit and then be dropped, silently, for eager code. The first call of each
    takes seconds: preparation, to be paid off by the calls that follow. Expect little on a
    CPU where matrix products dominate. Sums are taken in another order: the last bits differ.
    """

    family = "graph"

    def reason_against(self, model: nn.Module, task: str, device: str) -> str | None:
        """As `requires` says, or because there is no compiler for the code that torch writes."""
        compiler = os.environ.get("CXX", "g++")
        if not shutil.which(compiler):
            return f"needs the C++ compiler {compiler}, which is not installed"
        return super().reason_against(model, task, device)

    def deploy(self, predictor: nn.Module, context: Context) -> nn.Module:
        """Compile; the work is done by the first calls."""
        return cast(nn.Module, torch.compile(predictor, dynamic=True))
