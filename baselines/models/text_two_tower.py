"""Two towers of which the items' knows no ids, only texts: an item never trained on has a vector.

Sources: Yi et al., "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item
Recommendations", RecSys 2019 (two towers on content); Reimers and Gurevych, "Sentence-BERT",
EMNLP 2019, arXiv:1908.10084 (the encoder); Devlin et al., "BERT", NAACL 2019, arXiv:1810.04805 (the
rate of fine-tuning). Accepted departure: the user tower is a table, since users are known in a cold
start of items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from baselines.base import DATASETS, Baseline, Dataset, Recipe, baseline
from baselines.errors import LeanRecError
from baselines.models.layers import MLP
from baselines.models.text_encoder import HashedTfidf, SentenceEncoder, TextEncoder, encode
from baselines.tasks.retrieval import Retrieval

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

ENCODED = 512  # texts that the encoder reads together


class FrozenTexts(nn.Module):
    """The vectors of the items' texts as they are: float32 [I, e]."""

    vectors: Tensor

    def __init__(self, vectors: Tensor) -> None:
        super().__init__()
        self.register_buffer("vectors", vectors)
        self.width = vectors.shape[1]

    def forward(self, items: Tensor) -> Tensor:
        """Ids int64 [K] to vectors [K, e]."""
        return self.vectors[items]


class TunedTexts(nn.Module):
    """The items' texts through a sentence encoder at every call, so that it is trained too."""

    ids: Tensor
    real: Tensor

    def __init__(self, encoder: SentenceTransformer, texts: Sequence[str]) -> None:
        super().__init__()
        self.encoder = encoder
        self.width = int(encoder.get_sentence_embedding_dimension() or 0)
        tokens = encoder.preprocess(list(texts))
        self.register_buffer("ids", tokens["input_ids"], persistent=False)
        self.register_buffer("real", tokens["attention_mask"], persistent=False)

    def forward(self, items: Tensor) -> Tensor:
        """Ids int64 [K] to vectors [K, e] of length 1. A text is encoded once, however often its
        item comes."""
        distinct, place = items.unique(return_inverse=True)
        made = [self._encoded(some) for some in distinct.split(ENCODED)]
        return torch.cat(made)[place]

    def _encoded(self, items: Tensor) -> Tensor:
        real = self.real[items]
        length = int(real.sum(1).max())
        read = {"input_ids": self.ids[items, :length], "attention_mask": real[:, :length]}
        vectors: Tensor = self.encoder(read)["sentence_embedding"]
        return functional.normalize(vectors, dim=1)


class TextTower(nn.Module):
    """From item ids by way of the vectors of their texts through an MLP.

    The MLP's output and a linear map of the text are added, so that it starts as a plain map.
    """

    def __init__(
        self,
        texts: FrozenTexts | TunedTexts,
        hidden: Sequence[int],
        embedding_dim: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.texts = texts
        self.hidden = MLP(texts.width, hidden, dropout)
        self.deep = nn.Linear(self.hidden.out, embedding_dim, bias=False)
        self.flat = nn.Linear(texts.width, embedding_dim)

    def forward(self, items: Tensor) -> Tensor:
        """Ids int64 [K] to vectors [K, embedding_dim]."""
        text = self.texts(items)
        return self.flat(text) + self.deep(self.hidden(text))


class TextTwoTower(nn.Module):
    """An embedding per user and the text's vector per item; the score is their inner product."""

    def __init__(
        self,
        users: int,
        texts: FrozenTexts | TunedTexts,
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
    fine_tune: train the sentence encoder too. Every step then encodes the texts of its batch, so
    negatives are those of the batch, and an epoch takes minutes on a CPU.
    """

    dataset: str = "ml-100k"
    encoder: Literal["tfidf", "minilm"] = "tfidf"
    path: str = ""
    hidden: tuple[int, ...] = (256,)
    embedding_dim: int = 64
    dropout: float = 0.2
    negatives: int = 512
    fine_tune: bool = False

    @property
    def task(self) -> Retrieval:
        """Retrieval under a softmax over uniformly drawn items, or over those of the batch."""
        return Retrieval("in-batch" if self.fine_tune else "sampled-softmax", self.negatives)

    @property
    def recipe(self) -> Recipe:
        """Adam, tuned on the valid split of ml-latest-small's cold items; the encoder's rate is the
        middle one of those that Devlin et al. recommend."""
        return Recipe(
            lr=3e-3,
            batch_size=256 if self.fine_tune else 1024,
            epochs=40,
            patience=5,
            embedding_l2=1e-4,
            own_rates={"item.texts": 3e-5} if self.fine_tune else {},
        )

    def data(self) -> Dataset:
        """Interactions of users with items. Raises LeanRecError where the items have no texts."""
        data = DATASETS.make(self.dataset).retrieval()
        if self.fine_tune and self.encoder == "tfidf":
            raise LeanRecError(
                "fine_tune is set, but encoder is 'tfidf'.",
                "TF-IDF has nothing to train.",
                'Add encoder="minilm".',
            )
        if not data.texts:
            raise LeanRecError(
                f"The items of {data.name} have no texts.",
                "There is nothing to encode.",
                "Use data with a title or description of each item.",
            )
        return data

    def build(self, data: Dataset) -> TextTwoTower:
        """A fresh model on the encoded texts of `data`."""
        device = torch.get_default_device()
        texts: FrozenTexts | TunedTexts
        if self.fine_tune:
            with torch.device("cpu"):
                texts = TunedTexts(SentenceEncoder(self.path).model(), data.texts)
        else:
            made: TextEncoder = (
                SentenceEncoder(self.path) if self.encoder == "minilm" else HashedTfidf()
            )
            texts = FrozenTexts(encode(made, data.texts, data.train.items))
        users = data.fields["user"]
        return TextTwoTower(users, texts.to(device), self.hidden, self.embedding_dim, self.dropout)
