"""The baselines' quality on MovieLens-100K, against published numbers."""

from __future__ import annotations

import pytest
import torch

from baselines.base import BASELINES
from baselines.errors import LeanRecError
from baselines.trainer import Trainer

pytestmark = pytest.mark.slow


def quality(spec: str, seed: int = 0) -> dict[str, float]:
    """Every metric on the test split."""
    made = BASELINES.make(spec)
    try:
        data = made.data()
    except LeanRecError as error:
        pytest.skip(str(error))
    device = torch.device("cpu")
    torch.manual_seed(seed)
    model = made.build(data)
    Trainer(model, made.task, made.recipe, device, seed).fit(data)
    scored = made.task.score(made.task.predictor(model, data), data, data.test, device)
    return {metric.name: metric(scored) for metric in made.task.metrics}


def test_dcnv2_predicts_clicks_as_well_as_a_plain_deepfm() -> None:
    """A plain DeepFM reaches .782 to .789 over splits of this task."""
    found = quality("dcnv2")
    assert found["auc"] >= 0.78
    assert found["ne"] < 0.85
    assert found["calibration_error"] < 0.1


@pytest.mark.parametrize(("loss", "least"), [("sampled-softmax", 0.41), ("bpr", 0.38)])
def test_two_tower_ranks_as_well_as_matrix_factorisation(loss: str, least: float) -> None:
    """nDCG@10 in this protocol: BPR .445, LightGCN .416, SAR .394, NeuMF .369 (Recommenders)."""
    assert quality(f'two-tower(loss="{loss}")')["ndcg@10"] >= least
