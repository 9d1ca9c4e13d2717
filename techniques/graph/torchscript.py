"""What is served as a TorchScript graph with its weights frozen into it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from baselines.base import Batch, scores
from baselines.errors import LeanRecError
from techniques.base import Context, Requires, Technique, technique
from techniques.graph.exporting import Call, exporting

TOLERANCE = 1e-4  # of the largest score: above what another order of sums does


class FrozenPredictor(nn.Module):
    """A traced and frozen predictor.

    Its graph reads the weights where `predictor`, a submodule, holds them; all constants of the
    graph are buffers too. Norms are not folded, which would hold the weights twice.
    """

    def __init__(self, predictor: nn.Module, request: Batch) -> None:
        """request: an example. Raises LeanRecError where the predictor cannot be traced, or its
        graph answers a smaller request otherwise than the predictor."""
        super().__init__()
        with exporting("TorchScript"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what it takes for constant: that is tried below
            traced = torch.jit.trace(Call(predictor).eval(), request, check_trace=False)
            frozen = torch.jit.freeze(traced, optimize_numerics=False)
            few = tuple(column[:3] for column in request)
            exact, answer = scores(predictor(*few)), scores(frozen(*few))
        if (
            exact.shape != answer.shape
            or (exact - answer).abs().max() > TOLERANCE * exact.abs().max()
        ):
            raise LeanRecError(
                "The traced model answers a smaller request otherwise than the model itself.",
                "It was not deployed: its graph holds what depends on the example.",
                "Leave torchscript-freeze out for this baseline.",
            )
        graph = frozen.graph  # its nodes live as long as it is held
        constants = [node.output().toIValue() for node in graph.findAllNodes("prim::Constant")]
        for i, held in enumerate(c for c in constants if isinstance(c, Tensor)):
            self.register_buffer(f"constant_{i}", held, persistent=False)
        self.predictor, self.run = predictor, frozen.forward

    def forward(self, *request: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Takes and gives what the predictor did that was traced."""
        answer: Tensor | tuple[Tensor, ...] = self.run(*request)
        return answer


@technique("torchscript-freeze")
@dataclass(frozen=True)
class TorchScriptFreeze(Technique):
    """`torch.jit.trace` of what is served, with `torch.jit.freeze`.

    Source: docs.pytorch.org, "TorchScript". Its interpreter runs without Python. Expect less
    latency at batch 1, the most on click models, whose layers are small, and nothing at large
    batches: the kernels are those of eager code. The first calls take longer, since the interpreter
    looks at what it is given. Answers are those of the model to the bit, or nearly. PyTorch keeps
    TorchScript but calls it deprecated and names `torch.export` as its successor: `aot-inductor`.
    """

    family = "graph"
    requires = Requires(weights=True)

    def deploy(self, predictor: nn.Module, context: Context) -> nn.Module:
        """Trace and freeze. Raises LeanRecError as FrozenPredictor does."""
        request = tuple(column.to(context.device) for column in context.examples[0])
        return FrozenPredictor(predictor, request)
