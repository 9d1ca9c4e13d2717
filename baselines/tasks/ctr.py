"""Click-through rate: the probability of a click, judged over all rows of a split."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from baselines.base import Batch, Dataset, QualityMetric, Rules, Scored, Split, Task, scores
from baselines.metrics import CTR_METRICS
from baselines.tasks.sampling import draw_requests

BLOCK = 4096  # rows scored at a time: what a layer gives then stays in the cache


class Probability(nn.Module):
    """What is served: the sigmoid of the model's logit, in float32."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> Tensor:
        """inputs: the model's own, of B rows. Returns click probabilities, float32 [B]."""
        return torch.sigmoid(self.model(*inputs).float())


@dataclass(frozen=True)
class CTR(Task):
    """Binary cross-entropy of a model that gives one logit a row.

    A training batch is the model's inputs followed by the labels.
    """

    name = "ctr"

    @property
    def metrics(self) -> tuple[QualityMetric, ...]:
        """AUC first."""
        return CTR_METRICS

    def batches(
        self, data: Dataset, batch_size: int, generator: torch.Generator, device: torch.device
    ) -> Iterator[Batch]:
        """Every row once, in an order drawn from `generator`."""
        split = data.train
        columns = (*split.inputs, split.labels)
        for rows in torch.randperm(len(split), generator=generator).split(batch_size):
            yield tuple(
                column.index_select(0, rows).to(device, non_blocking=True) for column in columns
            )

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean binary cross-entropy, computed in float32 whatever the model's precision."""
        *inputs, labels = batch
        logits = model(*inputs).float()
        return functional.binary_cross_entropy_with_logits(logits, labels)

    def predictor(self, model: nn.Module, data: Dataset) -> Probability:
        """`model` with its sigmoid."""
        return Probability(model).eval()

    def requests(self, data: Dataset, batch_size: int, count: int, seed: int) -> list[Batch]:
        """Rows of the test split, so that the ids keep the data's skew."""
        return draw_requests(data.test.inputs, batch_size, count, seed)

    def score(
        self, predictor: nn.Module, data: Dataset, split: Split, device: torch.device
    ) -> Scored:
        """Columns score, label and user, one row per row of `split`, in order."""
        parts = []
        with torch.inference_mode():
            for start in range(0, len(split), BLOCK):
                block = (column[start : start + BLOCK].to(device) for column in split.inputs)
                parts.append(scores(predictor(*block)).float().cpu())
        return Scored(
            {
                "score": torch.cat(parts).numpy() if parts else np.empty(0, np.float32),
                "label": split.labels.numpy(),
                "user": split.users.numpy(),
            },
            np.arange(len(split)),
            {name: column.numpy() for name, column in split.segments.items()},
            Rules(data.protocol, split.digest),
        )
