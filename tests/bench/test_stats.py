"""The statistics, against hand-worked numbers, scipy, and simulations with a known truth."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from baselines.errors import LeanRecError
from bench.protocol import Protocol
from bench.rules import rate
from bench.stats import (
    Interval,
    at_least_p,
    benjamini_hochberg,
    bounding_rank,
    holm,
    minimum_effect_p,
    quality_interval,
    ratio_interval,
    supported_percentile,
    tail_bound,
)
from bench.verdicts import ratio_verdict

PROTOCOL = Protocol()


def covers(interval: Interval, truth: float) -> bool:
    return interval.low <= truth <= interval.high


def autocorrelated(rng: np.random.Generator, shape: tuple[int, ...], rho: float) -> np.ndarray:
    """AR(1) noise of unit variance along the last axis."""
    noise = rng.normal(size=shape)
    for i in range(1, shape[-1]):
        noise[..., i] = rho * noise[..., i - 1] + math.sqrt(1 - rho**2) * noise[..., i]
    return noise


class TestRatioInterval:
    def test_is_the_t_interval_of_the_process_means(self) -> None:
        logs = [0.01, 0.03, -0.02, 0.05, 0.00]
        expected = scipy_stats.ttest_1samp(logs, 0).confidence_interval(0.97)
        interval = ratio_interval(logs, 0.97)
        assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))
        assert interval.estimate == pytest.approx(0.014)
        assert interval.df == 4

    def test_one_process_bears_no_interval(self) -> None:
        interval = ratio_interval([0.3], 0.95)
        assert (interval.low, interval.high) == (-math.inf, math.inf)
        assert ratio_verdict(interval, 0.02, "s", "lower") == "inconclusive"
        assert minimum_effect_p(interval, 0.02) == at_least_p(interval, -0.02) == 1.0

    def test_processes_that_agree_exactly_leave_no_width(self) -> None:
        exact = math.log(1 / 3.56)  # three times this, over three, is not this
        assert ratio_interval([exact] * 3, 0.95)[:3] == (exact, exact, exact)

    @pytest.mark.parametrize("logs", [[], [0.1, math.nan], [0.1, math.inf]])
    def test_what_is_not_finite_is_an_error_and_never_a_verdict(self, logs: list[float]) -> None:
        with pytest.raises(LeanRecError, match="No statistics"):
            ratio_interval(logs, 0.95)

    def test_covers_the_truth_where_pooled_timings_do_not(self) -> None:
        """Autocorrelated iterations within processes that differ: A/A, truth 0."""
        rng = np.random.default_rng(1)
        campaigns, processes, iterations = 1000, 5, 60
        process_effect = 0.01 * rng.normal(size=(campaigns, processes, 2, 1))
        noise = 0.02 * autocorrelated(rng, (campaigns, processes, 2, iterations), 0.8)
        timings = process_effect + noise
        logs = np.median(timings[:, :, 1], axis=-1) - np.median(timings[:, :, 0], axis=-1)
        covered = sum(covers(ratio_interval(row, 0.95), 0.0) for row in logs)
        assert rate(covered, campaigns, 0.999)[2] >= 0.95
        pooled = timings.transpose(0, 2, 1, 3).reshape(campaigns, 2, -1)
        p = scipy_stats.ttest_ind(pooled[:, 0], pooled[:, 1], axis=1).pvalue
        assert np.mean(p < 0.05) > 0.25

    def test_looking_again_and_stopping_when_decided_keeps_the_coverage(self) -> None:
        rng = np.random.default_rng(2)
        campaigns = 2000
        for truth in (0.0, math.log(1.02), math.log(1.05)):
            logs = truth + 0.015 * rng.normal(size=(campaigns, PROTOCOL.looks[-1]))
            missed = claims = 0
            for row in logs:
                for look in PROTOCOL.looks:
                    interval = ratio_interval(row[:look], PROTOCOL.level_at(look))
                    verdict = ratio_verdict(interval, PROTOCOL.margin, "s", "lower")
                    if verdict != "inconclusive":
                        break
                missed += not covers(interval, truth)
                claims += verdict in ("faster", "slower")
            assert rate(missed, campaigns, 0.999)[1] <= PROTOCOL.alpha
            if truth <= math.log(1.02):
                assert rate(claims, campaigns, 0.999)[1] <= PROTOCOL.alpha


class TestTests:
    def test_minimum_effect_is_the_usual_t_test_without_a_margin(self) -> None:
        logs = [0.01, 0.03, -0.02, 0.05, 0.00]
        expected = scipy_stats.ttest_1samp(logs, 0).pvalue
        assert minimum_effect_p(ratio_interval(logs, 0.95), 0.0) == pytest.approx(expected)

    def test_minimum_effect_keeps_its_size_at_the_margin(self) -> None:
        rng = np.random.default_rng(3)
        logs = 0.02 + 0.01 * rng.normal(size=(4000, 5))
        found = sum(minimum_effect_p(ratio_interval(row, 0.95), 0.02) <= 0.05 for row in logs)
        low, high = rate(found, 4000, 0.999)[1:]
        assert low <= 0.05 <= high

    def test_exact_values_decide_without_doubt(self) -> None:
        exact = ratio_interval([0.02, 0.02], 0.95)
        assert (minimum_effect_p(exact, 0.02), minimum_effect_p(exact, 0.019)) == (1.0, 0.0)
        assert (at_least_p(exact, 0.02), at_least_p(exact, 0.021)) == (0.0, 1.0)

    def test_at_least_is_the_one_sided_t_test(self) -> None:
        values = [0.4, -0.1, 0.2, 0.3]
        expected = scipy_stats.ttest_1samp(values, -0.1, alternative="greater").pvalue
        assert at_least_p(ratio_interval(values, 0.95), -0.1) == pytest.approx(expected)


class TestFamilies:
    def test_holm_by_hand(self) -> None:
        # Sorted .005 .01 .03 .04, times 4 3 2 1, made to rise.
        assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
        assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])

    def test_benjamini_hochberg_by_hand(self) -> None:
        # Sorted .005 .01 .03 .04, times 4/1 4/2 4/3 4/4, made to fall from the end.
        adjusted = benjamini_hochberg([0.01, 0.04, 0.03, 0.005])
        assert adjusted == pytest.approx([0.02, 0.04, 0.04, 0.02])

    @given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
    def test_both_against_other_ways_to_compute_them(self, p: list[float]) -> None:
        reference = scipy_stats.false_discovery_control(p)
        assert benjamini_hochberg(p) == pytest.approx(reference, abs=1e-12)
        order = sorted(range(len(p)), key=p.__getitem__)
        for alpha in (0.01, 0.05, 0.3):
            rejected: set[int] = set()
            for step, i in enumerate(order):
                if p[i] * (len(p) - step) > alpha:
                    break
                rejected.add(i)
            assert {i for i, q in enumerate(holm(p)) if q <= alpha} == rejected

    @pytest.mark.parametrize("adjust", [holm, benjamini_hochberg])
    @pytest.mark.parametrize("p", [[0.1, math.nan], [1.5], [-0.1]])
    def test_what_is_no_probability_is_an_error(self, adjust, p: list[float]) -> None:  # type: ignore[no-untyped-def]
        with pytest.raises(LeanRecError, match="p-value"):
            adjust(p)


class TestTails:
    def test_the_samples_that_loadgen_asks_for(self) -> None:
        """64 for p90 and 662 for p99 are MLPerf's published minima."""
        for needed, percentile in ((11, 50), (64, 90), (130, 95), (662, 99), (6636, 99.9)):
            assert bounding_rank(needed, percentile) == 1
            assert bounding_rank(needed - 1, percentile) == 0
        # Two published LoadGen logs discard 172 and 476158 above the one that is their estimate.
        assert bounding_rank(2048, 90) == 172 + 1
        assert bounding_rank(4_776_846, 90) == 476_158 + 1

    def test_no_p99_from_ten_samples(self) -> None:
        assert supported_percentile(10) is None
        assert tail_bound(range(1, 11), 99) == math.inf
        assert [supported_percentile(n) for n in (11, 64, 130, 661, 662, 6636)] == [
            50, 90, 95, 95, 99, 99.9,
        ]  # fmt: skip

    @given(st.integers(0, 20_000), st.sampled_from([50.0, 90.0, 99.0, 99.9]))
    def test_bounding_rank_is_the_largest_that_the_binomial_allows(
        self, n: int, percentile: float
    ) -> None:
        above = 1 - percentile / 100
        rank = bounding_rank(n, percentile)
        assert rank == 0 or scipy_stats.binom.cdf(rank, n, above) <= 0.01
        assert scipy_stats.binom.cdf(rank + 1, n, above) > 0.01

    def test_the_bound_holds_with_its_confidence(self) -> None:
        rng = np.random.default_rng(4)
        truth = scipy_stats.lognorm(1).ppf(0.95)
        held = sum(tail_bound(rng.lognormal(size=400), 95, 0.9) >= truth for _ in range(1000))
        assert rate(held, 1000, 0.999)[2] >= 0.9


