"""The parts of a request's time, and which of them an operator belongs to."""

from __future__ import annotations

import re
from typing import Literal, get_args

Part = Literal["compute", "memory", "communication", "data", "outside"]
PARTS: tuple[Part, ...] = get_args(Part)

REQUEST = "leanrec: request"  # frames one call and the fetch of its batch
FETCH = "leanrec: next batch"

_COPIES = (
    "copy_", "_to_copy", "to", "clone", "contiguous", "cat", "stack", "repeat", "roll", "flip",
    "pad", "constant_pad_nd", "quantize_per_tensor", "quantize_per_channel", "dequantize",
)  # fmt: skip
_ALLOCATION = (
    "empty", "empty_like", "empty_strided", "new_empty", "new_zeros", "zeros", "zeros_like", "ones",
    "ones_like", "full", "full_like", "fill_", "zero_", "resize_", "set_",
)  # fmt: skip
_LAYOUT = (
    "view", "reshape", "_reshape_alias", "_unsafe_view", "flatten", "unflatten", "as_strided", "t",
    "transpose", "permute", "expand", "expand_as", "select", "slice", "narrow", "split",
    "split_with_sizes", "chunk", "unbind", "squeeze", "unsqueeze", "detach", "detach_", "alias",
    "lift_fresh", "resolve_conj", "resolve_neg",
)  # fmt: skip
_MEMORY = frozenset(f"aten::{name}" for name in (*_COPIES, *_ALLOCATION, *_LAYOUT))
_PREFIXES: tuple[tuple[Part, tuple[str, ...]], ...] = (
    ("communication", ("c10d::", "gloo:", "nccl", "mpi:", "ucc:", "record_param_comms")),
    ("data", (FETCH, "enumerate(DataLoader)", "Memcpy HtoD")),
    ("memory", ("Memcpy", "Memset")),
    # what torch.compile does in Python around a compiled graph
    ("outside", ("Torch-Compiled Region", "TorchDynamo", "Pregraph bytecode", "AOTDispatcher")),
)
_GRAPH = re.compile(r"## Call CompiledFxGraph \w+ ##")
GRAPH = "CompiledFxGraph"


def part_of(name: str) -> Part:
    """The part that the time inside an operator belongs to: compute where no other is known.

    A look-up in an embedding table is compute: it is what the model is asked for.
    """
    if name in _MEMORY:
        return "memory"
    return next((part for part, begins in _PREFIXES if name.startswith(begins)), "compute")


def shown_name(name: str, category: str) -> str:
    """The name under which an event's time is told; "" where the event only frames operators.

    A compiled graph goes by one name, whatever its hash is.
    """
    if category == "cpu_op":
        return name
    if _GRAPH.fullmatch(name):
        return GRAPH
    return name if part_of(name) == "data" else ""
