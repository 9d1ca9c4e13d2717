"""Own tables that cannot be used: each is refused with its cause."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from own_tables import clicks, own, saved

from baselines.base import DATASETS
from baselines.data import tables
from baselines.errors import LeanRecError


@pytest.mark.parametrize(
    ("change", "more", "message"),
    [
        ({"uid": "usr"}, "", "no column 'uid'.*Did you mean"),
        ({"click": lambda f: 1}, "", "one class only"),
        ({"click": lambda f: f["ts"]}, "", "neither 0 nor 1"),
        ({"click": lambda f: f["click"].where(f.index != 7)}, "", "missing"),
        ({"uid": lambda f: f["uid"].where(f.index != 7)}, "", "no 'uid', the first is row 7"),
        ({"ts": lambda f: "soon"}, "", "should hold times; row 0 is 'soon'"),
        ({}, ', numeric=["device"]', "should hold numbers"),
        ({}, ', split="by moon"', "is no split"),
        ({}, ', split="published"', "without train, valid and test files"),
        ({}, ", min_user=3000", "no event passes"),
        ({"device": "user"}, ', categorical=["user"]', "a category is called 'user'"),
    ],
)
def test_bad_tables_are_refused_with_their_cause(tmp_path, change, more, message):
    frame = clicks()
    for column, new in change.items():
        frame = frame.assign(**{column: new}) if callable(new) else frame.rename(columns=change)
    frame.to_csv(tmp_path / "clicks.csv", index=False)
    with pytest.raises(LeanRecError, match=f"(?s){message}"):
        own(tmp_path / "clicks.csv", more)


def hole(column: str, value: object) -> dict[str, object]:
    return {column: lambda f: f[column].astype(float).where(f.index != 7, value)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (hole("click", np.nan), "labels are missing or not finite, the first in row 7"),
        (hole("click", np.inf), "labels are missing or not finite, the first in row 7"),
        (hole("iid", np.nan), "1 rows have no 'iid', the first is row 7"),
        (hole("ts", np.nan), "should hold times; row 7 is (nan|None)"),
        (hole("ts", 1e300), "should hold times; row 7 is 1e"),
        ({"ts": lambda f: np.where(f.index == 7, "soon", "2024-01-31")}, "row 7 is 'soon'"),
        ({"iid": lambda f: [[1, 2]] * len(f)}, "'iid' holds List"),
        ({"click": lambda f: "yes"}, "'click' should hold numbers; row 0 is 'yes'"),
    ],
)
def test_missing_and_impossible_values_are_named_with_their_row(tmp_path, change, message):
    with pytest.raises(LeanRecError, match=message):
        DATASETS.make(saved(tmp_path, **change)).ctr()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "cannot be read as a table"),
        ("a.csv", b"uid,iid,click,ts\n", "a.csv has no rows"),
        ("a.csv", b"uid,iid,click,ts\n1,2,0,4,5,6\n", "cannot be read as a table"),
        ("a.csv", b"uid,iid,click,ts\n\xff\xfe,2,0,4\n", "cannot be read as a table"),
        ("a.csv", b"uid,iid,click,ts\n" + b"1,2,0,4\n" * 10_001 + b"1,2,0,u\n", "'ts'.*one kind"),
        ("a.csv.gz", gzip.compress(b"uid,iid,click,ts\n1,2,0,4\n")[:20], "cannot be read"),
        ("a.parquet", b"PAR1 and no more", "cannot be read as a table"),
        ("a.libsvm", b"1 2:x\n0 y:1\n", "cannot be read as a table"),
        ("a.xls", b"", "of no known form"),
        ("a.toml", b"path = [", "is no TOML"),
        ("a.toml", b"path = 'b.toml'", "names a TOML file"),
        ("a.toml", b"path = 'b.csv'", "b.csv does not exist"),
        ("a.toml", b"user = 3", "'user'"),
    ],
)
@pytest.mark.parametrize("limit", [tables.LIMIT, 0])
def test_files_that_are_no_tables_are_refused(tmp_path, monkeypatch, name, content, message, limit):
    monkeypatch.setattr(tables, "LIMIT", limit)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(LeanRecError, match=message):
        own(tmp_path / name)
