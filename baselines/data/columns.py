"""Long numpy columns, worked on block by block.

A temporary as long as a column takes longer to get from the operating system than to fill, and it
is what memory runs out on.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from math import prod
from threading import Lock
from typing import TypeVar

import numpy as np
from numpy.typing import DTypeLike

from baselines.errors import LeanRecError

BLOCK = 1 << 18  # rows worked on together: their temporaries stay in the cache
THREADS = 4  # more would wait for memory, and take more of it
PRESENCE = 8  # a table of seen ids may be so many times as long as the column
LIMIT = 1 << 30  # bytes; longer arrays lie in a file
P = TypeVar("P")
T = TypeVar("T")


def blocks(length: int) -> Iterator[slice]:
    """0…length−1 in slices."""
    return (slice(start, min(start + BLOCK, length)) for start in range(0, length, BLOCK))


def in_turn(work: Callable[[P], T], pieces: Iterable[P]) -> Iterator[T]:
    """What `work` gives of each piece, in their order, by up to `THREADS` threads.

    Few pieces and results are there at once, however many there are. Raises what `work` raises.
    """
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    threads = min(len(usable) or os.cpu_count() or 1, THREADS)
    with ThreadPoolExecutor(threads) as pool:
        begun: deque[Future[T]] = deque()
        for piece in pieces:
            begun.append(pool.submit(work, piece))
            if len(begun) > 2 * threads:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()


def over_blocks(work: Callable[[slice], T], length: int) -> Iterator[T]:
    """What `work` gives of each of the `blocks`, `in_turn`."""
    return map(work, blocks(length)) if length <= BLOCK else in_turn(work, blocks(length))


def each_block(work: Callable[[slice], object], length: int) -> None:
    """`over_blocks` for work that writes to rows, or sets marks, of its own accord."""
    deque(over_blocks(work, length), maxlen=0)


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


def coded(values: np.ndarray, reuse: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Codes int32 [n] of whole numbers of any size, in rising order, and the value of each.

    reuse: the codes may take the place of `values`, which saves the room of a column.
    """
    low, high = int(values.min()), int(values.max())
    if high - low > PRESENCE * len(values):
        known, codes = np.unique(values, return_inverse=True)
        return codes.astype(np.int32), known
    seen = np.zeros(high - low + 1, dtype=bool)

    def mark(rows: slice) -> None:
        seen[values[rows] - low] = True

    each_block(mark, len(values))
    place = np.cumsum(seen, dtype=np.int32) - 1
    fits = reuse and values.dtype == np.int32 and values.flags.writeable
    codes = values if fits else np.empty(len(values), np.int32)

    def code(rows: slice) -> None:
        at = (values[rows] - low).astype(np.intp, copy=False)
        np.take(place, at, out=codes[rows], mode="clip")  # all are in range: "clip" spares a copy

    each_block(code, len(values))
    return codes, np.flatnonzero(seen) + low


def counted(codes: np.ndarray, size: int, where: np.ndarray | None = None) -> np.ndarray:
    """How often each code, 0…size−1, occurs: int64 [size]; among the rows `where` (bool [n])."""
    counts = np.zeros(size, np.int64)
    adding = Lock()

    def count(rows: slice) -> None:
        some = codes[rows] if where is None else codes[rows][where[rows]]
        found = np.bincount(some, minlength=size)
        with adding:
            np.add(counts, found, out=counts)

    each_block(count, len(codes))
    return counts


def picked(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Whole numbers as int64 [m], where `where` (bool [n]) holds."""
    counts = [np.count_nonzero(where[rows]) for rows in blocks(len(values))]
    ends = np.cumsum(counts, dtype=np.int64)
    chosen = np.empty(ends[-1] if counts else 0, np.int64)

    def pick(rows: slice) -> None:
        k = rows.start // BLOCK
        chosen[ends[k] - counts[k] : ends[k]] = values[rows][where[rows]]

    each_block(pick, len(values))
    return chosen
