"""CUDA graphs: one a shape up to a bound; what a graph answers is the caller's to keep."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from baselines.base import Batch
from baselines.errors import LeanRecError
from techniques.base import TECHNIQUES, Context
from techniques.graph.cuda_graphs import Answer, GraphedPredictor

GRAPHS = TECHNIQUES.make("cuda-graphs")


def test_each_shape_is_captured_once_and_those_beyond_the_bound_run_eagerly(
    click_model: nn.Module,
) -> None:
    captured: list[int] = []

    def capture(predictor: nn.Module, request: Batch) -> Callable[..., Answer]:
        captured.append(len(request[0]))
        return lambda *columns: predictor(*columns) + 1

    graphed = GraphedPredictor(click_model, 2, capture)
    sizes = (4, 1, 4, 9, 1, 9, 30)
    for size in sizes:
        ids = torch.randint(200, (size, 2))
        added = graphed(ids) - click_model(ids)
        expected = torch.full((size,), 1.0 if size in (4, 1) else 0.0)
        torch.testing.assert_close(added, expected, rtol=0, atol=1e-5)
    assert captured == [4, 1]


def test_elsewhere_than_on_cuda_it_says_why_not(click_model: nn.Module) -> None:
    assert GRAPHS.reason_against(click_model, "ctr", "cpu") == "needs the device cuda"


def test_no_shapes_are_an_error() -> None:
    with pytest.raises(LeanRecError, match="shapes"):
        TECHNIQUES.make("cuda-graphs(shapes=0)")


@pytest.mark.cuda
def test_answers_are_the_models_and_outlive_the_next_call(
    click_model: nn.Module, context: Context
) -> None:
    eager = click_model.cuda()
    graphed = GRAPHS.deploy(eager, context)
    batches = [torch.randint(200, (size, 2), device="cuda") for size in (64, 1, 64, 7, 1)]
    with torch.inference_mode():
        answers = [graphed(ids) for ids in batches]
        for ids, answer in zip(batches, answers, strict=True):
            torch.testing.assert_close(answer, eager(ids), rtol=0, atol=1e-5)


class Waits(nn.Module):
    """It reads a value back from the device, which no graph can."""

    def forward(self, ids: Tensor) -> Tensor:
        return ids.float().sum(1) * ids.sum().item()


@pytest.mark.cuda
def test_a_model_that_waits_for_the_device_is_an_error(context: Context) -> None:
    graphed = GRAPHS.deploy(Waits(), context)
    with pytest.raises(LeanRecError, match="cannot be captured"):
        graphed(torch.zeros(4, 2, dtype=torch.int64, device="cuda"))
