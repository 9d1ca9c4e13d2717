"""How many bytes a module holds once it is deployed."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from techniques.surgery import holdings


def deployed_bytes(module: nn.Module) -> int:
    """Bytes of all parameters, buffers, other tensors and packed weights that `module` holds.

    Counted by storage: one shared by several tensors counts once, and a view counts all that it
    keeps alive. Scales, indices and the like of quantised, sparse and wrapped tensors count too.
    Not counted: what code outside the module's attributes holds, and scratch space.
    """
    storages: dict[int, torch.UntypedStorage] = {}
    for held in {id(held): held for held in holdings(module)}.values():
        for tensor in (held,) if isinstance(held, Tensor) else _unpacked(held):
            for part in _parts(tensor):
                storage = part.untyped_storage()
                storages[storage._cdata] = storage
    return sum(storage.nbytes() for storage in storages.values())


def _parts(tensor: Tensor) -> Iterator[Tensor]:
    """The tensors with a storage of their own that `tensor` is made of; often itself alone."""
    if is_traceable_wrapper_subclass(tensor):
        for name in tensor.__tensor_flatten__()[0]:
            yield from _parts(getattr(tensor, name))
    elif tensor.layout is torch.sparse_coo:
        yield from (tensor._indices(), tensor._values())
    elif tensor.layout is torch.sparse_csr:
        yield from (tensor.crow_indices(), tensor.col_indices(), tensor.values())
    else:
        yield tensor
        if tensor.is_quantized and tensor.qscheme() is torch.per_channel_affine:
            yield from (tensor.q_per_channel_scales(), tensor.q_per_channel_zero_points())


def _unpacked(packed: torch.ScriptObject) -> Iterator[Tensor]:
    """What a quantised kernel has packed for itself, as tensors of as many bytes.

    Unpacking twice gives the same weights where the engine keeps the original beside what it
    packed (oneDNN), so these are there twice; it gives two copies where it does not (FBGEMM).
    """
    unpack = packed.unpack  # type: ignore[attr-defined]
    for first, second in zip(unpack(), unpack(), strict=True):
        if first is not None:
            yield first
            if first.is_quantized and first.data_ptr() == second.data_ptr():
                yield first.int_repr()
