"""What is served runs in ONNX Runtime instead of PyTorch."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from techniques.base import Change, Context, Requires, Technique, technique
from techniques.graph.onnx_session import OnnxPredictor, export

REQUIRES = Requires(
    devices=frozenset({"cpu"}),
    packages=frozenset({"onnx", "onnxruntime", "onnxscript"}),
    weights=True,
)


@technique("onnxruntime")
@dataclass(frozen=True)
class OnnxRuntime(Technique):
    """ONNX Runtime serves the predictor, exported with a symbolic batch size.

    Source: onnxruntime.ai, "Graph optimizations" (all levels but one fusion that is unsound, see
    `onnx_session`). An operation costs it a microsecond or two where PyTorch's eager mode takes
    five to ten: expect several times less latency at batch 1 on small click models, and little
    where matrix products dominate. Export takes seconds: preparation, to be paid off by the calls
    that follow. Weights are float32 still and answers differ in their last bits; equal scores may
    come in another order. Deployed are the weights and the graph, a few kilobytes of structure and
    constants; a process that serves holds the weights twice, PyTorch's and ONNX Runtime's, and the
    exporter.
    """

    family = "graph"
    requires = REQUIRES
    changes = frozenset({Change.SIZE})

    def deploy(self, predictor: nn.Module, context: Context) -> nn.Module:
        """Export. Raises LeanRecError where torch cannot."""
        return OnnxPredictor(export(predictor, context.examples[0]))


@technique("onnxruntime-int8")
@dataclass(frozen=True)
class OnnxRuntimeInt8(Technique):
    """ONNX Runtime with dynamic int8: weights of matrix products with a scale for each output.

    Source: onnxruntime.ai, "Quantize ONNX models", dynamic quantization. Tables and layers of one
    output stay float32; the index of a retriever is a weight of a product and becomes int8. Inputs
    are quantised at every call with one scale for the batch, so an answer depends a little on the
    requests that share its batch. Where the CPU has no VNNI, weights keep 7 bits, for sums of 8-bit
    products would saturate there. Expect four times smaller layers. More speed than `onnxruntime`
    comes with width and batch size: at batch 1, quantising the inputs of layers a few hundred wide
    may cost more than it saves.
    """

    family = "graph"
    requires = REQUIRES
    changes = frozenset({Change.NUMERICS, Change.SIZE})

    def deploy(self, predictor: nn.Module, context: Context) -> nn.Module:
        """Export and quantise. Raises LeanRecError where torch cannot export."""
        import onnx_ir as ir
        from onnxruntime.quantization import quantize_dynamic

        exported = export(predictor, context.examples[0])
        # With one output, quantising the inputs costs more than it saves. A Gemm becomes a MatMul
        # of this name.
        single = [
            n.name for n in exported.graph if n.outputs[0].shape and n.outputs[0].shape[-1] == 1
        ]
        with tempfile.TemporaryDirectory() as folder:
            quantised = Path(folder) / "quantised.onnx"
            quantize_dynamic(
                ir.to_proto(exported),
                quantised,
                op_types_to_quantize=["MatMul"],
                nodes_to_exclude=[*single, *(f"{name}_MatMul" for name in single)],
                per_channel=True,
                reduce_range=not torch.cpu._is_vnni_supported(),
            )
            return OnnxPredictor(ir.load(quantised))
