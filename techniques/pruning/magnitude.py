"""Pruning: weights, units and layers that matter least, taken out after training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import nn

from baselines.base import Batch
from techniques.base import Change, Context, Requires, Technique, technique
from techniques.pruning.cost import multiply_adds
from techniques.pruning.heads import can_lose
from techniques.pruning.hidden_units import prune_hidden_units
from techniques.pruning.sparsity import largest, zeroed
from techniques.surgery import copy_with, exactly

Ratio = Annotated[float, Field(gt=0, lt=1)]
Epochs = Annotated[int, Field(ge=0)]
STACKS = ("blocks", "cross")  # names of lists of layers that keep the width of what they are given


@technique("prune-structured")
@dataclass(frozen=True)
class PruneStructured(Technique):
    """Take out the share `ratio` of each MLP layer's hidden units, and of the heads of attention.

    Source: Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023, with Torch-Pruning;
    heads as in Michel et al., "Are Sixteen Heads Really Better than One?", NeurIPS 2019. Those of
    least magnitude go. Layers get narrower, so it is faster without special kernels. Inputs,
    embeddings, outputs and layers whose width is tied to those (cross layers, a transformer's
    states) stay, as does the only head of a layer. Multiply-adds between pruned layers fall with
    the square of 1 − `ratio`, time by less. Quality drops, and comes back in part by `fine_tune`
    epochs of training afterwards.
    """

    ratio: Ratio = 0.5
    fine_tune: Epochs = 0
    family = "pruning"
    requires = Requires(
        tasks=frozenset({"ctr", "sequence"}),  # of two towers the items' is not served
        packages=frozenset({"torch_pruning"}),
        modules=(nn.Linear,),
    )
    changes = frozenset({Change.NUMERICS, Change.SIZE})

    def reason_against(self, model: nn.Module, task: str, device: str) -> str | None:
        """As `requires` says, or because a sequence model has neither heads nor units to lose."""
        reason = super().reason_against(model, task, device)
        if reason is None and task == "sequence" and not can_lose(model, self.ratio):
            return "finds no attention that would lose a head or has a feed-forward block"
        return reason

    def explain(self, model: nn.Module, context: Context) -> str:
        """What is left of the multiply-adds of a request."""
        request = _request(context)
        pruned = prune_hidden_units(model, request, self.ratio)
        left = multiply_adds(pruned, request) / multiply_adds(model, request)
        return (
            f"prune-structured: {left:.2f} × the multiply-adds of a request; {1 / left:.2f} × the "
            "speed where the time is theirs"
        )

    def compress(self, model: nn.Module, context: Context) -> nn.Module:
        """Prune a copy; raises LeanRecError where the model has no hidden units to take."""
        return context.tune(
            prune_hidden_units(model, _request(context), self.ratio), self.fine_tune
        )


@technique("prune-unstructured")
@dataclass(frozen=True)
class PruneUnstructured(Technique):
    """Set the share `ratio` of all linear layers' weights to zero, those of least magnitude.

    Source: Han et al., "Learning both Weights and Connections for Efficient Neural Networks",
    NeurIPS 2015, with `torch.nn.utils.prune`. The honest verdict is "no faster, no smaller": the
    zeros are stored and multiplied like any number. What it buys is a sparsity that other
    formats may use. With `fine_tune`, the weights that stay are trained so many epochs afterwards.
    In several `rounds` more is zeroed each time, with that training in between, by the cubic rule
    of Zhu and Gupta, "To Prune, or Not to Prune", 2017, arXiv:1710.01878: much at first, little at
    the end. Rounds without training come to the same as one. What fine-tunes later in a stack
    trains the zeros too.
    """

    ratio: Ratio = 0.5
    fine_tune: Epochs = 0
    rounds: Annotated[int, Field(ge=1)] = 1
    family = "pruning"
    requires = Requires(modules=(nn.Linear,))
    changes = frozenset({Change.NUMERICS})

    def compress(self, model: nn.Module, context: Context) -> nn.Module:
        """Zero weights of a copy, ranked over all linear layers together."""
        for n in range(1, self.rounds + 1):
            share = self.ratio * (1 - (1 - n / self.rounds) ** 3)
            masks = largest(exactly(model, nn.Linear), share)
            model = zeroed(model, masks, lambda m: context.tune(m, self.fine_tune))
        return model


@technique("drop-layers")
@dataclass(frozen=True)
class DropLayers(Technique):
    """Take out the share `ratio` of each stack of layers, rounded down: the last ones.

    Source: Sajjad et al., "On the Effect of Dropping Layers of Pre-trained Transformer Models",
    Computer Speech & Language 2023, arXiv:2004.03844, where keeping the first layers was best. A
    stack is an `nn.ModuleList` named ``blocks`` (a transformer's) or ``cross`` (DCN-V2's), whose
    layers add to what they are given. Time spent in the stack falls with its depth, without
    special kernels. Quality falls, since what follows the stack reads states that it was not
    trained on; `fine_tune` epochs of training afterwards, as in the paper, bring some of it back.
    """

    ratio: Ratio = 0.5
    fine_tune: Epochs = 0
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
        return f"drop-layers: {told}"

    def compress(self, model: nn.Module, context: Context) -> nn.Module:
        """Cut the stacks of a copy, which shares all weights that stay with `model`."""
        shallow = copy_with(model)
        for stack, kept in self._losing(shallow).values():
            del stack[kept:]
        return context.tune(shallow, self.fine_tune)


def _request(context: Context) -> Batch:
    return tuple(tensor.to(context.device) for tensor in context.examples[0])
