"""What a training keeps on disk: the weights of its best epoch, and all it needs to go on.

Weights are written a chunk at a time and read back in place, because a copy in memory would double
what a training of large tables holds.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from baselines.errors import LeanRecError

CHUNK = 2**20  # elements moved at a time between a tensor and a file
SHARE = 0.1  # of the time of a training, at most, goes into checkpoints


class Checkpoint:
    """The best weights of a training and, with a `folder`, what a killed training goes on from.

    The folder holds ``weights-N`` (the bytes of all tensors in order) and ``state-N`` (what else
    changes) by number N of the epoch. ``progress.json`` names those that belong together; it is
    replaced in one step after all that it names is on the disk, so a kill at any moment leaves
    a whole checkpoint, this one or the one before.

    A checkpoint is `due` after the first epoch, and then once the time since the last one is
    1 ÷ SHARE times what writing it took: in effect after every epoch, unless the tables are so
    large that the writing would slow the training. Without a folder none is ever due, and the best
    weights lie in a temporary file without a name, which no kill can leave behind.

    keeps: False for ranks that go on from what another one has written; they write nothing.
    """

    def __init__(self, folder: Path | None, keeps: bool = True) -> None:
        self.folder, self.keeps = folder, keeps
        self._best = 0
        self._published: dict[str, Any] | None = None
        self._cost, self._last = 0.0, time.monotonic()
        self._open = ExitStack()
        self._nameless: FileIO | None = None

    def __enter__(self) -> Checkpoint:
        if not self.keeps:
            return self
        if self.folder is None:
            self._nameless = self._open.enter_context(tempfile.TemporaryFile(buffering=0))
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    @property
    def due(self) -> bool:
        """Whether `write` is to be called after this epoch."""
        if self.folder is None or not self.keeps:
            return False
        since = time.monotonic() - self._last
        return self._published is None or since * SHARE >= self._cost

    def read(self, tensors: Sequence[Tensor]) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Read the last checkpoint: its weights into `tensors`; returns the progress and the state
        (on the CPU) that `write` was given. None, with `tensors` left alone, where there is none.
        """
        if self.folder is None or not (self.folder / "progress.json").exists():
            return None
        progress: dict[str, Any] = json.loads((self.folder / "progress.json").read_text())
        number, self._best = progress["number"], progress["best"]
        self._published = progress
        state = torch.load(
            self.folder / f"state-{number}", map_location="cpu", weights_only=True, mmap=True
        )
        with (self.folder / f"weights-{number}").open("rb", buffering=0) as file:
            _read_into(tensors, file)
        if self.keeps:
            self._tidy()
        return progress, state

    def keep_best(self, number: int, tensors: Sequence[Tensor]) -> None:
        """Keep `tensors` as the weights of the best epoch so far.

        Raises LeanRecError where the disk for temporary files is full; OSError where the folder's.
        """
        self._best = number
        if not self.keeps:
            return
        if self._nameless is None:
            self._write_weights(number, tensors)
            self._tidy()
            return
        try:
            self._nameless.seek(0)
            _write(tensors, self._nameless)
        except OSError as error:
            raise LeanRecError(
                f"The best weights cannot be kept in {tempfile.gettempdir()}: {error.strerror}.",
                "The training was stopped.",
                "Free space there, or set TMPDIR to a folder that has some.",
            ) from error

    def restore_best(self, tensors: Sequence[Tensor]) -> None:
        """Put the best epoch's weights back into `tensors`."""
        if not self.keeps:
            return
        if self._nameless is not None:
            self._nameless.seek(0)
            _read_into(tensors, self._nameless)
            return
        with self._path(f"weights-{self._best}").open("rb", buffering=0) as file:
            _read_into(tensors, file)

    def write(
        self,
        number: int,
        tensors: Sequence[Tensor],
        progress: dict[str, Any],
        state: dict[str, Any],
    ) -> None:
        """Write a checkpoint of epoch `number`. progress: what JSON can hold; state: tensors and
        plain values, which torch.load reads with weights_only. Raises OSError for a full disk."""
        if not self.keeps:
            return
        start = time.monotonic()
        if number != self._best:
            self._write_weights(number, tensors)
        save(state, self._path(f"state-{number}"))
        published = {**progress, "number": number, "best": self._best}
        draft = self._path("progress.draft")
        draft.write_text(json.dumps(published))
        for name in (f"weights-{self._best}", f"weights-{number}", f"state-{number}", draft.name):
            with self._path(name).open("rb") as file:
                os.fsync(file.fileno())
        os.replace(draft, self._path("progress.json"))
        self._published = published
        self._tidy()
        self._last = time.monotonic()
        self._cost = self._last - start

    def _path(self, name: str) -> Path:
        assert self.folder is not None
        return self.folder / name

    def _write_weights(self, number: int, tensors: Sequence[Tensor]) -> None:
        with self._path(f"weights-{number}").open("wb", buffering=0) as file:
            _write(tensors, file)

    def _tidy(self) -> None:
        """Delete what neither the checkpoint nor the best epoch needs."""
        kept = {f"weights-{self._best}", "progress.json"}
        if self._published is not None:
            number, best = self._published["number"], self._published["best"]
            kept |= {f"weights-{best}", f"weights-{number}", f"state-{number}"}
        for path in self._path("").iterdir():
            if path.name not in kept:
                path.unlink()


def save(content: object, path: Path) -> None:
    """`torch.save` whose full disk is an OSError; torch's writer fails once more at the end."""
    try:
        with path.open("wb") as file:
            torch.save(content, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def _chunks(tensor: Tensor) -> Sequence[Tensor]:
    """Views that together cover `tensor`."""
    return tensor.detach().view(-1).split(CHUNK) if tensor.is_contiguous() else [tensor.detach()]


def _bytes(host: Tensor) -> memoryview:
    return host.reshape(-1).view(torch.uint8).numpy().data


def _write(tensors: Sequence[Tensor], file: FileIO) -> None:
    for tensor in tensors:
        for chunk in _chunks(tensor):
            rest = _bytes(chunk.cpu())
            while rest:  # an unbuffered write may stop short
                rest = rest[file.write(rest) :]


def _read_into(tensors: Sequence[Tensor], file: FileIO) -> None:
    for tensor in tensors:
        for chunk in _chunks(tensor):
            host = torch.empty(chunk.shape, dtype=chunk.dtype)
            rest = _bytes(host)
            while rest:
                rest = rest[file.readinto(rest) or _cut_short(file) :]
            chunk.copy_(host)


def _cut_short(file: FileIO) -> int:
    raise EOFError(f"{file.name} is shorter than the model's tensors")
