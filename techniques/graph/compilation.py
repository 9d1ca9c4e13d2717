"""The model as a graph, made cheaper to run: compiled, or with some of its layers folded away."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_linear_bn_eval

from techniques.base import Change, Context, Technique, technique
from techniques.surgery import copy_with


def without_compiler() -> str | None:
    """Why code that torch writes cannot be compiled here; None where it can."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler):
        return None
    return f"needs the C++ compiler {compiler}, which is not installed"


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
        return without_compiler() or super().reason_against(model, task, device)

    def deploy(self, predictor: nn.Module, context: Context) -> nn.Module:
        """Compile; the work is done by the first calls."""
        return cast(nn.Module, torch.compile(predictor, dynamic=True))


@technique("fold")
@dataclass(frozen=True)
class Fold(Technique):
    """Batch norms folded into the linear layers right before them.

    Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-
    Arithmetic-Only Inference", CVPR 2018, section 3.2. In evaluation mode the norm of x W + b is a
    linear map too: y = (x W + b − μ) γ / √(σ² + ε) + β, whose weights are computed once. Expect a
    few microseconds a norm at batch 1 and one pass less over the activations at large batches;
    answers differ in their last bits. Folded are pairs in an `nn.Sequential` that takes [B, in].
    """

    family = "graph"
    changes = frozenset({Change.SIZE})

    def reason_against(self, model: nn.Module, task: str, device: str) -> str | None:
        """As `requires` says, or because nothing can be folded."""
        if not _normed_linears(model):
            return "finds no batch norm right after a linear layer"
        return super().reason_against(model, task, device)

    def compress(self, model: nn.Module, context: Context) -> nn.Module:
        """Fold; the copy shares all other weights with `model`."""
        replaced: dict[nn.Module, nn.Module] = {}
        for linear, norm in _normed_linears(model):
            replaced |= {linear: fuse_linear_bn_eval(linear, norm), norm: nn.Identity()}
        return copy_with(model, replaced)


def _normed_linears(model: nn.Module) -> list[tuple[nn.Linear, nn.BatchNorm1d]]:
    """Each linear layer with the norm right after it, of fixed statistics, both used once."""
    uses = Counter(module for _, module in model.named_modules(remove_duplicate=False))
    return [
        (first, second)
        for parent in model.modules()
        if isinstance(parent, nn.Sequential)
        for first, second in pairwise(parent)
        if type(first) is nn.Linear
        and type(second) is nn.BatchNorm1d
        and second.track_running_stats
        and second.affine
        and uses[first] == uses[second] == 1
    ]
