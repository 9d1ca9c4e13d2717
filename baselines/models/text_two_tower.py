"""Two towers of which the items' knows no ids, only texts: an item never trained on has a vector.

Sources: Yi et al., "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item
Recommendations", RecSys 2019 (two towers on content); Reimers and Gurevych, "Sentence-BERT",
EMNLP 2019, arXiv:1908.10084 (the encoder). Accepted departure: the user tower is a table, since
users are known in a cold start of items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from baselines.base import DATASETS, Baseline, Dataset, Recipe, baseline
from baselines.errors import LeanRecError
from baselines.models.layers import MLP
from baselines.models.text_encoder import HashedTfidf, SentenceEncoder, TextEncoder, encode
from baselines.tasks.retrieval import Retrieval


class TextTower(nn.Module):
    """From item ids by way of the vectors of their texts, which stay as they are, through an MLP.

    The MLP's output and a linear map of the text are added, so that it starts as a plain map.
    """

    texts: Tensor

    def __init__(
        self, texts: Tensor, hidden: Sequence[int], embedding_dim: int, dropout: float
    ) -> None:
        """texts: float32 [I, e]."""
        super().__init__()
        self.register_buffer("texts", texts)
        self.hidden = MLP(texts.shape[1], hidden, dropout)
        self.deep = nn.Linear(self.hidden.out, embedding_dim, bias=False)
        self.flat = nn.Linear(texts.shape[1], embedding_dim)

    def forward(self, items: Tensor) -> Tensor:
        """Ids int64 [K] to vectors [K, embedding_dim]."""
        text = self.texts[items]
        return self.flat(text) + self.deep(self.hidden(text))


class TextTwoTower(nn.Module):
    """An embedding per user and the text's vector per item; the score is their inner product."""

    def __init__(
        self,
        users: int,
        texts: Tensor,
        hidden: Sequence[int] = (256,),
        embedding_dim: int = 64,
        dropout: float = 0.0,
        std: float = 0.1,
    ) -> None:
        super().__init__()
        # from_pretrained leaves out nn.Embedding's own initialisation, a pass over the whole table.
        self.user = nn.Embedding.from_pretrained(torch.empty(users, embedding_dim), freeze=False)
        nn.init.normal_(self.user.weight, std=std)
        self.item = TextTower(texts, hidden, embedding_dim, dropout)

    def forward(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Ids int64 [B] and [K] to the vectors [B, d] of the users and [K, d] of the items."""
        return self.user(users), self.item(items)


@baseline("text-two-tower")
@dataclass(frozen=True)
class TextTwoTowerBaseline(Baseline):
    """Two towers, the items' on their texts.

    dataset: a data source's spec; its items must have texts. encoder: "minilm" needs the extra
    ``text``; "tfidf" needs nothing. path: another sentence-transformers folder for "minilm".
    """

    dataset: str = "ml-100k"
    encoder: Literal["tfidf", "minilm"] = "tfidf"
    path: str = ""
    hidden: tuple[int, ...] = (256,)
    embedding_dim: int = 64
    dropout: float = 0.2
    negatives: int = 512

    @property
    def task(self) -> Retrieval:
        """Retrieval under a softmax over uniformly drawn items."""
        return Retrieval("sampled-softmax", self.negatives)

    @property
    def recipe(self) -> Recipe:
        """Adam, tuned on the valid split of ml-latest-small's cold items."""
        return Recipe(lr=3e-3, batch_size=1024, epochs=40, patience=5, embedding_l2=1e-4)

    def data(self) -> Dataset:
        """Interactions of users with items. Raises LeanRecError where the items have no texts."""
        data = DATASETS.make(self.dataset).retrieval()
        if not data.texts:
            raise LeanRecError(
                f"The items of {data.name} have no texts.",
                "There is nothing to encode.",
                "Use data with a title or description of each item.",
            )
        return data

    def build(self, data: Dataset) -> TextTwoTower:
        """A fresh model on the encoded texts of `data`."""
        made: TextEncoder = (
            SentenceEncoder(self.path) if self.encoder == "minilm" else HashedTfidf()
        )
        texts = encode(made, data.texts, data.train.items)
        users = data.fields["user"]
        device = torch.get_default_device()
        return TextTwoTower(users, texts.to(device), self.hidden, self.embedding_dim, self.dropout)
