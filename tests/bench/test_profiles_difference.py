"""Which operators explain a gap, and whether the clock agrees."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_profile import CONTROL, TREATMENT, made_profile

from bench.profiles.difference import OUTSIDE, agreement, changes, explaining, gap_us

TIMES = st.dictionaries(
    st.sampled_from([f"aten::op{n}" for n in range(12)]), st.floats(0, 1e5), max_size=12
)


@settings(max_examples=60, deadline=None)
@given(TIMES, TIMES)
def test_what_operators_save_adds_up_to_the_gap(
    control: dict[str, float], treatment: dict[str, float]
) -> None:
    profile = made_profile(control, treatment)
    found = changes(profile)
    gap = gap_us(profile)
    assert math.fsum(c.saved_us for c in found) == pytest.approx(gap, abs=1e-6)
    shares = [c.share for c in found]
    if None not in shares:
        assert math.fsum(shares) == pytest.approx(1)


def test_the_swapped_operator_is_named() -> None:
    named = explaining(made_profile())
    assert [c.name for c in named] == ["aten::addmm", "quantized::linear_dynamic"]
    assert [c.calls for c in named] == [(1, 0), (0, 1)]
    assert [c.share for c in named] == pytest.approx([800 / 600, -200 / 600])


def test_a_slower_treatment_is_explained_as_well() -> None:
    (named,) = explaining(made_profile(CONTROL, {**CONTROL, "aten::mm": 500.0}))
    assert (named.name, named.saved_us, named.share) == ("aten::mm", -500, 1.0)


def test_time_outside_of_operators_is_one_of_the_changes() -> None:
    assert OUTSIDE in {c.name for c in changes(made_profile())}


def test_arms_that_take_the_same_have_no_gap_to_explain() -> None:
    profile = made_profile(CONTROL, {**CONTROL, "aten::relu": 41.0})
    assert not explaining(profile)
    assert all(c.share is None for c in changes(profile))


class TestAgreement:
    def test_a_clock_that_says_the_same_agrees(self) -> None:
        found = agreement(made_profile())
        assert found.verdict == "agrees"
        assert found.profile == pytest.approx(1000 / 400)
        assert found.clock == pytest.approx(found.profile, rel=0.01)

    def test_what_the_clocks_pairs_differ_by_is_allowed(self) -> None:
        assert agreement(made_profile(gains=[1.5, 3.0])).verdict == "agrees"

    def test_a_profile_that_its_own_cost_changed_is_told_so(self) -> None:
        many = {f"aten::op{n}": 10.0 for n in range(50)}  # 5 µs each without the profiler
        few = {"aten::one": 100.0}
        profile = made_profile(many, few, gains=[350 / 195] * 3, operator_us=5.0)
        found = agreement(profile)
        assert found.verdict == "profiler"
        assert found.corrected == pytest.approx(350 / 195)

    @pytest.mark.parametrize("operator_us", [0.5, 1000.0])
    def test_a_difference_that_nothing_explains_disagrees(self, operator_us: float) -> None:
        found = agreement(made_profile(CONTROL, TREATMENT, gains=[1.0], operator_us=operator_us))
        assert found.verdict == "disagrees"
        assert (found.corrected is None) == (operator_us == 1000.0)
