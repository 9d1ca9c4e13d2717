"""The front of a trade-off, and what noise does not tell from it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reports.pareto import Axis, Spot, front

VALUES = st.floats(-2, 2)
SPOTS = st.lists(st.tuples(VALUES, VALUES, st.floats(0, 0.5)), min_size=1, max_size=8)


def spot(name: str, x: float, y: float, reach: float = 0.0, margin: float = 0.0) -> Spot:
    return Spot(name, Axis(x, x - reach, x + reach, margin), Axis(y, y - reach, y + reach))


def names(spots: list[Spot]) -> list[str]:
    return [s.name for s in spots]


@settings(deadline=None)
@given(SPOTS)
def test_nothing_is_better_than_the_front_and_something_than_the_rest(
    found: list[tuple[float, float, float]],
) -> None:
    spots = [spot(str(i), *values) for i, values in enumerate(found)]
    on, tied = front(spots)
    assert on
    for s in spots:
        better = [o for o in spots if o.dominates(s)]
        assert (s in on) == (not better)
        assert s not in tied or better
    assert [s.x.value for s in on] == sorted(s.x.value for s in on)
    assert [s.y.value for s in on] == sorted((s.y.value for s in on), reverse=True)


@settings(deadline=None)
@given(SPOTS)
def test_without_noise_nothing_is_tied(found: list[tuple[float, float, float]]) -> None:
    _, tied = front([spot(str(i), x, y) for i, (x, y, _) in enumerate(found)])
    assert not tied


@settings(deadline=None)
@given(SPOTS)
def test_more_noise_takes_no_tie_away(found: list[tuple[float, float, float]]) -> None:
    spots = [spot(str(i), *values) for i, values in enumerate(found)]
    wider = [spot(str(i), x, y, reach + 0.1) for i, (x, y, reach) in enumerate(found)]
    assert set(names(front(spots)[1])) <= set(names(front(wider)[1]))


def test_what_differs_on_one_axis_is_beaten_and_not_tied() -> None:
    best, near, far = spot("best", 2, 0, 0.1), spot("near", 1.9, -0.1, 0.1), spot("far", 1, 0, 0.1)
    assert (names(front([best, near, far])[0]), names(front([best, near, far])[1])) == (
        ["best"], ["near"],
    )  # fmt: skip


def test_intervals_apart_by_less_than_the_margin_are_tied() -> None:
    spots = [spot("a", 1.0, 0, 0.001, 0.02), spot("b", 0.99, 0, 0.001, 0.02)]
    assert names(front(spots)[1]) == ["b"]


@pytest.mark.parametrize("bound", [math.inf, math.nan])
def test_what_has_no_interval_is_not_known_to_be_tied(bound: float) -> None:
    lone = Spot("lone", Axis(0.5, -bound, bound), Axis(0, -bound, bound))
    assert not front([spot("best", 1, 0, 0.1), lone])[1]


def test_equal_points_are_all_on_the_front() -> None:
    assert names(front([spot("a", 1, 1), spot("b", 1, 1)])[0]) == ["a", "b"]
