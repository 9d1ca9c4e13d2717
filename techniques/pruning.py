"""Pruning: weights, units and layers that matter least, taken out after training."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import nn
from torch.nn.utils import prune

from techniques.base import Change, Context, Requires, Technique, technique
from techniques.hidden_units import prune_hidden_units
from techniques.surgery import copy_with, exactly

Ratio = Annotated[float, Field(gt=0, lt=1)]
STACKS = ("blocks", "cross")  # names of lists of layers that keep the width of what they are given


@technique("prune-structured")
@dataclass(frozen=True)
class PruneStructured(Technique):
    """Take out the share `ratio` of each MLP layer's hidden units, those of least magnitude.

    Source: Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023, with Torch-Pruning.
    Layers get narrower, so it is faster without special kernels. Inputs, embeddings, outputs and
    layers whose width is tied to those (cross layers) stay. There is no fine-tuning afterwards,
    so accuracy drops. Multiply-adds between pruned layers fall with the square of 1 − `ratio`,
    time by less.
    """

    ratio: Ratio = 0.5
    family = "pruning"
    requires = Requires(
        # Attention's units belong to heads, and of two towers the items' is not served.
        tasks=frozenset({"ctr"}),
        packages=frozenset({"torch_pruning"}),
        modules=(nn.Linear,),
    )
    changes = frozenset({Change.NUMERICS, Change.SIZE})

    def compress(self, model: nn.Module, context: Context) -> nn.Module:
        """Prune a copy; raises LeanRecError where the model has no hidden units to take."""
        request = tuple(tensor.to(context.device) for tensor in context.examples[0])
        return prune_hidden_units(model, request, self.ratio)


@technique("prune-unstructured")
@dataclass(frozen=True)
class PruneUnstructured(Technique):
    """Set the share `ratio` of all linear layers' weights to zero, those of least magnitude.

    Source: Han et al., "Learning both Weights and Connections for Efficient Neural Networks",
    NeurIPS 2015, with `torch.nn.utils.prune`. The honest verdict is "no faster, no smaller": the
    zeros are stored and multiplied like any number. What it buys is a sparsity that other
    formats may use. The masks and hooks that torch prunes with are taken off: left in place they
    double the checkpoint and slow every call.
    """

    ratio: Ratio = 0.5
    family = "pruning"
    requires = Requires(modules=(nn.Linear,))
    changes = frozenset({Change.NUMERICS})

    def compress(self, model: nn.Module, context: Context) -> nn.Module:
        """Zero weights in copies of the linear layers, ranked over all layers together."""
        layers: dict[nn.Module, nn.Module] = {
            layer: copy.deepcopy(layer) for layer in exactly(model, nn.Linear)
        }
        weights = [(layer, "weight") for layer in layers.values()]
        prune.global_unstructured(weights, prune.L1Unstructured, amount=self.ratio)
        for layer, name in weights:
            prune.remove(layer, name)
        return copy_with(model, layers)


@technique("drop-layers")
@dataclass(frozen=True)
class DropLayers(Technique):
    """Take out the share `ratio` of each stack of layers, rounded down: the last ones.

    Source: Sajjad et al., "On the Effect of Dropping Layers of Pre-trained Transformer Models",
    Computer Speech & Language 2023, arXiv:2004.03844, where keeping the first layers was best. A
    stack is an `nn.ModuleList` named ``blocks`` (a transformer's) or ``cross`` (DCN-V2's), whose
    layers add to what they are given. Time spent in the stack falls with its depth, without
    special kernels. The paper fine-tunes afterwards; here there is none, so quality falls: what
    follows the stack reads states that it was not trained on.
    """

    ratio: Ratio = 0.5
    family = "pruning"
    changes = frozenset({Change.NUMERICS, Change.SIZE})

    def _losing(self, model: nn.Module) -> dict[str, tuple[nn.ModuleList, int]]:
        """Path of each stack that loses layers → the stack, and how many of them stay."""
        losing = {}
        for path, module in model.named_modules():
            if isinstance(module, nn.ModuleList) and path.rpartition(".")[2] in STACKS:
                lost = int(self.ratio * len(module))
                if lost:
                    losing[path] = module, len(module) - lost
        return losing

    def reason_against(self, model: nn.Module, task: str, device: str) -> str | None:
        """As `requires` says, or because no stack is deep enough to lose a layer."""
        reason = super().reason_against(model, task, device)
        if reason is None and not self._losing(model):
            named = " or ".join(STACKS)
            return f"finds no list of layers named {named} that would lose one of them"
        return reason

    def explain(self, model: nn.Module, context: Context) -> str:
        """What stays of each stack."""
        told = " and ".join(
            f"{path} keeps {kept} of {len(stack)} layers"
            for path, (stack, kept) in self._losing(model).items()
        )
        return f"drop-layers: {told}; nothing is trained again"

    def compress(self, model: nn.Module, context: Context) -> nn.Module:
        """Cut the stacks of a copy, which shares all weights that stay with `model`."""
        shallow = copy_with(model)
        for stack, kept in self._losing(shallow).values():
            del stack[kept:]
        return shallow
