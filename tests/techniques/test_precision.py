"""Fewer bits in arithmetic and in state: near enough to float32, float32 on the outside."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from baselines.base import Batch, Recipe
from baselines.tasks.ctr import CTR
from baselines.trainer import Trainer
from techniques.base import TECHNIQUES, Context

BF16 = TECHNIQUES.make("bf16")
CUDA = Context("ctr", torch.device("cuda"), 0)


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


@pytest.mark.parametrize("kept_in", [torch.float32, torch.bfloat16])
def test_small_steps_of_a_table_add_up_under_bf16_and_vanish_in_pure_bfloat16(
    click_model: nn.Module, request_batch: Batch, context: Context, kept_in: torch.dtype
) -> None:
    """Ten steps of 10⁻⁴; the neighbours of 1 in bfloat16 are 4·10⁻³ away."""
    nn.init.ones_(click_model.embedding.weight)
    recipe = BF16.train(Recipe(lr=1e-4), context)
    trainer = Trainer(click_model.to(kept_in), CTR(), recipe, torch.device("cpu"), 0)
    for _ in range(10):
        trainer.step((*request_batch, torch.zeros(64)))
    moved = (click_model.embedding.weight.detach().float() - 1)[request_batch[0]].abs().mean()
    assert moved == 0 if kept_in is torch.bfloat16 else moved > 5e-4


def test_tf32_holds_for_the_call_alone(click_model: nn.Module, request_batch: Batch) -> None:
    seen: list[str] = []
    click_model.mlp[0].register_forward_hook(
        lambda *_: seen.append(torch.get_float32_matmul_precision())
    )
    served = TECHNIQUES.make("tf32").deploy(click_model, CUDA)
    before = torch.get_float32_matmul_precision()
    assert served(*request_batch).shape == (64,)
    assert seen == ["high"]
    assert torch.get_float32_matmul_precision() == before
    with pytest.raises(IndexError):
        served(torch.full((1, 2), 10**6))
    assert torch.get_float32_matmul_precision() == before


def test_tf32_trains_in_it_whatever_the_recipe_asked_for() -> None:
    recipe = TECHNIQUES.make("tf32").train(Recipe(matmul_precision="highest"), CUDA)
    assert recipe == Recipe(matmul_precision="high")


def test_fp16_scales_the_loss_under_float16() -> None:
    recipe = TECHNIQUES.make("fp16").train(Recipe(lr=0.5), CUDA)
    (entered,) = recipe.contexts
    assert (recipe.lr, recipe.scale_loss) == (0.5, True)
    assert entered.args == ("cuda", torch.float16)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["fp16", "tf32"])
def test_what_the_cpu_lacks_is_refused_there(click_model: nn.Module, name: str) -> None:
    technique = TECHNIQUES.make(name)
    assert technique.reason_against(click_model, "ctr", "cpu") == "needs the device cuda"
    assert technique.reason_against(click_model, "ctr", "cuda") is None


def test_optimiser_state_in_bfloat16_changes_the_recipe_alone(
    click_model: nn.Module, context: Context
) -> None:
    technique = TECHNIQUES.make("bf16-optimizer-state")
    assert technique.train(Recipe(lr=0.5), context) == Recipe(lr=0.5, moments="bfloat16")
    assert technique.stages == ("train",)
    assert technique.deploy(click_model, context) is click_model


@pytest.mark.cuda
@pytest.mark.parametrize("name", ["bf16", "fp16", "tf32"])
def test_serves_on_cuda(click_model: nn.Module, request_batch: Batch, name: str) -> None:
    device = torch.device("cuda")
    model = click_model.to(device)
    served = TECHNIQUES.make(name).deploy(model, CUDA)
    exact, answer = (m(*(t.to(device) for t in request_batch)) for m in (model, served))
    assert (answer - exact).norm() / exact.norm() < 0.02
