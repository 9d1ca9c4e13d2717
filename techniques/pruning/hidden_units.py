"""Which units of a model are hidden, and how to take some out; whole heads in attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from baselines.base import Batch
from baselines.errors import LeanRecError
from techniques.pruning.heads import attentions, linears, prune_heads
from techniques.surgery import copy_with, exactly

NORMS = (nn.BatchNorm1d, nn.LayerNorm)


def prune_hidden_units(model: nn.Module, request: Batch, ratio: float) -> nn.Module:
    """A copy of `model` without the share `ratio` of the hidden units of each linear layer.

    A unit's magnitude is the 2-norm of its weights, those coming in and those going out. Layers of
    attention lose heads instead, as many as `ratio` takes of them, rounded down. The copy shares
    with `model` all weights that stay whole. request: an example of what the model takes.

    Raises LeanRecError where no layer has hidden units, or the model cannot do without them.
    """
    import torch_pruning as tp  # an optional package

    pruned = copy_with(model)
    widths = _run(pruned, request, "as it is")

    class Lookup(tp.ops.DummyPruner):
        """Torch-Pruning takes an embedding for one vector a row; fields side by side are many."""

        def get_out_channels(self, table: nn.Embedding) -> int:
            return widths[table]

    with torch.enable_grad():  # the graph of layers is read off autograd's
        graph = tp.DependencyGraph().build_dependency(
            pruned, example_inputs=request, customized_pruners={nn.Embedding: Lookup()}
        )
    magnitude = tp.importance.MagnitudeImportance(p=2)
    layers = attentions(pruned)
    of_heads = {linear for attention in layers for linear in linears(attention)}
    least = {}
    for layer in exactly(pruned, nn.Linear):
        if layer in of_heads:
            continue
        units = list(range(layer.out_features))
        # One unit goes first: the group of a whole layer that is cut into heads takes minutes.
        if layer in graph.module2node and all(
            _is_hidden(layer, _group(graph, layer, some)) for some in (units[:1], units)
        ):
            order = magnitude(_group(graph, layer, units)).argsort()
            least[layer] = order[: int(ratio * len(units))].tolist()
    if not least and all(int(ratio * attention.heads) == 0 for attention in layers):
        raise LeanRecError(
            "The model has no linear layer whose units are hidden.",
            "Nothing can be pruned.",
            "Prune before the techniques that replace linear layers.",
        )
    for layer, units in least.items():
        _group(graph, layer, units).prune()
    for attention in layers:
        prune_heads(attention, ratio)
    pruned.train(model.training)
    _run(pruned, request, "with hidden units taken out")
    return pruned


def _group(graph: Any, layer: nn.Linear, units: list[int]) -> Any:
    """Torch-Pruning's group: all that has to be cut when `layer` loses `units`."""
    import torch_pruning as tp

    return graph.get_pruning_group(layer, tp.prune_linear_out_channels, units)


def _is_hidden(layer: nn.Linear, group: Any) -> bool:
    """Whether all that its units reach is norms, activations and the inputs of linear layers."""
    import torch_pruning as tp

    read = False
    for dependency, _ in group:
        target = dependency.target.module
        if isinstance(target, nn.Linear) and dependency.handler == tp.prune_linear_in_channels:
            read = True
        elif target is not layer and not isinstance(target, NORMS) and _holds_width(target):
            return False
    return read


def _holds_width(target: nn.Module | nn.Parameter) -> bool:
    """Whether `target` is more than an operation: a layer or parameter, or the model's output."""
    import torch_pruning as tp

    return (
        isinstance(target, (nn.Parameter, tp.ops._OutputOp))
        or next(target.parameters(), None) is not None
    )


@torch.no_grad()
def _run(model: nn.Module, request: Batch, how: str) -> dict[nn.Module, int]:
    """How many numbers each embedding looks up for a row of `request`.

    Raises LeanRecError where the model, being `how` it is, does not run.
    """
    widths: dict[nn.Module, int] = {}

    def note(table: nn.Module, _: object, vectors: Tensor) -> None:
        widths[table] = vectors.numel() // len(vectors)

    tables = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    hooks = [table.register_forward_hook(note) for table in tables]
    try:
        model(*request)
    except (RuntimeError, TypeError) as error:
        raise LeanRecError(
            f"The model {how} does not run on a request: {str(error).splitlines()[0].rstrip('.')}.",
            "It was not pruned.",
            "Put prune-structured first in the stack, or leave it out for this baseline.",
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    return widths
