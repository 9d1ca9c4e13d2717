"""Prepared data as files of the artefact store, and what of the user's own files it was made of."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import torch

from baselines.base import DATASETS, Baseline, Dataset, Split
from baselines.checkpoint import save
from baselines.errors import LeanRecError

FEATURES = ("user_features", "item_features")  # of a data set


def files_of(baseline: Baseline) -> list[object]:
    """What the user's own files were when the data was read: where data lies, and the size and
    time of change of every file that a parameter of the data source names."""
    try:
        source = DATASETS.make(getattr(baseline, "dataset", ""))
    except LeanRecError:
        return []  # a baseline that takes its data from elsewhere
    seen: list[object] = [os.environ.get("LEANREC_DATA", "")]
    for value in vars(source).values():
        path = Path(value).expanduser() if isinstance(value, (str, Path)) and value else None
        if path is not None and path.exists():
            files = sorted(path.iterdir()) if path.is_dir() else [path]
            seen += [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    return seen


def save_data(data: Dataset, folder: Path) -> None:
    """Write `data` into a folder: tensors as torch saves them, the rest as JSON."""
    tensors: dict[str, Any] = {
        name: {
            "inputs": list(split.inputs),
            "labels": split.labels,
            "users": split.users,
            "items": split.items,
            "segments": dict(split.segments),
        }
        for name, split in (("train", data.train), ("valid", data.valid), ("test", data.test))
    }
    tensors |= {name: dict(getattr(data, name)) for name in FEATURES}
    save(tensors, folder / "data.pt")
    meta = {f.name: getattr(data, f.name) for f in dataclasses.fields(Dataset)}
    said = {name: value for name, value in meta.items() if name not in tensors}
    said |= {"fields": dict(data.fields), "best": dict(data.best)}
    (folder / "data.json").write_text(json.dumps({"digest": data.digest, "said": said}))


def load_data(folder: Path) -> Dataset:
    """What `save_data` wrote; tensors are mapped from the file."""
    said = json.loads((folder / "data.json").read_text())["said"]
    tensors = torch.load(folder / "data.pt", weights_only=True, mmap=True)
    splits = {
        name: Split(tuple(s["inputs"]), s["labels"], s["users"], s["items"], s["segments"])
        for name, s in tensors.items()
        if name not in FEATURES
    }
    features = {name: tensors[name] for name in FEATURES}
    lists = {name: tuple(value) for name, value in said.items() if isinstance(value, list)}
    return Dataset(**{**said, **lists, **splits, **features})
