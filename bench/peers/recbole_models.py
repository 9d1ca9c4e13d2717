"""RecBole's SASRec and BPR on MovieLens-100K, trained by its own trainer from its own loader.

Data, models, loss, optimiser and defaults are RecBole's; sizes and the learning rate are given.
Source: Zhao et al., "RecBole 2.0", CIKM 2022, arXiv:2206.07351; package recbole 1.2.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager
from itertools import islice
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

# RecBole asks for these names on import; NumPy 2 no longer has them.
for _name, _type in (("float_", np.float64), ("complex_", np.complex128), ("unicode_", np.str_)):
    if not hasattr(np, _name):
        setattr(np, _name, _type)

from recbole.config import Config  # noqa: E402 - after the names that it asks for
from recbole.data import create_dataset, data_preparation  # noqa: E402
from recbole.utils import get_model, get_trainer, init_seed  # noqa: E402


class _First:
    """The first `batches` of a loader, as often as it is gone through."""

    def __init__(self, loader: Any, batches: int) -> None:
        self.loader, self.batches = loader, batches

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def __len__(self) -> int:
        return min(self.batches, len(self.loader))

    def __iter__(self) -> Iterator[Any]:
        return islice(iter(self.loader), self.batches)


@contextmanager
def recbole(
    model: str, settings: Mapping[str, Any], batches: int | None = None
) -> Iterator[tuple[Callable[[], object], int]]:
    """Training of RecBole's `model` by its `Trainer.fit`: a call of one epoch, or of the epoch's
    first `batches`, and how many train rows a call goes through.

    settings: of RecBole's Config, beside the data set. Its files go to a folder that is removed.
    """
    fixed = {"use_gpu": False, "epochs": 1, "show_progress": False, "state": "ERROR"}
    with TemporaryDirectory() as folder, chdir(folder):
        config = Config(model=model, dataset="ml-100k", config_dict={**fixed, **settings})
        init_seed(config["seed"], config["reproducibility"])
        train, _, _ = data_preparation(config, create_dataset(config))
        built = get_model(model)(config, train.dataset)
        trainer = get_trainer(config["MODEL_TYPE"], model)(config, built)
        loader = train if batches is None else _First(train, batches)
        rows = min(len(train.dataset), len(loader) * config["train_batch_size"])
        yield lambda: trainer.fit(loader, verbose=False, saved=False), rows
