"""How numbers are written."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.effects import Effect
from reports import format as fmt


def effect(**changes: object) -> Effect:
    fields: dict[str, object] = {
        "baseline": "b", "stack": "s", "scenario": "offline", "device": "cpu",
        "metric": "latency", "unit": "s", "direction": "lower", "scale": "ratio",
        "estimator": "e", "control": 1.0, "treatment": 0.5, "effect": 0.5, "low": 0.48,
        "high": 0.52, "level": 0.95, "margin": 0.02, "verdict": "faster", "n_processes": 5,
        "n_blocks": 40,
    }  # fmt: skip
    return Effect.model_validate(fields | changes)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0123456, "s", "12.35 ms"),
        (0.1, "s", "100.0 ms"),
        (42e-6, "s", "42.00 µs"),
        (2.0, "s", "2.000 s"),
        (0.0, "s", "0 s"),
        (5 * 2**20, "B", "5.00 MiB"),
        (512, "bytes", "512 B"),
        (47_012.3, "samples/s", "47,012 samples/s"),
        (0.78123, "", "0.7812"),
        (-0.5, "", "−0.5000"),
        (math.nan, "s", "n/a"),
        (math.inf, "samples/s", "n/a"),
    ],
)
def test_a_quantity_carries_its_unit(value: float, unit: str, text: str) -> None:
    assert fmt.quantity(value, unit) == text


@given(st.floats(1e-9, 1e6))
def test_a_time_reads_back_to_four_digits(seconds: float) -> None:
    number, unit = fmt.quantity(seconds, "s").split(" ")
    scale = {"s": 1, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}[unit]
    assert float(number.replace(",", "")) * scale == pytest.approx(seconds, rel=6e-4)


@given(st.floats(0.01, 1e4))
def test_a_ratio_reads_back_to_two_digits_at_least(value: float) -> None:
    assert float(fmt.ratio(value)) == pytest.approx(value, rel=0.05)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "2.00× faster"),
        ({"effect": 1.6, "verdict": "slower"}, "1.60× slower"),
        ({"effect": 0.28, "unit": "B", "verdict": "smaller"}, "3.57× smaller"),
        ({"effect": 1.001, "verdict": "equivalent"}, "equivalent"),
        (
            {"effect": 1.02, "low": 0.9, "high": 1.2, "verdict": "inconclusive"},
            "inconclusive 1.020× [0.900, 1.200]",
        ),
        ({"effect": math.nan, "verdict": "failed"}, "failed"),
        ({"effect": math.nan, "verdict": "inconclusive"}, "inconclusive"),
        (
            {"scale": "difference", "unit": "", "effect": -0.012, "verdict": "inferior"},
            "inferior −0.0120",
        ),
        ({"scale": "difference", "effect": 1.0, "margin": 0.0}, "not judged"),
    ],
)
def test_a_claim_says_the_size_in_the_direction_of_its_word(
    changes: dict[str, object], text: str
) -> None:
    assert fmt.claim(effect(**changes)) == text


def test_an_effect_shows_its_interval() -> None:
    assert fmt.effect(effect()) == "0.50× [0.48, 0.52]"


def test_a_bound_far_away_is_a_power() -> None:
    assert fmt.effect(effect(low=1e-9, high=3e22)) == "0.50× [1.0e-09, 3.0e+22]"


def test_an_effect_without_a_bound_shows_none() -> None:
    assert fmt.effect(effect(low=math.nan, high=math.nan)) == "0.50×"


def test_a_difference_of_seconds_carries_its_unit() -> None:
    shown = fmt.effect(effect(scale="difference", effect=1.5, low=-0.02, high=3.0))
    assert shown == "+1.500 s [−20.00 ms, +3.000 s]"


def test_a_difference_that_rounds_to_nothing_has_no_sign() -> None:
    assert fmt.difference(-0.00001) == "0.0000"


def test_gain_turns_a_time_around_with_its_bounds() -> None:
    value, low, high = effect().gain
    assert (value, low, high) == (2.0, pytest.approx(1 / 0.52), pytest.approx(1 / 0.48))


def test_gain_leaves_what_is_better_when_higher() -> None:
    assert effect(direction="higher").gain == (0.5, 0.48, 0.52)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3.21, "3.2 s"), (59.7, "1 min 0 s"), (252, "4 min 12 s"), (7320, "2 h 2 min")],
)
def test_a_duration_is_for_people(seconds: float, text: str) -> None:
    assert fmt.duration(seconds) == text


@pytest.mark.parametrize(
    ("parts", "text"), [([], ""), (["a"], "a"), (["a", "b", "c"], "a, b and c")]
)
def test_words(parts: list[str], text: str) -> None:
    assert fmt.words(parts) == text
