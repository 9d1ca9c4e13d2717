from __future__ import annotations

import errno
import importlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baselines.base import BASELINES
from baselines.checkpoint import save
from baselines.errors import LeanRecError
from baselines.registry import load_plugin
from bench import store as store_module
from bench.store import Store, code_version
from techniques.base import TECHNIQUES

KEY: dict[str, object] = {"baseline": "toy", "seed": 0}
fork = multiprocessing.get_context("fork")


def writes(text: str = "whole") -> Callable[[Path], None]:
    return lambda folder: (folder / "content").write_text(text)


def left_behind(store: Store) -> list[str]:
    """What is in the store beside published artefacts and their locks."""
    files = (store.root / "trained").iterdir()
    return [f.name for f in files if f.suffix not in ("", ".lock")]


def test_an_artefact_is_made_once_and_found_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    path, made = store.ensure("trained", KEY, writes("first"))
    assert made
    assert Store(tmp_path / "store").ensure("trained", KEY, writes("second")) == (path, False)
    assert (path / "content").read_text() == "first"
    assert path == store.path("trained", KEY)
    assert left_behind(store) == []


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5)), st.data())
def test_the_address_depends_on_the_content_of_the_key_alone(
    key: dict[str, object], data: st.DataObject
) -> None:
    store = Store(Path("store"))
    shuffled = dict(data.draw(st.permutations(list(key.items()))))
    assert store.path("data", key) == store.path("data", shuffled)
    assert store.path("data", key) != store.path("trained", key)
    assert store.path("data", key) != store.path("data", {**key, "one more": 1})


def _ensure(root: Path, log: Path, results: Any) -> None:
    def make(folder: Path) -> None:
        with log.open("a") as file:
            file.write("made\n")
        time.sleep(0.2)
        (folder / "content").write_text("whole")

    path, made = Store(root).ensure("trained", KEY, make)
    results.put((str(path), made, (path / "content").read_text()))


def test_two_processes_make_the_same_artefact_once(tmp_path: Path) -> None:
    results = fork.Queue()
    workers = [
        fork.Process(target=_ensure, args=(tmp_path / "store", tmp_path / "log", results))
        for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=300) for _ in workers]
    for worker in workers:
        worker.join()
    assert (tmp_path / "log").read_text() == "made\n"
    assert sorted(made for _, made, _ in found) == [False, False, True]
    assert {content for _, _, content in found} == {"whole"}
    assert len({path for path, _, _ in found}) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, MemoryError])
def test_an_interrupted_make_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    store = Store(tmp_path / "store")

    def make(folder: Path) -> None:
        (folder / "content").write_text("half")
        raise error

    with pytest.raises(error):
        store.ensure("trained", KEY, make)
    assert not store.path("trained", KEY).exists()
    assert left_behind(store) == []
    path, made = store.ensure("trained", KEY, writes())
    assert made
    assert (path / "content").read_text() == "whole"


def _killed(root: Path) -> None:
    def make(folder: Path) -> None:
        (folder / "half").write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)

    Store(root).ensure("trained", KEY, make)


def test_a_killed_make_is_never_read_and_is_cleared_by_the_next(tmp_path: Path) -> None:
    worker = fork.Process(target=_killed, args=(tmp_path / "store",))
    worker.start()
    worker.join()
    assert worker.exitcode == -signal.SIGKILL
    store = Store(tmp_path / "store")
    assert not store.path("trained", KEY).exists()

    def make(folder: Path) -> None:
        assert list(folder.iterdir()) == []
        (folder / "content").write_text("whole")

    path, made = store.ensure("trained", KEY, make)
    assert made
    assert sorted(file.name for file in path.iterdir()) == ["content", "key.json"]
    assert left_behind(store) == []


def test_a_full_disk_is_said_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")

    def full(*paths: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(store_module.os, "replace", full)
        with pytest.raises(LeanRecError, match=r"No space left .* Free space") as caught:
            store.ensure("trained", KEY, writes())
    assert str(store.root) in str(caught.value)
    assert not store.path("trained", KEY).exists()
    assert left_behind(store) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_weights_that_do_not_fit_are_a_full_disk(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(LeanRecError, match="No space left"):
        store.ensure("trained", KEY, lambda folder: save(list(range(10**5)), Path("/dev/full")))


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LeanRecError, match=r"cannot be written.*LEANREC_CACHE"):
        Store(tmp_path / "file" / "store").ensure("trained", KEY, writes())


def test_a_file_that_the_maker_misses_is_not_blamed_on_the_store(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"clicks\.csv"):
        Store(tmp_path).ensure("data", KEY, lambda folder: open("clicks.csv").close())


PLUGIN = """
from dataclasses import dataclass
from techniques.base import Technique, technique

@technique("versioned")
@dataclass(frozen=True)
class Versioned(Technique):
    family = "test"
"""


def test_the_code_version_follows_the_file_of_a_plugin(tmp_path: Path) -> None:
    file = tmp_path / "versioned.py"
    file.write_text(PLUGIN)
    load_plugin(file)
    cls = TECHNIQUES.get("versioned")
    try:
        before = code_version([cls])
        assert code_version([cls]) == before
        assert code_version([]) != before
        (tmp_path / "another.py").write_text("")
        assert code_version([cls]) == before
        file.write_text(PLUGIN + "\n# another version\n")
        assert code_version([cls]) != before
    finally:
        del TECHNIQUES._classes["versioned"]


def test_the_code_version_follows_the_whole_package_of_a_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "some_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "helper.py").write_text("SCALE = 1\n")
    (package / "plugin.py").write_text("from some_package.helper import SCALE\nclass A: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    cls = importlib.import_module("some_package.plugin").A
    try:
        before = code_version([cls])
        (package / "helper.py").write_text("SCALE = 2\n")
        assert code_version([cls]) != before
    finally:
        for name in [n for n in sys.modules if n.startswith("some_package")]:
            del sys.modules[name]


def test_the_code_version_of_a_control_does_not_follow_the_techniques() -> None:
    control = code_version([BASELINES.get("dcnv2")])
    assert control == code_version([BASELINES.get("two-tower")])
    assert control != code_version([BASELINES.get("dcnv2"), TECHNIQUES.get("bf16")])
