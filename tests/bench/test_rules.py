"""The common decision rules, and the rates by which they are judged."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from baselines.errors import LeanRecError
from bench.rules import RULES, mann_whitney, mean_plus_5, rate, student_t

BAD = [[], [1.0], [1.0, math.nan], [1.0, math.inf], [1.0, 0.0], [1.0, -1.0]]


@given(st.lists(st.floats(0.5, 2), min_size=2, max_size=30), st.floats(-0.5, 0.5))
def test_student_t_is_scipys(a: list[float], shift: float) -> None:
    b = [x * (1 + 0.1 * np.sin(i)) + shift * 0.5 for i, x in enumerate(a)]
    assume(np.std(a) > 1e-3)
    p = scipy_stats.ttest_ind(a, b).pvalue
    assume(abs(p - 0.05) > 1e-6)
    assert student_t(a, b) == (p < 0.05)


def test_student_t_without_any_spread() -> None:
    assert not student_t([1.0, 1.0], [1.0, 1.0])
    assert student_t([1.0, 1.0], [1.5, 1.5])


def test_mann_whitney_needs_a_p_below_two_thousandths() -> None:
    low, high = np.arange(1, 31), np.arange(21, 51)
    assert mann_whitney(low, high)
    assert not mann_whitney(low, np.arange(6, 36) + 0.5)


def test_mean_plus_5_is_one_sided() -> None:
    assert mean_plus_5([1.0, 1.0], [1.06, 1.06])
    assert not mean_plus_5([1.0, 1.0], [1.04, 1.04])
    assert not mean_plus_5([1.06, 1.06], [1.0, 1.0])


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("bad", BAD, ids=str)
def test_an_error_is_an_error_and_never_different(rule, bad: list[float]) -> None:  # type: ignore[no-untyped-def]
    for arms in ((bad, [1.0, 1.1]), ([1.0, 1.1], bad)):
        with pytest.raises(LeanRecError, match="timings"):
            rule(*arms)


@given(st.integers(1, 500), st.data())
def test_rate_has_the_exact_binomial_interval(n: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, n))
    share, low, high = rate(successes, n, 0.95)
    exact = scipy_stats.binomtest(successes, n).proportion_ci(0.95, method="exact")
    assert share == successes / n
    assert (low, high) == pytest.approx((exact.low, exact.high), abs=1e-9)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_no_rate_of_nothing(successes: int, n: int) -> None:
    with pytest.raises(LeanRecError, match="not a share"):
        rate(successes, n)
