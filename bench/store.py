"""Artefacts shared by content address: what the cells of a plan have in common is made once.

An artefact is a folder published by one rename, so it is there whole or not at all; a lock per
address keeps two processes from making the same one twice.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import inspect
import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from baselines.errors import LeanRecError

_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


class Store:
    """Artefacts under one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, kind: str, key: dict[str, object]) -> Path:
        """Where the artefact of that kind and content key is, or would be."""
        return self.root / kind / address(key)

    def ensure(
        self, kind: str, key: dict[str, object], make: Callable[[Path], None]
    ) -> tuple[Path, bool]:
        """The artefact's folder, made by `make(empty folder)` if need be; and whether it was.

        Raises LeanRecError where the store cannot be written.
        """
        path = self.path(kind, key)
        if path.exists():
            return path, False
        draft = path.with_suffix(".draft")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = path.with_suffix(".lock").open("w")
        except OSError as error:
            raise self._unwritable(error) from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if path.exists():
                return path, False
            try:
                shutil.rmtree(draft, ignore_errors=True)  # of a maker that was killed
                draft.mkdir()
                make(draft)
                (draft / "key.json").write_text(json.dumps(key, sort_keys=True, default=str))
                os.replace(draft, path)
            except OSError as error:
                if error.errno not in _DISK_ERRORS:  # `make` may read the user's own files
                    raise
                raise self._unwritable(error) from error
            finally:
                shutil.rmtree(draft, ignore_errors=True)
        return path, True

    def sweep(self, kind: str, ending: str) -> None:
        """Delete the folders ``ADDRESS`` + `ending` of that kind, but for those whose artefact a
        process is making."""
        for folder in (self.root / kind).glob(f"*{ending}"):
            with folder.with_name(folder.name.removesuffix(ending) + ".lock").open("w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                shutil.rmtree(folder, ignore_errors=True)

    def _unwritable(self, error: OSError) -> LeanRecError:
        return LeanRecError(
            f"The artefact store {self.root} cannot be written: {error.strerror or error}.",
            "Nothing that was there is harmed.",
            "Free space, or set LEANREC_CACHE to another folder.",
        )


def address(key: dict[str, object]) -> str:
    """24 hex digits that stand for a content key."""
    text = json.dumps(key, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def code_version(classes: Iterable[type]) -> str:
    """A hash over the baselines room, the code that defines `classes`, and torch's version.

    A class in a package counts with the whole package, since it may use any of it; one in a file of
    its own with that file.
    """
    files = set(Path(inspect.getfile(LeanRecError)).parent.rglob("*.py"))
    for cls in classes:
        file = Path(inspect.getfile(cls))
        depth = cls.__module__.count(".")
        files.update(file.parents[depth - 1].rglob("*.py") if depth else [file])
    state = hashlib.sha256(torch.__version__.encode())
    for file in sorted(files):
        state.update(file.read_bytes())
    return state.hexdigest()[:16]
