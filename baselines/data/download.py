"""Fetching one file: resumable, verified by SHA-256, published atomically."""

from __future__ import annotations

import fcntl
import hashlib
import http
import http.client
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

TIMEOUT = 10.0  # seconds without a byte before a connection counts as lost
ATTEMPTS = 3
CHUNK = 1 << 16

Progress = Callable[[str, int, int | None], None]


class FetchError(Exception):
    """A source did not yield its file; the message is the reason, in words for the user."""


def show_progress(name: str, done: int, total: int | None) -> None:
    """One line on stderr that counts the bytes; only its end where stderr is not a terminal."""
    of = f" of {total / 1e6:.1f}" if total else ""
    if sys.stderr.isatty():
        end = "\n" if done == total else "\r"
        print(f"Downloading {name}: {done / 1e6:.1f}{of} MB", end=end, file=sys.stderr, flush=True)
    elif done == total:
        print(f"Downloaded {name}: {done / 1e6:.1f} MB", file=sys.stderr)


def sha256(data: bytes) -> str:
    """The SHA-256 of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file beside `path`, so that two processes never fetch it at once."""
    with Path(f"{path}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def publish(part: Path, path: Path, digest: str) -> None:
    """Rename `part` to `path` if its SHA-256 is `digest`; otherwise delete it, raise FetchError."""
    found = sha256(part.read_bytes())
    if found != digest:
        part.unlink()
        raise FetchError(f"its SHA-256 is {found[:12]}…, not {digest[:12]}…")
    os.replace(part, path)


def download(url: str, path: Path, digest: str, progress: Progress = show_progress) -> None:
    """Fetch `url` into `path`, going on from ``<path>.part`` where an earlier try broke off.

    progress(name, bytes done, bytes in all or None) is called after each chunk. Raises FetchError
    where the server refuses, cannot be reached, breaks off three times or sends other content.
    """
    part = Path(f"{path}.part")
    resumed = part.exists()
    for attempt in range(ATTEMPTS):
        try:
            _transfer(url, part, path.name, progress)
            break
        except urllib.error.HTTPError as error:
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and part.exists():
                part.unlink()
                continue
            raise FetchError(f"the server answered {error.code} {error.reason}") from error
        except (http.client.HTTPException, ConnectionError, _BrokenOffError) as error:
            if attempt + 1 == ATTEMPTS:
                raise FetchError(f"the transfer broke off: {error}") from error
        except OSError as error:  # no name, no route, no disk space: trying again would not help
            raise FetchError(str(getattr(error, "reason", error))) from error
    try:
        publish(part, path, digest)
    except FetchError:
        if not resumed:
            raise
        download(url, path, digest, progress)  # the old part was of another file


class _BrokenOffError(Exception):
    """The connection closed before the last byte; what came is kept."""


def _transfer(url: str, part: Path, name: str, progress: Progress) -> None:
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            done = 0  # the server sends the whole file
        length = response.headers.get("Content-Length")
        total = done + int(length) if length else None
        with part.open("ab" if done else "wb") as file:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                done += len(chunk)
                progress(name, done, total)
    if total is not None and done < total:
        raise _BrokenOffError(f"{done} of {total} bytes came")
