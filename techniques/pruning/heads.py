"""Which layers of a model are attention with several heads, and how to take some heads out.

Such a layer is known by the names of its parts. It has a number `heads`, a linear map `qkv` or
`uvqk` whose outputs are a few vectors for each head (all heads of the first, then of the next)
and a linear map `out` of the heads side by side. `bias` (an embedding whose vectors hold a number
for each head) and `read_norm` (over the heads side by side) belong to the heads where it has them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from techniques.surgery import exactly

PROJECTIONS = ("qkv", "uvqk")


def attentions(model: nn.Module) -> list[Any]:
    """The layers with heads in `model`."""
    return [
        module
        for module in model.modules()
        if isinstance(getattr(module, "heads", None), int)
        and type(getattr(module, "out", None)) is nn.Linear
        and type(_projection(module)) is nn.Linear
    ]


def linears(attention: Any) -> tuple[nn.Linear, nn.Linear]:
    """What makes the heads, and what reads them: their widths are those of the heads."""
    return _projection(attention), attention.out


def can_lose(model: nn.Module, ratio: float) -> bool:
    """Whether one of its layers with heads would lose some, or has other linear maps inside."""
    return any(
        int(ratio * layer.heads) or any(m not in linears(layer) for m in exactly(layer, nn.Linear))
        for layer in attentions(model)
    )


def prune_heads(attention: Any, ratio: float) -> None:
    """Take the share `ratio` of the heads, rounded down, out of `attention`, in place.

    Those go that have the least magnitude: the 2-norm of the weights that make them and of those
    that read them. Tensors are replaced, not written into.
    """
    projection, out, heads = *linears(attention), attention.heads
    lost = int(ratio * heads)
    if not lost:
        return
    made = projection.weight.detach().unflatten(0, (-1, heads, out.in_features // heads))
    read = out.weight.detach().unflatten(1, (heads, -1))
    magnitude = made.square().sum((0, 2, 3)) + read.square().sum((0, 2))
    stay = magnitude.argsort(stable=True)[lost:].sort().values
    units = torch.arange(out.in_features, device=stay.device).view(heads, -1)[stay].flatten()
    parts = torch.arange(projection.out_features, device=stay.device).view(-1, out.in_features)
    _cut(projection, 0, parts[:, units].flatten())
    _cut(out, 1, units)
    projection.out_features, out.in_features = len(projection.weight), len(units)
    if isinstance(norm := getattr(attention, "read_norm", None), nn.LayerNorm):
        _cut(norm, 0, units)
        norm.normalized_shape = (len(units),)
    if isinstance(bias := getattr(attention, "bias", None), nn.Embedding):
        _cut(bias, 1, stay)
        bias.embedding_dim = len(stay)
    attention.heads = len(stay)


def _projection(module: nn.Module) -> Any:
    return next((getattr(module, name) for name in PROJECTIONS if hasattr(module, name)), None)


def _cut(layer: nn.Module, dim: int, stay: Tensor) -> None:
    """Leave only `stay` along `dim` of a layer's weight, and of its bias where that goes along."""
    for name, tensor in list(layer.named_parameters(recurse=False)):
        if name == "weight" or dim == 0:
            setattr(layer, name, nn.Parameter(tensor.detach().index_select(dim, stay)))
