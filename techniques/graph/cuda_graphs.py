"""What is served as CUDA graphs: all kernels of a request launched at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from baselines.base import Batch
from baselines.errors import LeanRecError
from techniques.base import Context, Requires, Technique, technique

Answer = Tensor | tuple[Tensor, ...]
WARM_UP_CALLS = 3  # before a capture, as torch's documentation asks for


def capture(predictor: nn.Module, request: Batch) -> Callable[..., Answer]:
    """`predictor` as one graph for requests shaped as `request`, on its CUDA device.

    Raises LeanRecError where the predictor waits for the device or allocates outside of torch.
    """
    held = tuple(column.clone() for column in request)
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(WARM_UP_CALLS):
            predictor(*held)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            answer = predictor(*held)
    except RuntimeError as error:
        raise LeanRecError(
            f"The model cannot be captured as a CUDA graph: {str(error).strip().splitlines()[0]}",
            "It was not deployed.",
            "Leave cuda-graphs out for this baseline.",
        ) from error

    def replay(*columns: Tensor) -> Answer:
        for own, given in zip(held, columns, strict=True):
            own.copy_(given)
        graph.replay()
        if isinstance(answer, Tensor):
            return answer.clone()  # the next replay writes over it
        return tuple(part.clone() for part in answer)

    return replay


class GraphedPredictor(nn.Module):
    """A predictor as one graph for each shape of request, up to `shapes` of them; others eager."""

    def __init__(
        self,
        predictor: nn.Module,
        shapes: int,
        capture: Callable[[nn.Module, Batch], Callable[..., Answer]] = capture,
    ) -> None:
        super().__init__()
        self.predictor, self.shapes, self.capture = predictor, shapes, capture
        self.graphs: dict[tuple[torch.Size, ...], Callable[..., Answer]] = {}

    @torch.inference_mode()
    def forward(self, *request: Tensor) -> Answer:
        """Takes and gives what the predictor does. The first request of a shape is captured."""
        shape = tuple(column.shape for column in request)
        if shape not in self.graphs:
            if len(self.graphs) >= self.shapes:
                eager: Answer = self.predictor(*request)
                return eager
            self.graphs[shape] = self.capture(self.predictor, request)
        return self.graphs[shape](*request)


@technique("cuda-graphs")
@dataclass(frozen=True)
class CudaGraphs(Technique):
    """One CUDA graph for each batch size that comes, at most `shapes`; further ones run eagerly.

    Source: Nguyen et al., "Accelerating PyTorch with CUDA Graphs", pytorch.org, 2021. A graph
    launches all kernels of a request by one call: what the host spends on each is gone. Expect
    gains at small batches, where the GPU waits for launches, and none at large ones. Each graph
    keeps its activations; the first request of a size waits for the capture: preparation.
    """

    shapes: Annotated[int, Field(ge=1)] = 16
    family = "graph"
    requires = Requires(devices=frozenset({"cuda"}))

    def deploy(self, predictor: nn.Module, context: Context) -> nn.Module:
        """Wrap; the first calls capture. They raise LeanRecError as `capture` does."""
        return GraphedPredictor(predictor, self.shapes)
