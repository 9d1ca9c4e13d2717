import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from baselines.data import columns
from baselines.data.columns import coded, counted, picked

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


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans())))
def test_counts_and_choices_are_those_of_the_rows_asked_for(rows):
    codes = np.array([code for code, _ in rows], np.int32)
    where = np.array([here for _, here in rows], bool)
    assert_array_equal(counted(codes, 7), [list(codes).count(code) for code in range(7)])
    assert_array_equal(counted(codes, 7, where), np.bincount(codes[where], minlength=7))
    assert_array_equal(picked(codes, where), codes[where])
    assert picked(codes, where).dtype == np.int64
