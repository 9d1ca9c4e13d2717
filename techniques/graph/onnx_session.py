"""A predictor as an ONNX graph, run by ONNX Runtime on the CPU."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim

from baselines.base import Batch
from techniques.graph.exporting import Call, exporting

# Turns a look-up of n−1, n−2, …, 0 into a slice that ends at −1, which ONNX takes for the last
# place: a transformer that counts its places from the right would read none of them.
UNSOUND = ["GatherToSliceFusion"]
EMBEDDED = 1024  # bytes: shapes and axes, which shape inference has to read, are smaller


class OnnxPredictor(nn.Module):
    """An ONNX graph and its weights: buffers of this module, from which a session is started.

    The graph is a buffer of its serialised bytes, with the constants of less than EMBEDDED bytes.
    Each call uses the threads that torch is set to; another number than at the call before starts
    the session anew. ONNX Runtime copies the weights and packs some: its own bytes are in no
    buffer, and the memory pass alone shows them.
    """

    graph: Tensor  # uint8, the serialised model

    def __init__(self, model: Any) -> None:
        """model: an `onnx_ir.Model`. Its weights are taken out of it."""
        import onnx_ir as ir  # an optional package
        from onnx_ir.passes.common import ClearMetadataAndDocStringPass

        super().__init__()
        self.weights: dict[str, str] = {}  # name in the graph → buffer
        for name, value in model.graph.initializers.items():
            weight = value.const_value
            if weight.nbytes >= EMBEDDED:
                self.weights[name] = f"weight_{len(self.weights)}"
                self.register_buffer(self.weights[name], _tensor(weight.numpy()))
                value.const_value = ir.ExternalTensor(
                    "given", 0, weight.nbytes, weight.dtype, shape=weight.shape, name=name
                )
        ClearMetadataAndDocStringPass()(model)
        serialised = bytearray(ir.to_proto(model).SerializeToString())
        self.register_buffer("graph", torch.frombuffer(serialised, dtype=torch.uint8))
        self.inputs = [value.name for value in model.graph.inputs]
        self.outputs = [value.name for value in model.graph.outputs]
        self.threads = 0  # of the session, which the first call starts

    def forward(self, *request: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Takes and gives what the predictor did that was exported."""
        if self.threads != torch.get_num_threads():
            self._start(torch.get_num_threads())
        given = {name: column.numpy() for name, column in zip(self.inputs, request, strict=True)}
        answer = self.session.run(self.outputs, given)
        if len(answer) == 1:
            return torch.from_numpy(answer[0])
        return tuple(map(torch.from_numpy, answer))

    def _start(self, threads: int) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 3  # errors
        options.intra_op_num_threads = threads
        # Threads that spin between calls would take the processors of the other arm.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        weights = [
            ort.OrtValue.ortvalue_from_numpy(self.get_buffer(buffer).numpy())
            for buffer in self.weights.values()
        ]
        options.add_external_initializers(list(self.weights), weights)
        graph = self.graph.numpy().tobytes()
        self.session = ort.InferenceSession(
            graph, options, ["CPUExecutionProvider"], disabled_optimizers=UNSOUND
        )
        self.threads = threads


def _tensor(array: np.ndarray) -> Tensor:
    """`array` as a tensor, in place where it can be written to."""
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def export(predictor: nn.Module, request: Batch) -> Any:
    """`predictor` as an `onnx_ir.Model` for any batch, and histories of any length.

    request: an example of at least two rows. Raises LeanRecError where torch cannot export it.
    """
    shapes = tuple(
        {0: Dim.DYNAMIC, **dict.fromkeys(range(1, column.dim()), Dim.AUTO)} for column in request
    )
    with exporting("ONNX"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own deprecated parts
        program = torch.onnx.export(
            Call(predictor), request, dynamo=True, dynamic_shapes=(shapes,), verbose=False
        )
    assert program is not None
    _flatten(program.model)
    return program.model


def _flatten(model: Any) -> None:
    """Rows laid out flat by one node, where the exporter computes their length from the request by
    five, for it does not know that the number of fields stays what it is."""
    import onnx_ir as ir
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    for node in list(model.graph):
        if node.op_type == "Reshape" and _keeps_rows(node.inputs[0].shape, node.outputs[0].shape):
            (flat,) = node.outputs
            one = ir.Node("", "Flatten", node.inputs[:1], [ir.AttrInt64("axis", 1)], name=node.name)
            one.outputs[0].shape, one.outputs[0].type = flat.shape, flat.type
            ir.convenience.replace_nodes_and_values(
                model.graph, node, [node], [one], [flat], one.outputs
            )
    RemoveUnusedNodesPass()(model)


def _keeps_rows(before: Any, after: Any) -> bool:
    """Whether a reshape between them leaves every row to itself, flat."""
    if not before or not after or len(after) != 2:
        return False
    rows = before[0] if isinstance(before[0], int) else before[0].value
    return rows is not None and before[0] == after[0]
