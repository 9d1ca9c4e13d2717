"""What the inputs of linear layers are like, seen by asking a model some requests."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from baselines.base import Batch
from techniques.surgery import copy_with, exactly

Range = tuple[float, float]


def input_ranges(
    model: nn.Module, requests: Iterable[Batch], device: torch.device
) -> dict[nn.Linear, Range]:
    """The least and the greatest number that each linear layer of `model` was given, and 0.

    `model` is called in evaluation mode and left as it was. Layers that it never calls, and those
    that were given nothing but 0, are left out.
    """
    watched = copy_with(model).eval()
    seen = []
    for layer in exactly(watched, nn.Linear):
        extremes = torch.zeros(2, device=device)
        seen.append(extremes)

        def note(_: nn.Module, args: tuple[Tensor], extremes: Tensor = extremes) -> None:
            if args[0].numel():
                found = torch.stack(args[0].float().aminmax())
                extremes[0] = torch.minimum(extremes[0], found[0])
                extremes[1] = torch.maximum(extremes[1], found[1])

        layer.register_forward_pre_hook(note)
    with torch.inference_mode():
        for request in requests:
            watched(*(column.to(device) for column in request))
    layers = exactly(model, nn.Linear)
    ranges = ((layer, extremes.tolist()) for layer, extremes in zip(layers, seen, strict=True))
    return {layer: (low, high) for layer, (low, high) in ranges if low < high}
