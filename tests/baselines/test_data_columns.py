import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from baselines.data import columns
from baselines.data.columns import blocks, coded, counted, in_turn, over_blocks, picked
from baselines.errors import LeanRecError

WHOLE = st.lists(st.integers(-(2**40), 2**40), min_size=1) | st.lists(
    st.integers(-3, 9), min_size=1
)


@pytest.fixture(autouse=True, scope="module")
def small_blocks():
    patch = pytest.MonkeyPatch()
    patch.setattr(columns, "BLOCK", 4)  # so that short columns have several
    yield
    patch.undo()


@given(WHOLE)
def test_codes_are_those_of_the_sorted_distinct_values(values):
    codes, known = coded(np.array(values))
    wanted, inverse = np.unique(values, return_inverse=True)
    assert_array_equal(known, wanted)
    assert_array_equal(codes, inverse)
    assert codes.dtype == np.int32


@given(
    st.lists(st.integers(-3, 9), min_size=1) | st.lists(st.integers(-(2**30), 2**30), min_size=1)
)
def test_codes_may_take_the_place_of_their_values(values):
    column = np.array(values, np.int32)
    fixed = column.copy()
    fixed.flags.writeable = False
    for given_up in (column, fixed, fixed.astype(np.int64)):
        codes, known = coded(given_up, reuse=True)
        assert_array_equal(known[codes], values)
        assert codes.dtype == np.int32
    assert_array_equal(fixed, values)


@given(st.integers(0, 40))
def test_every_row_is_in_one_block_and_blocks_come_in_order(length):
    rows = list(over_blocks(lambda block: list(range(block.start, block.stop)), length))
    assert [row for block in rows for row in block] == list(range(length))
    assert len(rows) == len(list(blocks(length)))


def test_pieces_are_asked_for_as_their_results_are_taken():
    asked = []

    def pieces():
        for piece in range(1000):
            asked.append(piece)
            yield piece

    results = in_turn(lambda piece: piece + 1, pieces())
    assert [next(results) for _ in range(5)] == [1, 2, 3, 4, 5]
    assert len(asked) < 50
    results.close()


def test_an_error_in_a_block_is_raised():
    with pytest.raises(ZeroDivisionError):
        list(over_blocks(lambda rows: 1 // (8 - rows.start), 40))


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans())))
def test_counts_and_choices_are_those_of_the_rows_asked_for(rows):
    codes = np.array([code for code, _ in rows], np.int32)
    where = np.array([here for _, here in rows], bool)
    assert_array_equal(counted(codes, 7), [list(codes).count(code) for code in range(7)])
    assert_array_equal(counted(codes, 7, where), np.bincount(codes[where], minlength=7))
    assert_array_equal(picked(codes, where), codes[where])
    assert picked(codes, where).dtype == np.int64


def test_an_array_above_the_limit_lies_in_a_file_and_is_filled_alike(monkeypatch):
    monkeypatch.setattr(columns, "LIMIT", 100)
    long, short = columns.room((51, 2), np.int8), columns.room((50, 2), np.int8)
    assert isinstance(long, np.memmap)
    assert not isinstance(short, np.memmap)
    long[:] = 7
    assert torch.from_numpy(long).sum() == 7 * 102


def test_a_full_disk_is_told_before_anything_is_written():
    with pytest.raises(LeanRecError, match=r"GB free.*Set TMPDIR"):
        columns.room((1 << 60,), np.int8)