class TestQualityInterval:
    @staticmethod
    def measured(
        rng: np.random.Generator, truth: float, seeds: int, units: int, resamples: int = 200
    ) -> tuple[np.ndarray, np.ndarray]:
        """Per-example differences with effects of example, seed and both; shared resamples."""
        shared = rng.normal(size=units)
        by_seed = 0.03 * rng.normal(size=(seeds, 1))
        each = truth + 0.5 * shared + by_seed + 0.5 * rng.normal(size=(seeds, units))
        weights = rng.multinomial(units, np.full(units, 1 / units), size=resamples)
        return each.mean(axis=1), each @ weights.T / units

    def test_covers_a_truth_of_new_seeds_and_new_examples(self) -> None:
        rng = np.random.default_rng(5)
        covered = 0
        for _ in range(600):
            differences, replicates = self.measured(rng, 0.1, seeds=5, units=120)
            covered += covers(quality_interval(differences, replicates, 120, 0.95), 0.1)
        assert rate(covered, 600, 0.999)[2] >= 0.95

    def test_at_the_margin_at_most_5_percent_pass(self) -> None:
        rng = np.random.default_rng(6)
        passed = 0
        for _ in range(600):
            differences, replicates = self.measured(rng, -0.1, seeds=5, units=120)
            interval = quality_interval(differences, replicates, 120, 0.95)
            assert (interval.lower_bound(0.95) >= -0.1) == (at_least_p(interval, -0.1) <= 0.05)
            passed += interval.lower_bound(0.95) >= -0.1
        assert rate(passed, 600, 0.999)[1] <= 0.05

    def test_identical_arms_are_exact(self) -> None:
        interval = quality_interval([0.0] * 5, np.zeros((5, 50)), 100, 0.97)
        assert interval[:4] == (0, 0, 0, 0)
        assert at_least_p(interval, 0.0) == 0.0

    def test_seeds_that_agree_leave_the_bootstrap_and_its_degrees_of_freedom(self) -> None:
        rng = np.random.default_rng(7)
        replicates = np.tile(rng.normal(size=200), (3, 1))
        interval = quality_interval([0.5] * 3, replicates, 1000, 0.95)
        assert interval.df == pytest.approx(199)
        assert interval.se == pytest.approx(replicates[0].std(ddof=1), rel=1e-3)
        few = quality_interval([0.5] * 3, replicates, 4, 0.95)
        assert few.se == pytest.approx(replicates[0].std(ddof=1) * math.sqrt(4 / 3))
        assert few.df == pytest.approx(3)

    @pytest.mark.parametrize(("seeds", "units"), [(1, 100), (5, 1)])
    def test_one_seed_or_one_unit_bears_no_interval(self, seeds: int, units: int) -> None:
        replicates = np.random.default_rng(0).normal(size=(seeds, 50))
        interval = quality_interval([0.1] * seeds, replicates, units, 0.95)
        assert (interval.low, interval.high) == (-math.inf, math.inf)

    @pytest.mark.parametrize("shape", [(4, 50), (5, 1), (5,)])
    def test_replicates_that_do_not_fit_are_an_error(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(LeanRecError, match="do not fit"):
            quality_interval([0.1] * 5, np.zeros(shape), 100, 0.95)

    @given(
        st.lists(st.floats(-1e-3, 1e-3), min_size=2, max_size=6),
        st.floats(1e-200, 1e-3),
        st.integers(2, 1000),
    )
    @settings(max_examples=50)
    def test_is_never_narrower_than_nothing_and_never_blows_up(
        self, differences: list[float], spread: float, units: int
    ) -> None:
        replicates = spread * np.random.default_rng(0).normal(size=(len(differences), 50))
        interval = quality_interval(differences, replicates, units, 0.95)
        assert all(math.isfinite(v) for v in interval)
        assert interval.low <= interval.estimate <= interval.high
