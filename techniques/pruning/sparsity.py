"""Which weights stay, the others zero, and stay zero while the model is trained on."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

from techniques.surgery import copy_with

Masks = Mapping[nn.Linear, Tensor]  # of a layer's weight, bool and of its shape: true what stays


class Masked(nn.Module):
    """A weight, zero where `mask` is false: no gradient comes back there either."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        """weight: of the mask's shape, as is what it returns."""
        return weight * self.mask


def zeroed(model: nn.Module, masks: Masks, tune: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """A copy of `model` with zeros where `masks` are false, after `tune` of it.

    The copy shares all other weights with `model`, unless `tune` gives others. What is returned
    holds plain weights: masks left in place would double them and slow every call.
    """
    layers: dict[nn.Module, nn.Module] = {}
    for layer, mask in masks.items():
        layers[layer] = copy.deepcopy(layer)
        parametrize.register_parametrization(layers[layer], "weight", Masked(mask))
    tuned = tune(copy_with(model, layers))
    for module in tuned.modules():
        if isinstance(module, nn.Linear) and parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")
    return tuned


def largest(layers: Sequence[nn.Linear], share: float) -> Masks:
    """Masks without the share `share` of all weights, those least in magnitude over all layers."""
    weights = torch.cat([layer.weight.detach().flatten() for layer in layers])
    stay = prune.L1Unstructured(share).compute_mask(weights, torch.ones_like(weights)).bool()
    parts = stay.split([layer.weight.numel() for layer in layers])
    return {layer: p.view_as(layer.weight) for layer, p in zip(layers, parts, strict=True)}


def two_of_four(weight: Tensor) -> Tensor:
    """The mask of a weight [out, in], in a multiple of 4, that keeps the larger two of each four.

    The fours are neighbours in a row. Of equal magnitudes the earlier stay: there are always two.
    """
    fours = weight.detach().abs().unflatten(1, (-1, 4))
    order = fours.argsort(dim=-1, descending=True, stable=True)
    mask = torch.zeros_like(fours, dtype=torch.bool).scatter_(-1, order[..., :2], True)
    return mask.flatten(1)
