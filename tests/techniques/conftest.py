"""A small click model in plain PyTorch, and a context for it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from baselines.base import Batch
from techniques.base import Context


class ClickModel(nn.Module):
    """Two fields, an MLP with a norm, and a cross layer whose width is tied to the fields'."""

    def __init__(self, rows: int = 200, dim: int = 32, hidden: int = 128) -> None:
        super().__init__()
        self.embedding = nn.Embedding(rows, dim)
        self.cross = nn.Linear(2 * dim, 2 * dim)
        self.mlp = nn.Sequential(
            nn.Linear(2 * dim, hidden),
            nn.LayerNorm(hidden),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
        )
        self.head = nn.Linear(2 * dim + hidden, 1)

    def forward(self, ids: Tensor) -> Tensor:
        """ids: int64 [B, 2]. Returns logits [B]."""
        x = self.embedding(ids).flatten(1)
        crossed = x * self.cross(x) + x
        return self.head(torch.cat((crossed, self.mlp(x)), dim=1)).squeeze(1)


@pytest.fixture
def click_model() -> ClickModel:
    """A fresh model, in evaluation mode, the same in every test."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ClickModel().eval()


@pytest.fixture
def request_batch() -> Batch:
    """Sixty-four requests for `click_model`."""
    return (torch.randint(200, (64, 2), generator=torch.Generator().manual_seed(1)),)


@pytest.fixture
def context(request_batch: Batch) -> Context:
    """What a stage is told about them."""
    return Context("ctr", torch.device("cpu"), 0, (request_batch,))
