"""FuxiCTR's DeepFM and DCN-V2, its training loop and its evaluation.

Its wheel holds the layers and the loop, not the models of its zoo; the models here are composed of
those layers as its documentation describes them. Loader, step, regulariser, clipping, early
stopping and metric are its own, with its own defaults. Source: Zhu et al., "Open Benchmarking for
Click-Through Rate Prediction", CIKM 2021, arXiv:2009.05794; package fuxictr 2.3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.dataloaders import RankDataLoader
from fuxictr.pytorch.layers import CrossNetV2, FactorizationMachine, FeatureEmbedding, MLP_Block
from fuxictr.pytorch.models import BaseModel
from torch import Tensor, nn

from baselines.base import Dataset, Split
from baselines.models.clicks import ClickBaseline
from baselines.models.dcnv2 import DCNv2Baseline

LABEL = "label"
NEVER = 10**9  # steps between two evaluations


class _Clicks(BaseModel):
    """What both models share: the embedding, the multilayer perceptron, Adam."""

    def __init__(
        self, features: FeatureMap, baseline: ClickBaseline, out: int | None, **settings: Any
    ) -> None:
        super().__init__(features, embedding_regularizer=baseline.embedding_l2, **settings)
        dim = baseline.embedding_dim
        self.embedding_layer = FeatureEmbedding(features, dim)
        self.mlp = MLP_Block(
            input_dim=features.num_fields * dim,
            hidden_units=[baseline.width] * baseline.depth,
            output_dim=out,
            dropout_rates=baseline.dropout,
            batch_norm=baseline.batch_norm,
        )

    def ready(self, rate: float) -> None:
        """Choose the optimiser and draw the weights."""
        self.compile("adam", "binary_crossentropy", rate)
        self.reset_parameters()
        self.model_to_device()


class FuxiDeepFM(_Clicks):
    """The factorisation machine's logit and the multilayer perceptron's, summed."""

    def __init__(self, features: FeatureMap, baseline: ClickBaseline, **settings: Any) -> None:
        super().__init__(features, baseline, 1, **settings)
        self.fm = FactorizationMachine(features)
        self.ready(baseline.lr)

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """inputs: name → [B]. Returns y_pred: click probabilities [B, 1]."""
        fields = self.get_inputs(inputs)
        vectors = self.embedding_layer(fields)
        logit = self.fm(fields, vectors) + self.mlp(vectors.flatten(1))
        return {"y_pred": self.output_activation(logit)}


class FuxiDCNv2(_Clicks):
    """Cross layers and multilayer perceptron side by side, one linear map of both."""

    def __init__(self, features: FeatureMap, baseline: DCNv2Baseline, **settings: Any) -> None:
        super().__init__(features, baseline, None, **settings)
        width = features.num_fields * baseline.embedding_dim
        self.cross = CrossNetV2(width, baseline.cross_layers)
        self.head = nn.Linear(width + baseline.width, 1)
        self.ready(baseline.lr)

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """inputs: name → [B]. Returns y_pred: click probabilities [B, 1]."""
        x = self.embedding_layer(self.get_inputs(inputs), flatten_emb=True)
        logit = self.head(torch.cat((self.cross(x), self.mlp(x)), dim=1))
        return {"y_pred": self.output_activation(logit)}


MODELS: dict[str, Callable[..., BaseModel]] = {"deepfm": FuxiDeepFM, "dcnv2": FuxiDCNv2}


class _Fuxi:
    """A ClickPeer. folder: for its files of rows, from which its loader reads, and of weights."""

    def __init__(self, baseline: ClickBaseline, data: Dataset, seed: int, folder: Path) -> None:
        self.baseline, self.folder = baseline, folder
        self.features = _features(data, folder)
        paths = {}
        for name in ("train", "valid", "test"):
            paths[f"{name}_data"] = str(_written(getattr(data, name), data, folder / name))
        self.train, self.valid, self.test = RankDataLoader(
            self.features, stage="both", batch_size=baseline.batch_size, **paths
        )
        torch.manual_seed(seed)
        self.model = self._model(eval_steps=NEVER)
        self.model.save_weights(self.model.checkpoint)  # its fit ends by reading this file

    def epoch(self) -> None:
        self.model.fit(self.train, epochs=1)

    def evaluate(self) -> float:
        return float(self.model.evaluate(self.test)["AUC"])

    def fit(self) -> None:
        self.model = self._model(eval_steps=None)
        self.model.fit(self.train, epochs=self.baseline.epochs, validation_data=self.valid)

    def _model(self, eval_steps: int | None) -> BaseModel:
        """eval_steps: steps between two looks at the valid split, None for an epoch."""
        return MODELS[self.baseline.name](
            self.features, self.baseline, eval_steps=eval_steps, verbose=0, metrics=["AUC"],
            early_stop_patience=self.baseline.patience, model_root=str(self.folder),
        )  # fmt: skip


def _features(data: Dataset, folder: Path) -> FeatureMap:
    features = FeatureMap("rows", str(folder))
    for name, cardinality in data.fields.items():
        features.features[name] = {
            "type": "categorical", "source": "", "vocab_size": cardinality
        }  # fmt: skip
    features.labels = [LABEL]
    features.num_fields = features.get_num_fields()
    features.set_column_index()
    (folder / features.dataset_id).mkdir()  # where its models are saved
    return features


def _written(split: Split, data: Dataset, path: Path) -> Path:
    (ids,) = split.inputs
    columns: dict[str, Any] = {name: ids[:, k].numpy() for k, name in enumerate(data.fields)}
    columns[LABEL] = split.labels.numpy()
    np.savez(path, **columns)
    return path.with_suffix(".npz")


@contextmanager
def fuxictr(baseline: ClickBaseline, data: Dataset, seed: int) -> Iterator[_Fuxi]:
    """A ClickPeer for `deepfm` or `dcnv2` on data of ids alone. Raises KeyError for another."""
    with TemporaryDirectory() as folder:
        yield _Fuxi(baseline, data, seed, Path(folder))
