"""Long numpy columns, worked on block by block.

A temporary as long as a column takes longer to get from the operating system than to fill, and it
is what memory runs out on.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from math import prod

import numpy as np
from numpy.typing import DTypeLike

from baselines.errors import LeanRecError

BLOCK = 1 << 18  # rows worked on together: their temporaries stay in the cache
PRESENCE = 8  # a table of seen ids may be so many times as long as the column
LIMIT = 1 << 30  # bytes; longer arrays lie in a file


def blocks(length: int) -> Iterator[slice]:
    """0…length−1 in slices."""
    return (slice(start, start + BLOCK) for start in range(0, length, BLOCK))


def room(shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """An array to be filled; one above `LIMIT` lies in a temporary file, which goes with it.

    Raises LeanRecError where the folder of temporary files has no room for it.
    """
    size = prod(shape) * np.dtype(dtype).itemsize
    if size <= LIMIT:
        return np.empty(shape, dtype)
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if free < size:
        raise LeanRecError(
            f"{folder} has {free / 1e9:.1f} GB free, and the data need {size / 1e9:.1f} GB.",
            "Nothing was run.",
            "Set TMPDIR to a folder on a larger disk.",
        )
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, dtype, "w+", shape=shape)


def coded(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes int32 [n] of whole numbers of any size, in rising order, and the value of each."""
    low, high = int(values.min()), int(values.max())
    if high - low > PRESENCE * len(values):
        known, codes = np.unique(values, return_inverse=True)
        return codes.astype(np.int32), known
    seen = np.zeros(high - low + 1, dtype=bool)
    for rows in blocks(len(values)):
        seen[values[rows] - low] = True
    place = np.cumsum(seen, dtype=np.int32) - 1
    codes = np.empty(len(values), np.int32)
    for rows in blocks(len(values)):
        codes[rows] = place[values[rows] - low]
    return codes, np.flatnonzero(seen) + low


def counted(codes: np.ndarray, size: int, where: np.ndarray | None = None) -> np.ndarray:
    """How often each code, 0…size−1, occurs: int64 [size]; among the rows `where` (bool [n])."""
    counts = np.zeros(size, np.int64)
    for rows in blocks(len(codes)):
        some = codes[rows] if where is None else codes[rows][where[rows]]
        counts += np.bincount(some, minlength=size)
    return counts


def picked(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Whole numbers as int64 [m], where `where` (bool [n]) holds."""
    chosen = np.empty(np.count_nonzero(where), np.int64)
    start = 0
    for rows in blocks(len(values)):
        some = np.flatnonzero(where[rows])
        chosen[start : start + len(some)] = values[rows][some]
        start += len(some)
    return chosen
