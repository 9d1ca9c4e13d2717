"""What surrounds the arithmetic of a training step: the precision of products, clipping."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor, nn

from baselines.parallel import own_part

T = TypeVar("T")


def with_last(items: Iterable[T]) -> Iterator[tuple[T, bool]]:
    """Each item, and whether it is the last; one is fetched ahead."""
    upcoming = iter(items)
    held = list(islice(upcoming, 1))
    for following in upcoming:
        yield held.pop(), False
        held.append(following)
    for item in held:
        yield item, True


@contextmanager
def matmul_precision(wanted: str) -> Iterator[None]:
    """Float32 matrix products in that precision, and afterwards in that which was set before."""
    before = torch.get_float32_matmul_precision()
    if before == wanted:
        yield
        return
    torch.set_float32_matmul_precision(wanted)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def clip(
    parameters: Sequence[nn.Parameter],
    largest: float,
    over_ranks: Callable[[Tensor], Tensor] = lambda norm: norm,
) -> None:
    """Scale all gradients so that their joint 2-norm is at most `largest`; sparse ones too.

    over_ranks: from the norm of the parts that this process holds to that of the whole.
    """
    gradients = []
    for parameter in parameters:
        if parameter.grad is not None:
            if parameter.grad.is_sparse:
                parameter.grad = parameter.grad.coalesce()
                gradients.append(parameter.grad.values())
            else:
                gradients.append(own_part(parameter.grad))
    norm = over_ranks(torch.nn.utils.get_total_norm(gradients))
    if norm.device.type == "cpu" and norm <= largest:
        return  # a pass over all gradients saved; on other devices the question would wait for it
    scale = (largest / (norm + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(scale)
