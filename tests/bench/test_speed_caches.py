"""The speed rows of caches: they work, and say what they were held against."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bench.speed import speed_rows
from bench.speed.caches import OneByOne


def test_the_bare_cache_is_an_lru() -> None:
    table = np.arange(12.0).reshape(6, 2)
    cache = OneByOne(table, 2)
    for ids, held in (([0, 1, 0], [1, 0]), ([2], [0, 2]), ([0, 5, 5], [0, 5]), ([], [0, 5])):
        array = np.array(ids, np.int64)
        assert not ids or np.array_equal(cache(array), table[array])
        assert list(cache.rows) == held


@pytest.mark.slow
def test_rows_of_every_kind_are_made() -> None:
    torch.set_num_threads(1)
    rows = speed_rows(["caches"], quick=True)
    assert [row.measure for row in rows] == ["look-ups/s", "hit rate", "hit rate", "share", "s"]
    assert rows[1].ratio == pytest.approx(1, abs=0.05)
    assert rows[2].bare is not None
    assert 0.8 * rows[2].bare < rows[2].ours <= rows[2].bare
    assert rows[4].ratio is not None
    assert rows[4].ratio < 1
    assert all(row.note and not row.verdict for row in rows)
