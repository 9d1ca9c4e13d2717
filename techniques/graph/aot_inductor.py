"""What is served as a library of machine code, compiled before the first call."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim

from baselines.base import Batch
from techniques.base import Context, Requires, Technique, technique
from techniques.graph.compilation import without_compiler
from techniques.graph.exporting import Call, exporting


class LibraryPredictor(nn.Module):
    """A compiled predictor; it reads the weights where `predictor`, a submodule, holds them."""

    def __init__(self, predictor: nn.Module, request: Batch) -> None:
        """request: an example of at least two rows. Raises LeanRecError where the predictor cannot
        be exported."""
        super().__init__()
        call = Call(predictor)
        shapes = tuple({0: Dim.DYNAMIC} for _ in request)
        with exporting("a library"):
            program = torch.export.export(call, request, dynamic_shapes=(shapes,))
        with tempfile.TemporaryDirectory() as folder:
            package = torch._inductor.aoti_compile_and_package(
                program,
                package_path=str(Path(folder) / "served.pt2"),
                inductor_configs={"aot_inductor.package_constants_in_so": False},
            )
            self.compiled = torch._inductor.aoti_load_package(package)
        held = {**program.constants, **dict(call.named_parameters()), **dict(call.named_buffers())}
        self.predictor = predictor
        self.weights = {name: held[name].detach() for name in self.compiled.get_constant_fqns()}
        self.compiled.load_constants(self.weights, check_full_update=True, user_managed=True)

    def forward(self, *request: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Takes and gives what the predictor did that was compiled."""
        answer: Tensor | tuple[Tensor, ...] = self.compiled(*request)
        return answer


@technique("aot-inductor")
@dataclass(frozen=True)
class AotInductor(Technique):
    """`torch.export` of what is served, compiled to a library by AOTInductor.

    Source: docs.pytorch.org, "AOTInductor: Ahead-Of-Time Compilation for Torch.Export-ed Models".
    The code is that of `compile`, called without Python and without guards, for any batch size.
    Compilation takes tens of seconds: preparation, to be paid off by the calls that follow. Expect
    half the latency or less at batch 1 on small click models, and little where matrix products
    dominate. The library has as many threads as torch has when it is made. Sums are taken in
    another order: the last bits differ.
    """

    family = "graph"
    # A library does not check shapes: of a history of another length it would answer nonsense.
    requires = Requires(
        tasks=frozenset({"ctr", "retrieval"}), devices=frozenset({"cpu"}), weights=True
    )

    def reason_against(self, model: nn.Module, task: str, device: str) -> str | None:
        """As `without_compiler` or `requires` says."""
        return without_compiler() or super().reason_against(model, task, device)

    def deploy(self, predictor: nn.Module, context: Context) -> nn.Module:
        """Compile. Raises LeanRecError where the predictor cannot be exported."""
        return LibraryPredictor(predictor, context.examples[0])
