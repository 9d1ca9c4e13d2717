"""Frozen graphs: right for any batch size, or refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from baselines.errors import LeanRecError
from techniques.base import TECHNIQUES, Context
from techniques.sizes import deployed_bytes

FREEZE = TECHNIQUES.make("torchscript-freeze")


@pytest.mark.parametrize("others", [(), ("int8-linear", "int8-embedding"), ("bf16",)])
def test_answers_are_the_models_at_any_batch_size(
    click_model: nn.Module, context: Context, others: tuple[str, ...]
) -> None:
    eager = click_model
    for technique in map(TECHNIQUES.make, others):
        eager = technique.deploy(technique.compress(eager, context), context)
    frozen = FREEZE.deploy(eager, context)
    with torch.inference_mode():
        for size in (64, 1, 2, 3, 17, 64, 100):
            ids = torch.randint(200, (size, 2))
            torch.testing.assert_close(frozen(ids), eager(ids), rtol=0, atol=1e-5)


def test_weights_are_held_once(click_model: nn.Module, context: Context) -> None:
    frozen = FREEZE.deploy(click_model, context)
    assert deployed_bytes(frozen) == deployed_bytes(click_model)
    own = {p.data_ptr() for p in click_model.parameters()}
    assert own & {buffer.data_ptr() for buffer in frozen.buffers()}


class ByLength(nn.Module):
    """What it answers depends on the batch, which tracing takes for a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Linear(2, 1)

    def forward(self, ids: Tensor) -> Tensor:
        return self.scale(ids.float()).squeeze(1) * len(ids)


class ByShape(ByLength):
    """What it makes has as many rows as the example."""

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids) + torch.zeros(len(ids))


@pytest.mark.parametrize(
    ("model", "cause"),
    [(ByLength(), "answers a smaller request otherwise"), (ByShape(), "cannot be exported")],
    ids=["length", "shape"],
)
def test_a_graph_that_holds_what_depends_on_the_example_is_refused(
    model: nn.Module, cause: str, context: Context
) -> None:
    with pytest.raises(LeanRecError, match=cause):
        FREEZE.deploy(model.eval(), context)
