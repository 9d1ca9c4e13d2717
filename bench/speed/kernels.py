"""Techniques that change how a product is computed, beside the bare kernels that they call.

Both arms run the same multilayer perceptron, so the ratio of their rates is the share of the bare
kernel's speed-up that a technique keeps; the note says what that speed-up over float32 is. What
takes units out is held against the multiply-accumulates (MACs) that it saves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.ao.quantization import quantize_dynamic
from torch.nn import functional

from bench.speed import Goal, SpeedRow, one_thread, race, rate_row
from techniques.base import TECHNIQUES, Context
from techniques.quantisation.quantised_linear import StaticLinear, quantise_linear

WIDTHS, DEPTH, BATCH = (400, 1024), 3, 512
CALLS = {400: 40, 1024: 8}  # in an arm of a pair: tens of milliseconds and more
FEW = {1: 1000, 32: 200}  # batches at which the engines of int8 differ, and calls of each
CPU = torch.device("cpu")

Model = Callable[[Tensor], Tensor]


def rows(quick: bool = False) -> list[SpeedRow]:
    """Rows a second of an MLP, for each technique and width; one thread."""
    widths, pairs = (WIDTHS[:1], 2) if quick else (WIDTHS, 6)
    with one_thread(), torch.inference_mode():
        beside = [_row(name, width, pairs) for name in BARE for width in widths]
        beside += [_pruned(width, pairs) for width in widths]
        return beside + [_engines(width, batch, pairs) for width in widths for batch in FEW]


def models(name: str, width: int) -> tuple[Model, Model, Model, Tensor]:
    """The MLP under the technique, by the bare kernel and as it is, and rows for it."""
    control, x = _mlp(width)
    technique, context = TECHNIQUES.make(name), Context("ctr", CPU, 0, ((x,),))
    served = technique.deploy(technique.compress(control, context), context)
    return served, BARE[name][0](control, x), control, x


@torch.inference_mode(False)  # the technique reads the graph of layers off autograd's
def pruned(width: int) -> tuple[nn.Module, nn.Module, Tensor, float]:
    """The MLP without half its hidden units, as it is, rows for it, and its MACs over those that
    are left."""
    control, x = _mlp(width)
    fewer = TECHNIQUES.make("prune-structured").compress(control, Context("ctr", CPU, 0, ((x,),)))
    return fewer, control, x, _macs(control) / _macs(fewer)


def _mlp(width: int) -> tuple[nn.Sequential, Tensor]:
    torch.manual_seed(0)
    layers = [layer for _ in range(DEPTH) for layer in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(*layers).eval(), torch.randn(BATCH, width)


def _macs(model: nn.Module) -> int:
    """Of a row, in linear layers."""
    return sum(layer.weight.numel() for layer in model.modules() if isinstance(layer, nn.Linear))


def _pruned(width: int, pairs: int) -> SpeedRow:
    fewer, control, x, saved = pruned(width)
    raced = race(_calls(fewer, x, CALLS[width]), _calls(control, x, CALLS[width]), pairs)
    note = (
        f"MLP {width}×{DEPTH}, half the hidden units, batch {BATCH}, one thread; "
        f"{1 / raced.ratio:.2g} times as fast as the whole; "
        f"bare: the whole's rate times the ratio of MACs, {saved:.2g}"
    )
    ideal = replace(
        raced, bare=raced.bare / saved, ratio=raced.ratio * saved, low=raced.low * saved,
        high=raced.high * saved,
    )  # fmt: skip
    return rate_row(
        f"prune-structured, {width} wide", "rows/s", BATCH * CALLS[width], ideal,
        Goal("at least", 0.8), None, note,
    )  # fmt: skip


def engines(width: int, batch: int) -> tuple[Model, Model, Tensor]:
    """The MLP of `int8-linear` by its engine and by oneDNN, and rows for it."""
    torch.manual_seed(0)
    layers = [nn.Linear(width, width) for _ in range(DEPTH)]
    ours, other = (
        nn.Sequential(*(m for layer in layers for m in (quantise_linear(layer, engine), nn.ReLU())))
        for engine in ("fbgemm", "onednn")
    )
    return ours, other, torch.randn(batch, width)


def _engines(width: int, batch: int, pairs: int) -> SpeedRow:
    *made, x = engines(width, batch)
    ours, other = (_calls(model, x, FEW[batch]) for model in made)
    note = f"MLP {width}×{DEPTH}, one thread; bare: the same int8 layers by oneDNN"
    work, amount = f"int8-linear, {width} wide, batch {batch}", batch * FEW[batch]
    return rate_row(work, "rows/s", amount, race(ours, other, pairs), None, None, note)


def _row(name: str, width: int, pairs: int) -> SpeedRow:
    *made, x = models(name, width)
    ours, bare, plain = (_calls(model, x, CALLS[width]) for model in made)
    gain = 1 / race(bare, plain, pairs).ratio
    note = (
        f"MLP {width}×{DEPTH}, batch {BATCH}, one thread; bare: {BARE[name][1]}, {gain:.2g} times "
        "as fast as float32 in eager mode"
    )
    raced, goal = race(ours, bare, pairs), Goal("at least", 0.9)
    return rate_row(
        f"{name}, {width} wide", "rows/s", BATCH * CALLS[width], raced, goal, None, note
    )


def _calls(model: Model, x: Tensor, count: int) -> Callable[[], None]:
    def work() -> None:
        for _ in range(count):
            model(x)

    return work


def _dynamic(control: nn.Sequential, x: Tensor) -> Model:
    model: Model = quantize_dynamic(control, {nn.Linear}, torch.qint8)
    return model


def _static(control: nn.Sequential, x: Tensor) -> Model:
    kernel = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32
    packed = []
    for layer in control:
        if isinstance(layer, nn.Linear):
            static = StaticLinear(layer, min(float(x.min()), 0.0), float(x.max()))
            packed.append((static.scale, static.zero_point, static.packed))
        x = layer(x)

    def model(x: Tensor) -> Tensor:
        for held in packed:
            x = kernel(x, *held).relu_()
        return x

    return model


def _bfloat16(control: nn.Sequential, x: Tensor) -> Model:
    held = [
        (layer.weight.bfloat16(), layer.bias.bfloat16())
        for layer in control
        if isinstance(layer, nn.Linear)
    ]

    def model(x: Tensor) -> Tensor:
        x = x.bfloat16()
        for weight, bias in held:
            x = functional.linear(x, weight, bias).relu_()
        return x.float()

    return model


def _onednn(control: nn.Sequential, x: Tensor) -> Model:
    kernel = torch.ops.mkldnn._linear_pointwise
    held = [(m.weight, m.bias) for m in control if isinstance(m, nn.Linear)]

    def model(x: Tensor) -> Tensor:
        for weight, bias in held:
            x = kernel(x, weight, bias, "none", [], "").relu_()
        return x

    return model


BARE: dict[str, tuple[Callable[[nn.Sequential, Tensor], Model], str]] = {
    "int8-linear": (_dynamic, "torch's quantize_dynamic, by FBGEMM on x86"),
    "int8-static": (_static, "FBGEMM's operator"),
    "bf16": (_bfloat16, "weights held in bfloat16"),
    "bf16-weights": (_bfloat16, "weights held in bfloat16"),
    "onednn-fp32": (_onednn, "oneDNN's operator"),
}
