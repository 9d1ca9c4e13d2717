"""Record files: whole or not there, read back as written, corrupt ones named by line."""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_trials import BYTES, blocks, failure, quality, trial, value
from pydantic import ValidationError

from baselines.errors import LeanRecError
from bench.records import (
    CurveRow,
    EventRow,
    Trial,
    point_text,
    read_point,
    read_trial,
    read_trials,
    write_atomically,
    write_trial,
)


def made(process: int = 0) -> Trial:
    rows = [
        *blocks([1e-3, 2e-3], [3e-3, 4e-3], durations=((1, 2, 3), (4, 5, 6))),
        value(BYTES, "treatment", 123.0),
        quality(0.8, math.nan),
        failure("offline"),
    ]
    return trial(process, rows)


def as_json(row: Trial) -> str:
    return row.model_dump_json()


def test_a_trial_comes_back_as_it_was(tmp_path: Path) -> None:
    path = write_trial(tmp_path / "records", made())
    assert path.name == f"{made().head.id.rsplit('-', 1)[0]}-{path.stem.rsplit('-', 1)[1]}.jsonl"
    assert as_json(read_trial(path)) == as_json(
        made().model_copy(update={"head": read_trial(path).head})
    )
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_numbers_that_are_not_finite_survive(tmp_path: Path) -> None:
    path = write_trial(tmp_path, trial(0, [value(BYTES, "control", math.inf), quality(1, 0)]))
    assert read_trial(path).rows[0].value == math.inf  # type: ignore[union-attr]


def test_a_curve_keeps_what_is_not_defined_and_its_limit(tmp_path: Path) -> None:
    curve = CurveRow(
        scenario="server", metric=BYTES, name="oracle", along="events", x=(1.0, 2.0),
        y=(math.nan, math.inf), limit=3.0,
    )  # fmt: skip
    found = read_trial(write_trial(tmp_path, trial(0, [curve]))).rows[0]
    assert found.model_dump_json() == curve.model_dump_json()


def test_a_curve_has_a_y_for_each_x() -> None:
    with pytest.raises(ValidationError, match="x has 2 values and y 1"):
        CurveRow(scenario="", metric=BYTES, name="", along="", x=(1.0, 2.0), y=(1.0,))


@pytest.mark.parametrize("point", [{}, {"batch": 8}, {"batch": 512, "threads": 2}])
def test_a_point_is_read_as_it_was_written(point: dict[str, int]) -> None:
    assert read_point(point_text(point)) == point


@given(st.text())
def test_any_text_survives(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """Line separators of Unicode too, which JSON does not escape."""
    detail = text.encode("utf-8", "replace").decode()
    row = EventRow(scenario="", name="x", severity="note", detail=detail)
    path = write_trial(tmp_path_factory.getbasetemp() / "any-text", trial(0, [row]))
    found = read_trial(path).rows[0]
    path.unlink()
    assert isinstance(found, EventRow)
    assert found.detail == detail


def damaged(lines: list[bytes], kind: str) -> tuple[bytes, int]:
    """A damaged file, and the line that must be named."""
    match kind:
        case "cut within a line":
            return b"".join(lines)[: len(lines[0]) + 20], 2
        case "cut between lines":
            return b"".join(lines[:-1]), len(lines)
        case "an unknown key":
            row = json.loads(lines[1]) | {"vlaue": 1}
            return b"".join([lines[0], json.dumps(row).encode() + b"\n", *lines[2:]]), 2
        case "an unknown kind":
            return b"".join([lines[0], b'{"kind": "blok"}\n', *lines[2:]]), 2
        case "no JSON":
            return b"".join([*lines[:3], b"<<<<<<< HEAD\n", *lines[3:]]), 4
        case "empty":
            return b"", 1
        case _:
            return b"\xff\xfe" + b"".join(lines), 1


@pytest.mark.parametrize(
    "kind",
    [
        "cut within a line",
        "cut between lines",
        "an unknown key",
        "an unknown kind",
        "no JSON",
        "empty",
        "not UTF-8",
    ],
)
def test_a_corrupt_file_is_named_with_its_line_and_the_rest_is_read(
    tmp_path: Path, kind: str
) -> None:
    whole, broken = (write_trial(tmp_path, made(process)) for process in (0, 1))
    content, line = damaged(broken.read_bytes().splitlines(keepends=True), kind)
    broken.write_bytes(content)
    with pytest.raises(LeanRecError) as caught:
        read_trial(broken)
    assert f"{broken.name} is corrupt at line {line}" in caught.value.cause
    assert "\n" not in str(caught.value)
    trials, problems = read_trials(tmp_path)
    assert [as_json(t) for t in trials] == [as_json(read_trial(whole))]
    assert problems == [str(caught.value)]


@given(st.data())
def test_a_file_cut_anywhere_is_corrupt(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = write_trial(tmp_path_factory.getbasetemp() / "cut", made())
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 2))])
    trials, problems = read_trials(path.parent)
    path.unlink()
    assert trials == []
    assert len(problems) == 1


def test_files_under_way_are_no_records(tmp_path: Path) -> None:
    write_trial(tmp_path, made())
    (tmp_path / ".abc.part").write_text("half")
    (tmp_path / "x.corrupt").write_text("half")
    trials, problems = read_trials(tmp_path)
    assert (len(trials), problems) == (1, [])


def test_no_folder_holds_no_trials(tmp_path: Path) -> None:
    assert read_trials(tmp_path / "nowhere") == ([], [])


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "file.json"
    write_atomically(path, "before")

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(LeanRecError, match="No space left on device") as caught:
        write_atomically(path, "after")
    assert "--resume" in caught.value.fix
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["file.json"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o002, 0o664)])
def test_who_may_read_a_file_is_for_the_umask_to_say(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        path = write_trial(tmp_path, made())
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_folder_that_is_a_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LeanRecError, match="cannot be written"):
        write_trial(tmp_path / "file" / "records", made())
