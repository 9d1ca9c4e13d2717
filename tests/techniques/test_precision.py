"""bf16: near enough to float32, float32 on the outside."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from baselines.base import Batch, Recipe
from techniques.base import TECHNIQUES, Context

BF16 = TECHNIQUES.make("bf16")


def test_answers_are_float32_and_near_the_exact_ones(
    click_model: nn.Module, request_batch: Batch, context: Context
) -> None:
    exact = click_model(*request_batch)
    answer = BF16.deploy(click_model, context)(*request_batch)
    assert answer.dtype == torch.float32
    assert 0 < (answer - exact).norm() / exact.norm() < 0.02


def test_products_are_taken_in_bfloat16_and_only_inside(
    click_model: nn.Module, request_batch: Batch, context: Context
) -> None:
    seen: list[torch.dtype] = []
    click_model.mlp[0].register_forward_hook(lambda _m, _i, out: seen.append(out.dtype))
    BF16.deploy(click_model, context)(*request_batch)
    click_model(*request_batch)
    assert seen == [torch.bfloat16, torch.float32]


class TopTwo(nn.Module):
    """Scores, and the ids of the best two."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores = x @ x.T
        return scores, scores.topk(2).indices


def test_every_part_of_an_answer_keeps_its_type(context: Context) -> None:
    scores, ids = BF16.deploy(TopTwo(), context)(torch.randn(5, 8))
    assert (scores.dtype, ids.dtype) == (torch.float32, torch.int64)


def test_training_adds_one_context_and_keeps_the_rest() -> None:
    entered: list[str] = []

    class Note:
        def __enter__(self) -> None:
            entered.append("own")

        def __exit__(self, *_: object) -> None: ...

    recipe = Recipe(lr=0.5, contexts=(Note,))
    changed = BF16.train(recipe, Context("ctr", torch.device("cpu"), 0))
    assert (changed.lr, len(changed.contexts), recipe.contexts) == (0.5, 2, (Note,))
    with changed.contexts[0](), changed.contexts[1]():
        assert entered == ["own"]
        assert torch.get_autocast_dtype("cpu") == torch.bfloat16
        assert torch.is_autocast_enabled("cpu")


@pytest.mark.cuda
def test_serves_on_cuda(click_model: nn.Module, request_batch: Batch) -> None:
    device = torch.device("cuda")
    model = click_model.to(device)
    served = BF16.deploy(model, Context("ctr", device, 0))
    exact, answer = (m(*(t.to(device) for t in request_batch)) for m in (model, served))
    assert (answer - exact).norm() / exact.norm() < 0.02
