"""Batch norms folded away: the same answers from fewer layers, and none folded that should stay."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from techniques.base import TECHNIQUES, Context
from techniques.surgery import exactly

FOLD = TECHNIQUES.make("fold")


def norm(width: int, **options: bool) -> nn.BatchNorm1d:
    """A batch norm as training might leave it."""
    made = nn.BatchNorm1d(width, **options)
    for tensor in (*made.parameters(), *made.buffers()):
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.3, 3)
    return made


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [0, 1, 7, 64])
def test_answers_stay_and_norms_go(context: Context, bias: bool, rows: int) -> None:
    torch.manual_seed(0)
    tower = nn.Sequential(nn.Linear(20, 50, bias), norm(50), nn.ReLU(), nn.Linear(50, 9), norm(9))
    model = nn.Sequential(tower, nn.Linear(9, 3)).eval()
    folded = FOLD.compress(model, context)

    x = torch.randn(rows, 20)
    torch.testing.assert_close(folded(x), model(x), rtol=0, atol=1e-5)
    assert not exactly(folded, nn.BatchNorm1d)
    assert len(exactly(model, nn.BatchNorm1d)) == 2
    assert folded[1].weight is model[1].weight


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Linear(8, 8), nn.ReLU(), nn.BatchNorm1d(8)],
        [nn.Linear(8, 8), nn.BatchNorm1d(8, track_running_stats=False)],
        [nn.Linear(8, 8), nn.BatchNorm1d(8, affine=False)],
        [shared := nn.Linear(8, 8), nn.BatchNorm1d(8), shared],
    ],
    ids=["not adjacent", "statistics of the batch", "no affine map", "layer used twice"],
)
def test_what_cannot_be_folded_says_so(layers: list[nn.Module]) -> None:
    reason = FOLD.reason_against(nn.Sequential(*layers), "ctr", "cpu")
    assert reason == "finds no batch norm right after a linear layer"
