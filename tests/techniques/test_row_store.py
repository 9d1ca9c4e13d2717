"""The store: what it reads, what it leaves behind, what it says when there is no room."""

from __future__ import annotations

import copy
import gc
import os
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from baselines.errors import LeanRecError
from techniques.caching.row_store import RowStore

TABLE = torch.arange(12.0).view(4, 3)


def test_rows_are_read_in_any_order_and_as_often_as_asked() -> None:
    store = RowStore(TABLE)
    assert store.read(np.array([2, 0, 2])).tolist() == TABLE[[2, 0, 2]].tolist()
    assert store.read(np.array([], np.int64)).shape == (0, 3)


def test_it_is_a_copy_of_the_table_and_its_rows_are_copies_of_it() -> None:
    table = TABLE.clone()
    store = RowStore(table)
    table.zero_()
    store.read(np.array([1])).zero_()
    assert store.read(np.arange(4)).tolist() == TABLE.tolist()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_its_file_has_no_name_and_goes_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    store = RowStore(TABLE)
    twin = copy.deepcopy(store)
    assert list(tmp_path.iterdir()) == []
    assert mapped(tmp_path)
    del store
    assert twin.read(np.array([3])).tolist() == TABLE[3:].tolist()
    del twin
    gc.collect()
    assert not mapped(tmp_path)
    assert not [f for f in psutil.Process().open_files() if str(tmp_path) in f.path]


def mapped(folder: Path) -> bool:
    return str(folder) in Path(f"/proc/{os.getpid()}/maps").read_text()


def test_a_slow_store_takes_its_time_for_each_row() -> None:
    store = RowStore(TABLE, seconds=0.01)
    start = time.perf_counter()
    store.read(np.array([0, 1, 2]))
    assert time.perf_counter() - start >= 0.03


def test_no_room_is_told_with_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    with pytest.raises(LeanRecError, match=r"48 bytes cannot be stored in /nowhere.*TMPDIR"):
        RowStore(TABLE)
