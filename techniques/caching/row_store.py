"""A table of rows outside the process's own memory: a file that is mapped, read-only."""

from __future__ import annotations

import tempfile
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from baselines.errors import LeanRecError


class RowStore:
    """The rows of a table in a temporary file, mapped into memory.

    The file has no name: it goes when the last reader does, however the process ends. What was
    read lately lies in the system's page cache, so a store alone is about as fast as memory;
    `seconds` for each row read emulates one that is not, such as a store across a network, by
    one sleep a batch.
    """

    def __init__(self, table: Tensor, seconds: float = 0.0) -> None:
        """table: [n, d], on the CPU. It is written, not kept. seconds: for each row read.

        Raises LeanRecError where the file cannot be written.
        """
        self.count, self.dim, self.dtype, self.seconds = *table.shape, table.dtype, seconds
        held = table.detach().contiguous().view(torch.uint8).numpy()
        try:
            with tempfile.TemporaryFile() as file:
                file.write(held.data)
                file.flush()
                self._rows = np.asarray(np.memmap(file, np.uint8, "r", shape=held.shape))
        except OSError as error:
            raise LeanRecError(
                f"A table of {held.nbytes} bytes cannot be stored in {tempfile.gettempdir()}: "
                f"{error.strerror or error}.",
                "Nothing is served from a store.",
                "Free space there, or let TMPDIR name another folder.",
            ) from error

    def read(self, ids: np.ndarray) -> Tensor:
        """The rows of `ids` (int64 [m]), a new tensor [m, d]."""
        if not len(ids):
            return torch.empty(0, self.dim, dtype=self.dtype)
        if self.seconds:
            time.sleep(self.seconds * len(ids))
        return torch.from_numpy(np.take(self._rows, ids, axis=0)).view(self.dtype)

    def __deepcopy__(self, memo: dict[int, Any]) -> RowStore:
        """Itself: nothing of it ever changes."""
        return self
