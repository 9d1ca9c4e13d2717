"""FLOPs and bytes of one call, operator by operator, counted as its operators are dispatched.

FLOPs by torch.utils.flop_counter's formulas (matrix products, convolutions, attention), and for
linear layers of quantised and oneDNN's operators as for a plain one: 2 for each multiply-add,
whatever the type. Elementwise work, normalisation, sorting and look-ups count none.

Bytes: every input read once and every result written once, by their sizes; of a table that rows are
looked up in, the rows. Caches, reuse and what an operator keeps for itself are not counted, views
move nothing.

Not seen: what a library of its own does (ONNX Runtime, AOTInductor's code). A graph of
torch.compile is counted by the operators that it was made of, which it may have fused.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from baselines.base import Batch

_LINEAR = frozenset(
    (
        "quantized::linear", "quantized::linear_relu", "quantized::linear_dynamic",
        "quantized::linear_relu_dynamic", "quantized::linear_dynamic_fp16",
        "quantized::linear_with_input_q_dq_qweight_dq_output_fp32", "mkldnn::_linear_pointwise",
        "aten::_weight_int4pack_mm_for_cpu", "aten::_weight_int4pack_mm",
        "aten::_weight_int8pack_mm",
    )
)  # fmt: skip
_LOOKUPS = frozenset(
    f"aten::{name}"
    for name in ("embedding", "index_select", "index", "gather", "embedding_bag", "_embedding_bag",
                 "_embedding_bag_forward_only")
)  # fmt: skip
_OVERWRITES = frozenset(("aten::copy_", "aten::fill_", "aten::zero_"))


@dataclass
class Work:
    """What an operator did in all its calls. flops is None where no formula is known."""

    flops: float | None = None
    bytes: float = 0.0


def count_work(call: Callable[..., Any], batch: Batch) -> dict[str, Work]:
    """Operator → its work in one call on `batch`, of the operators that it calls too."""
    counter = _Counter()
    with counter:
        call(*batch)
    return dict(counter.work)


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.work: dict[str, Work] = defaultdict(Work)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func._overloadpacket not in flop_registry:
            with self:
                made = func.decompose(*args, **kwargs)
            if made is not NotImplemented:
                return made
        made = func(*args, **kwargs)
        name = func._schema.name
        work = self.work[name]
        flops = _flops(func, name, args, kwargs, made)
        if flops is not None:
            work.flops = (work.flops or 0.0) + flops
        if not func.is_view:
            work.bytes += _moved(name, args, kwargs, made)
        return made


def _flops(func: Any, name: str, args: Sequence[Any], kwargs: Any, made: Any) -> float | None:
    if name in _LINEAR:
        return 2.0 * args[0].numel() * made.shape[-1]
    formula = flop_registry.get(func._overloadpacket)
    return None if formula is None else float(formula(*args, **kwargs, out_val=made))


def _moved(name: str, args: Sequence[Any], kwargs: Any, made: Any) -> float:
    read = list(args[1:] if name in _OVERWRITES else args)
    written = _size(made)
    if name in _LOOKUPS:
        table, *indices = read
        rows = written
        if "embedding_bag" in name:
            rows = indices[0].numel() * table.shape[-1] * table.element_size()
        return rows + _size(indices) + written
    return _size(read) + _size(kwargs) + written


def _size(values: Any) -> float:
    """Bytes of all tensors and packed weights in `values`."""
    return math.fsum(map(_bytes, tree_leaves(values)))


def _bytes(value: Any) -> float:
    if isinstance(value, torch.ScriptObject) and hasattr(value, "unpack"):  # of a quantised layer
        return _size(value.unpack())
    if not isinstance(value, Tensor):
        return 0.0
    if value.is_sparse:
        return _bytes(value._indices()) + _bytes(value._values())
    whole = value.numel() * value.element_size()
    if value.layout is not torch.strided or not value.numel():
        return whole
    # An expanded tensor is smaller than it looks.
    return min(whole, value.untyped_storage().nbytes())
