"""Own tables whose rows bring their histories."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
import torch

from baselines.base import DATASETS, Dataset
from baselines.errors import LeanRecError

PAST = [[7, 9], [], None, [9, 8, 7, 5], [1234]] * 20  # no row has item 1234
ITEMS = [7, 8, 9, 5, 7] * 20


def passed(
    path: Path, past: pl.Series, items: list[object] = ITEMS, more: str = "", form: str = "parquet"
) -> Dataset:
    """The published split of 60, 20 and 20 rows; those of `past` are their histories."""
    frame = pl.DataFrame({"iid": items, "click": [k % 3 % 2 for k in range(100)], "past": past})
    for name, start, rows in (("train", 0, 60), ("valid", 60, 20), ("test", 80, 20)):
        part, file = frame.slice(start, rows), path / f"{name}.{form}"
        (part.write_csv if form == "csv" else part.write_parquet)(file)
    roles = 'item="iid", label="click", sequence="past", split="published"'
    return DATASETS.make(f'own(path="{path}", {roles}{more})').ctr(history=3)


def text(mark: str) -> pl.Series:
    return pl.Series(["" if ids is None else mark.join(map(str, ids)) for ids in PAST])


@pytest.mark.parametrize(
    ("past", "form"),
    [(pl.Series(PAST), "parquet"),
     *((text(mark), form) for mark in (" ", ",", " | ") for form in ("parquet", "csv"))],
)  # fmt: skip
def test_a_rows_own_history_is_its_last_items(tmp_path, past, form):
    data = passed(tmp_path, past, form=form)
    _, history = data.train.inputs
    pad = data.fields["item"]
    assert pad == 5  # items 5, 7, 8, 9 are 1, 2, 3, 4
    rows = [[pad, 2, 4], [pad] * 3, [pad] * 3, [3, 2, 1], [pad, pad, 0]]
    assert history.tolist() == rows * 12
    assert "own history" in data.protocol


def test_items_that_are_words_and_words_with_spaces_are_told_apart(tmp_path):
    names = {5: "Heat", 7: "Toy Story", 8: "Léon", 9: "M", 1234: "?"}
    past = pl.Series([None if ids is None else "|".join(names[i] for i in ids) for ids in PAST])
    numbers = passed(tmp_path, pl.Series(PAST))
    words = passed(tmp_path, past, [names[i] for i in ITEMS])
    known = [names[i] for i in (5, 7, 8, 9)]
    table = torch.tensor([0, *(sorted(known).index(name) + 1 for name in known), 5])
    assert torch.equal(words.train.inputs[1], table[numbers.train.inputs[1]])


def test_an_item_of_a_history_that_filters_or_the_split_leave_out_is_unknown(tmp_path):
    items = [*([7, 8, 9, 5, 7] * 12), *([7, 8, 9, 9, 7] * 8)]
    items[90] = 6
    past = pl.Series([[6, 8, 5]] * 100)
    data = passed(tmp_path, past, items)
    assert data.test.inputs[1].tolist() == [[0, 3, 1]] * 20  # 6 is in the test part alone
    data = passed(tmp_path, past, items, ", min_item=15")
    assert data.fields["item"] == 4  # 7, 8 and 9 are left
    assert data.test.inputs[1].tolist() == [[0, 2, 0]] * len(data.test)


@pytest.mark.parametrize(
    ("past", "more", "message"),
    [
        (text(";"), "", "'past' should hold items; row 0 has '7;9'"),
        (pl.Series([None, [], ["7", "x"], *[["7"]] * 97]), "", "row 2 has 'x'"),
        (pl.Series([[1, 2]] * 100), "", "is that of an item of any row"),
        (pl.Series(PAST), ', categorical=["past"]', r"'past' holds List\(Int64\)"),
        (pl.Series([{"a": 7}] * 100), "", "'past' holds Struct"),
        (pl.Series([[[7]]] * 100), "", "'past' holds List"),
    ],
)
def test_histories_that_hold_no_items_are_refused(tmp_path, past, more, message):
    with pytest.raises(LeanRecError, match=message):
        passed(tmp_path, past, more=more)


def test_lists_of_one_length_are_lists(tmp_path):
    data = passed(tmp_path, pl.Series([[7, 9]] * 100, dtype=pl.Array(pl.Int64, 2)))
    assert data.test.inputs[1].tolist() == [[5, 2, 4]] * 20


def test_histories_of_nothing_are_all_padding(tmp_path):
    data = passed(tmp_path, pl.Series([None] * 100, dtype=pl.String))
    assert (data.test.inputs[1] == data.fields["item"]).all()
