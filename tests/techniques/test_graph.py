"""Compiled predictors: the same answers, and as many graphs however many batch sizes come."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from techniques.base import TECHNIQUES, Context

COMPILE = TECHNIQUES.make("compile")
SIZES = (32, 1, 2, 3, 5, 7, 11, 13, 17, 64, 100, 257)


@pytest.mark.slow
@pytest.mark.parametrize("others", [(), ("int8-linear", "int8-embedding"), ("bf16",)])
def test_one_graph_serves_all_larger_batches(
    click_model: nn.Module, context: Context, others: tuple[str, ...]
) -> None:
    eager = click_model
    for technique in map(TECHNIQUES.make, others):
        eager = technique.deploy(technique.compress(eager, context), context)
    compiled = COMPILE.deploy(eager, context)
    counters.clear()
    with torch.inference_mode():
        for size in SIZES:
            ids = torch.randint(200, (size, 2))
            tolerance = 1e-2 if others == ("bf16",) else 1e-4  # inductor keeps more bits of bf16
            torch.testing.assert_close(compiled(ids), eager(ids), rtol=0, atol=tolerance)
            if size == SIZES[2]:
                graphs = counters["stats"]["unique_graphs"]
    assert counters["stats"]["unique_graphs"] == graphs


@pytest.mark.parametrize("name", ["compile", "aot-inductor"])
def test_without_a_compiler_it_says_so(
    click_model: nn.Module, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    reason = TECHNIQUES.make(name).reason_against(click_model, "ctr", "cpu")
    assert reason == "needs the C++ compiler no-such-compiler, which is not installed"
