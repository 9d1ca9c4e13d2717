"""Effects and verdicts of trials whose truth is known."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_trials import (
    AUC,
    BYTES,
    LATENCY,
    LOGLOSS,
    SAMPLES,
    THROUGHPUT,
    blocks,
    failure,
    quality,
    trial,
    value,
)

from bench.effects import Effect, effects_of
from bench.protocol import Protocol
from bench.records import BlockRow, Metric, Trial

PROTOCOL = Protocol()
OPPOSITE = {
    "faster": "slower",
    "slower": "faster",
    "equivalent": "equivalent",
    "inconclusive": "inconclusive",
}


def effects(trials: list[Trial], primary: set[str] | None = None, **floors: float) -> list[Effect]:
    return effects_of(trials, PROTOCOL, primary or set(), floors)


def only(trials: list[Trial], metric: str, **where: object) -> Effect:
    (effect,) = [
        e
        for e in effects(trials)
        if e.metric == metric and all(getattr(e, k) == v for k, v in where.items())
    ]
    return effect


def timed(
    ratio: float,
    *,
    metric: Metric = LATENCY,
    scenario: str = "single-stream",
    processes: int = 5,
    spread: float = 0.002,
    stack: str = "fast",
    seed: int = 0,
    batch: int = 1,
) -> list[Trial]:
    """`processes` trials of 4 block pairs whose log ratios scatter by `spread` over processes."""
    rng = np.random.default_rng(seed)
    trials = []
    for process in range(processes):
        control = np.exp(0.1 * rng.normal() + 0.001 * rng.normal(size=4))
        own = ratio * np.exp(spread * rng.normal())
        rows = blocks(control, control * own, metric=metric, scenario=scenario, batch=batch)
        trials.append(trial(process, rows, stack=stack))
    return trials


class TestBlocks:
    def test_a_halved_latency_is_faster_by_its_interval(self) -> None:
        effect = only(timed(0.5), "latency")
        assert effect.verdict == "faster"
        assert effect.low < 0.5 < effect.high < 0.51
        assert effect.effect == pytest.approx(effect.treatment / effect.control)
        assert (effect.n_processes, effect.n_blocks, effect.point) == (5, 40, "batch=1")
        assert (effect.level, effect.margin) == (PROTOCOL.level_at(5), 0.02)
        assert effect.primary

    def test_a_scenario_of_the_users_own_is_judged_by_what_it_times(self) -> None:
        assert only(timed(0.5, scenario="my-load"), "latency").primary
        assert only(timed(0.5, scenario="my-load", metric=THROUGHPUT), "throughput").primary
        assert not only(timed(0.5, scenario="refresh"), "latency").primary

    def test_the_effect_is_the_mean_log_ratio_of_the_pairs(self) -> None:
        pairs = [([1.0, 4.0], [2.0, 2.0]), ([1.0, 1.0], [1.0, 2.0])]
        trials = [trial(p, blocks(c, t)) for p, (c, t) in enumerate(pairs)]
        logs = [[math.log(2), math.log(0.5)], [0.0, math.log(2)]]
        assert only(trials, "latency").effect == pytest.approx(math.exp(np.mean(logs)))

    @pytest.mark.parametrize(
        ("direction", "unit", "ratio", "verdict"),
        [
            ("lower", "s", 1.2, "slower"),
            ("higher", "samples/s", 1.2, "faster"),
            ("higher", "samples/s", 0.8, "slower"),
            ("lower", "B", 0.8, "smaller"),
            ("lower", "MiB", 1.2, "larger"),
            ("lower", "s", 1.0, "equivalent"),
            ("lower", "ms/batch", 0.8, "faster"),
        ],
    )
    def test_unit_and_direction_alone_choose_the_word(
        self, direction: str, unit: str, ratio: float, verdict: str
    ) -> None:
        """In particular, a metric where lower is better is never gated the other way round."""
        metric = Metric.model_validate(
            {
                "name": "m",
                "unit": unit,
                "direction": direction,
                "scale": "ratio",
                "estimator": "",
            }
        )
        assert only(timed(ratio, metric=metric), "m").verdict == verdict

    def test_one_process_is_never_decided(self) -> None:
        effect = only(timed(0.1, processes=1), "latency")
        assert effect.verdict == "inconclusive"
        assert (effect.low, effect.high) == (0.0, math.inf)
        assert "one process" in effect.note

    def test_no_process_disagreement_is_averaged_away(self) -> None:
        assert only(timed(0.97, spread=0.03), "latency").verdict == "inconclusive"

    def test_the_noise_floor_replaces_a_smaller_margin(self) -> None:
        trials = timed(1.05)
        assert only(trials, "latency").verdict == "slower"
        (effect,) = effects(trials, latency=0.1)
        assert (effect.margin, effect.verdict) == (0.1, "equivalent")

    def test_pairs_without_one_arm_are_left_out_and_told(self) -> None:
        trials = timed(0.5)
        trials[0] = trial(0, trials[0].rows[:-1])
        effect = only(trials, "latency")
        assert effect.n_blocks == 38
        assert "lacked an arm" in effect.note

    def test_outliers_are_counted_and_kept(self) -> None:
        rows = [
            row.model_copy(update={"outliers": 3, "value": row.value * (100 if row.pair else 1)})
            for row in blocks([1.0, 1.0], [1.0, 1.0])
        ]
        effect = only([trial(p, rows) for p in range(2)], "latency")
        assert effect.control == pytest.approx(10.0)
        assert "24 outliers, kept" in effect.note

    @pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
    @pytest.mark.parametrize("arm", ["control", "treatment"])
    def test_what_is_no_duration_fails_and_is_never_a_verdict(self, bad: float, arm: str) -> None:
        trials = timed(0.5)
        rows = list(trials[2].rows)
        index = next(i for i, r in enumerate(rows) if isinstance(r, BlockRow) and r.arm == arm)
        rows[index] = rows[index].model_copy(update={"value": bad})
        trials[2] = trial(2, rows)
        effect = only(trials, "latency")
        assert effect.verdict == "failed"
        assert math.isnan(effect.effect)
        assert effect.p_value is None
        assert f"{arm} of process 2" in effect.note

    @given(
        st.lists(
            st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)), min_size=2, max_size=4),
            min_size=1,
            max_size=6,
        ),
        st.floats(1e-6, 1e6),
    )
    @settings(max_examples=60)
    def test_swapped_arms_invert_and_scaled_arms_change_nothing(
        self, processes: list[list[tuple[float, float]]], scale: float
    ) -> None:
        def measured(flip: bool = False, factor: float = 1.0) -> Effect:
            trials = []
            for p, pairs in enumerate(processes):
                arms = [[factor * pair[i] for pair in pairs] for i in ((1, 0) if flip else (0, 1))]
                trials.append(trial(p, blocks(*arms)))
            return only(trials, "latency")

        plain, swapped, scaled = measured(), measured(flip=True), measured(factor=scale)
        assert swapped.effect == pytest.approx(1 / plain.effect)
        assert swapped.verdict == OPPOSITE[plain.verdict]
        if math.isfinite(plain.high):
            assert swapped.low == pytest.approx(1 / plain.high)
        assert scaled.verdict == plain.verdict
        assert scaled.effect == pytest.approx(plain.effect)


class TestOperatingCharacteristics:
    @pytest.mark.parametrize(
        ("truth", "verdict", "at_least"),
        [(1.0, "equivalent", 0.9), (1.05, "slower", 0.9), (0.95, "faster", 0.9)],
    )
    def test_each_verdict_is_found_where_it_is_true(
        self, truth: float, verdict: str, at_least: float
    ) -> None:
        found = [
            only(timed(truth, spread=0.005, seed=seed), "latency").verdict for seed in range(60)
        ]
        assert found.count(verdict) / len(found) >= at_least
        assert found.count(OPPOSITE[verdict]) == (0 if verdict != "equivalent" else 60)

    def test_at_the_margin_claims_are_rare_and_noise_is_inconclusive(self) -> None:
        at_margin = [only(timed(1.02, spread=0.01, seed=s), "latency").verdict for s in range(100)]
        assert sum(v in ("slower", "faster", "equivalent") for v in at_margin) <= 10
        noisy = [only(timed(1.05, spread=0.2, seed=s), "latency").verdict for s in range(40)]
        assert noisy.count("inconclusive") >= 36


class TestTails:
    @staticmethod
    def served(calls: int, factor: float = 2.0) -> list[Trial]:
        rng = np.random.default_rng(0)
        trials = []
        for process in range(3):
            control = rng.lognormal(sigma=0.3, size=calls) * 1e6
            durations = control.astype(int), (control * factor).astype(int)
            rows = blocks([1e-3], [1e-3 * factor], durations=durations)  # type: ignore[arg-type]
            trials.append(trial(process, rows))
        return trials

    def test_p99_of_a_process_in_the_unit_of_the_latency(self) -> None:
        effect = only(self.served(700), "latency_p99")
        assert effect.effect == pytest.approx(2.0, rel=1e-3)
        assert effect.control == pytest.approx(1e-3 * math.exp(0.3 * 2.33), rel=0.1)
        assert "≥700 calls" in effect.note
        assert not effect.primary

    def test_too_few_calls_for_a_p99_give_the_highest_that_they_bear(self) -> None:
        names = {e.metric for e in effects(self.served(200))}
        assert names == {"latency", "latency_p95"}

    def test_ten_calls_bear_none(self) -> None:
        assert {e.metric for e in effects(self.served(10))} == {"latency"}

    def test_a_maximum_is_not_a_minimum(self) -> None:
        """The tail is of the slow side: one slow call in ten shows in p90 and up, not below."""
        calls = [1_000_000] * 850 + [9_000_000] * 150
        rows = blocks([1e-3], [1e-3], durations=([1_000_000] * 1000, calls))
        effect = only([trial(p, rows) for p in range(2)], "latency_p99")
        assert effect.effect == pytest.approx(9.0)
        assert effect.verdict == "slower"

    def test_calls_that_took_no_time_fail(self) -> None:
        rows = blocks([1.0], [1.0], durations=([0] * 700, [5] * 700))
        effect = only([trial(p, rows) for p in range(2)], "latency_p99")
        assert effect.verdict == "failed"


class TestValues:
    @staticmethod
    def memory(control: float = 356.0, treatment: float = 100.0) -> list[Trial]:
        """One arm a process, as the memory pass measures."""
        return [
            trial(
                p, [value(BYTES, arm, number)], stack=stack, mode="memory", scenarios=("offline",)
            )
            for p in range(3)
            for stack, arm, number in (
                ("control", "control", control),
                ("small", "treatment", treatment),
            )
        ]

    def test_bytes_that_repeat_are_exact(self) -> None:
        effect = only(self.memory(), "model_bytes")
        assert effect.stack == "small"
        assert (effect.control, effect.treatment) == (356.0, 100.0)
        assert effect.low == effect.effect == effect.high == pytest.approx(100 / 356)
        assert (effect.verdict, effect.n_processes, effect.n_blocks) == ("smaller", 3, 0)

    def test_a_control_that_failed_is_not_compared_with(self) -> None:
        trials = self.memory()
        trials[0] = trial(0, [value(BYTES, "control", 1.0)], stack="control", mode="memory",
                          scenarios=("offline",), status="crash", cause="signal 9")  # fmt: skip
        effect = only(trials, "model_bytes")
        assert (effect.n_processes, effect.control) == (2, 356.0)

    def test_a_value_without_a_control_is_shown_and_not_judged(self) -> None:
        trials = [t for t in self.memory() if t.head.stack == "small"]
        effect = only(trials, "model_bytes")
        assert effect.verdict == "inconclusive"
        assert effect.treatment == 100.0
        assert "no control value" in effect.note

    def test_a_metric_of_differences_is_told_without_a_verdict(self) -> None:
        seconds = Metric(name="preparation", unit="s", direction="lower", scale="difference",
                         estimator="")  # fmt: skip
        trials = [
            trial(p, [value(seconds, "control", 0.0), value(seconds, "treatment", 2.0 + 0.1 * p)])
            for p in range(3)
        ]
        effect = only(trials, "preparation")
        assert effect.effect == pytest.approx(2.1)
        assert effect.low < 2.1 < effect.high
        assert (effect.verdict, effect.p_value) == ("inconclusive", None)
        assert "no margin" in effect.note


class TestTimeToQuality:
    @staticmethod
    def trained(control: float = 8000.0, treatment: float = 12000.0) -> list[Trial]:
        """Twice the throughput, half as many samples again: three quarters of the time."""
        return [
            trial(
                p,
                [
                    *blocks([1000.0] * 2, [2000.0] * 2, metric=THROUGHPUT, scenario="train"),
                    value(SAMPLES, "control", control + p, "train"),
                    value(SAMPLES, "treatment", treatment + p, "train"),
                ],
            )
            for p in range(3)
        ]

    def test_is_samples_over_throughput(self) -> None:
        effect = only(self.trained(), "time_to_quality")
        assert effect.control == pytest.approx(8.0, rel=1e-3)
        assert effect.effect == pytest.approx(0.75, rel=1e-3)
        assert (effect.verdict, effect.unit, effect.point) == ("faster", "s", "batch=1")

    @pytest.mark.parametrize("never", [math.inf, math.nan])
    @pytest.mark.parametrize("metric", ["time_to_quality", "samples_to_target"])
    def test_a_target_never_reached_is_said(self, never: float, metric: str) -> None:
        effect = only(self.trained(treatment=never), metric)
        assert effect.verdict == "failed"
        assert "did not reach the target" in effect.note
        effect = only(self.trained(control=never), metric)
        assert effect.verdict == "inconclusive"


class TestQuality:
    @staticmethod
    def scored(
        loss: float,
        *,
        metric: Metric = AUC,
        segment: str = "",
        noise: float = 1e-4,
        stack: str = "fast",
        protocol: Protocol = PROTOCOL,
    ) -> Effect:
        rng = np.random.default_rng(0)
        sign = -1 if metric.direction == "higher" else 1
        shared = noise * rng.normal(size=200)
        trials = []
        for p in range(5):
            control = 0.8 + 0.01 * rng.normal()
            own = sign * loss + noise * rng.normal()
            row = quality(control, control + own, metric=metric, segment=segment,
                          replicates=(own + shared).tolist())  # fmt: skip
            trials.append(trial(p, [row], stack=stack))
        (effect,) = effects_of(trials, protocol, set(), {})
        return effect

    @pytest.mark.parametrize("metric", [AUC, LOGLOSS], ids=["higher", "lower"])
    @pytest.mark.parametrize(
        ("loss", "verdict"),
        [(0.002, "non-inferior"), (0.02, "inferior"), (0.008, "inconclusive"), (-0.02, "better")],
    )
    def test_the_loss_is_oriented_by_the_metric(
        self, metric: Metric, loss: float, verdict: str
    ) -> None:
        noise = 2e-3 if verdict == "inconclusive" else 1e-4
        effect = self.scored(loss, metric=metric, noise=noise)
        assert effect.verdict == verdict
        assert effect.scale == "difference"
        assert effect.margin == pytest.approx(0.01 * effect.control)

    def test_every_named_margin_is_judged(self) -> None:
        effect = self.scored(0.002)
        assert effect.margins == {
            "mlperf-99": "non-inferior",
            "mlperf-99.9": "inferior",
            "auc-0.001": "inferior",
        }

    def test_the_margin_of_the_protocol_decides(self) -> None:
        strict = Protocol(quality_margin="auc-0.001")
        assert self.scored(0.002, protocol=strict).verdict == "inferior"
        assert self.scored(0.002, protocol=strict).margin == 0.001

    def test_the_spread_of_the_control_over_seeds_stands_beside_it(self) -> None:
        assert 0.003 < (self.scored(0.0).seed_spread or 0) < 0.03

    def test_identical_arms_are_non_inferior_exactly(self) -> None:
        trials = [trial(p, [quality(0.8, 0.8)], stack="control") for p in range(2)]
        effect = only(trials, "auc")
        assert (effect.effect, effect.low, effect.high) == (0.0, 0.0, 0.0)
        assert (effect.verdict, effect.p_adjusted) == ("non-inferior", 0.0)

    def test_one_seed_does_not_pass(self) -> None:
        assert only([trial(0, [quality(0.8, 0.8)])], "auc").verdict == "inconclusive"

    def test_a_segment_that_is_hurt_is_seen(self) -> None:
        effect = self.scored(0.05, segment="popularity=0")
        assert effect.verdict == "inferior"
        assert effect.family == "segments (BH, 1)"
        assert effect.p_adjusted is not None
        assert effect.p_adjusted < 0.01
        assert not effect.primary

    def test_an_undefined_segment_is_left_out_and_an_undefined_metric_is_not(self) -> None:
        trials = [
            trial(p, [quality(math.nan, math.nan), quality(math.nan, math.nan, segment="age=1")])
            for p in range(2)
        ]
        effect = only(trials, "auc")
        assert (effect.segment, effect.verdict) == ("", "failed")

    def test_a_treatment_that_is_not_finite_fails(self) -> None:
        trials = [trial(p, [quality(0.8, math.nan if p else 0.8)]) for p in range(3)]
        assert only(trials, "auc").verdict == "failed"

    def test_different_protocols_refuse_to_be_compared(self) -> None:
        trials = [trial(p, [quality(0.8, 0.8, protocol=f"split {p}")]) for p in range(2)]
        effect = only(trials, "auc")
        assert effect.verdict == "failed"
        assert "different quality protocols" in effect.note

    def test_uneven_replicates_fail(self) -> None:
        trials = [trial(p, [quality(0.8, 0.8, replicates=[0.0] * (50 + p))]) for p in range(2)]
        assert only(trials, "auc").verdict == "failed"

    @pytest.mark.parametrize(("undefined", "verdict"), [(2, "non-inferior"), (20, "inconclusive")])
    def test_resamples_without_a_value_are_told(self, undefined: int, verdict: str) -> None:
        replicates = [math.nan] * undefined + [0.0] * (100 - undefined)
        trials = [trial(p, [quality(0.8, 0.8, replicates=replicates)]) for p in range(2)]
        effect = only(trials, "auc")
        assert effect.verdict == verdict
        assert f"{undefined} of 100 resamples" in effect.note


class TestFailures:
    @pytest.mark.parametrize("status", ["error", "crash", "timeout", "out_of_memory", "non_finite"])
    def test_a_trial_that_did_not_end_well_voids_its_cells(self, status: str) -> None:
        trials = timed(0.5)
        trials[4] = trial(4, trials[4].rows, status=status, cause="what happened")
        effect = only(trials, "latency")
        assert effect.verdict == "failed"
        assert math.isnan(effect.effect)
        assert f"process 4: {status}: what happened" in effect.note

    def test_a_failure_voids_its_own_scenario_and_no_other(self) -> None:
        trials = [
            trial(
                t.head.process,
                [*t.rows, *blocks([1.0], [2.0], metric=THROUGHPUT, scenario="offline")],
            )
            for t in timed(0.5)
        ]
        trials[0] = trial(0, [*trials[0].rows, failure("offline", detail="every other batch")])
        assert only(trials, "latency").verdict == "faster"
        effect = only(trials, "throughput")
        assert effect.verdict == "failed"
        assert "skipped_work: every other batch" in effect.note

    def test_a_failure_of_the_whole_trial_voids_all(self) -> None:
        trials = timed(0.5)
        trials[0] = trial(0, [*trials[0].rows, quality(0.8, 0.8), failure("")])
        assert {e.verdict for e in effects(trials)} == {"failed"}

    def test_another_stack_is_untouched(self) -> None:
        trials = [*timed(0.5), *timed(0.5, stack="other")]
        trials[0] = trial(0, [*trials[0].rows, failure("")])
        assert only(trials, "latency", stack="other").verdict == "faster"

    def test_warnings_void_nothing(self) -> None:
        trials = timed(0.5)
        warning = failure("single-stream").model_copy(update={"severity": "warning"})
        trials[0] = trial(0, [*trials[0].rows, warning])
        assert only(trials, "latency").verdict == "faster"

    def test_a_failed_cell_without_data_has_no_effect(self) -> None:
        assert effects([trial(0, [], status="crash")]) == []


class TestFamilies:
    def test_families_are_named_with_method_and_size(self) -> None:
        trials = [
            *timed(1.0, stack="control"),
            *timed(0.5, stack="fast"),
            *timed(0.5, stack="other"),
            *timed(0.5, stack="other", batch=8),
        ]
        found = effects(trials, {"toy-fast-single_stream-cpu"})
        families = {(e.stack, e.point): e.family for e in found}
        assert families == {
            ("control", "batch=1"): "A/A (Holm, 1)",
            ("fast", "batch=1"): "primary (Holm, 1)",
            ("other", "batch=1"): "secondary (BH, 2)",
            ("other", "batch=8"): "secondary (BH, 2)",
        }

    def test_a_claim_that_its_family_does_not_bear_is_inconclusive(self) -> None:
        marginal = timed(1.06, spread=0.012, seed=23)
        alone = only(marginal, "latency")
        assert alone.verdict == "slower"
        crowd = [t for i in range(30) for t in timed(1.0, stack=f"s{i}", seed=i)]
        stacks = {e.stack for e in effects(crowd)} | {"fast"}
        primary = {f"toy-{stack}-single_stream-cpu" for stack in stacks}
        (held,) = [e for e in effects(marginal + crowd, primary) if e.stack == "fast"]
        assert (held.effect, held.low, held.p_value) == (alone.effect, alone.low, alone.p_value)
        assert held.verdict == "inconclusive"
        assert "slower alone, but not in its family" in held.note

    def test_a_large_matrix_of_identical_code_raises_few_alarms(self) -> None:
        crowd = [t for i in range(150) for t in timed(1.0, stack=f"s{i}", seed=i, spread=0.02)]
        found = effects(crowd)
        assert sum(e.verdict in ("faster", "slower") for e in found) <= 1

    def test_failed_effects_are_in_no_family(self) -> None:
        trials = [*timed(0.5), *timed(0.5, stack="other")]
        trials[0] = trial(0, trials[0].rows, status="crash")
        assert {e.stack: e.family for e in effects(trials)} == {
            "fast": "",
            "other": "secondary (BH, 1)",
        }


def test_effects_come_in_the_order_of_a_report() -> None:
    trials = [t for batch in (64, 8, 512) for t in timed(1.0, batch=batch)]
    points = [e.point for e in effects(trials)]
    assert points == ["batch=8", "batch=64", "batch=512"]


def test_effects_survive_json() -> None:
    for effect in effects([*timed(0.5, processes=1), *timed(0.5, stack="other")]):
        again = Effect.model_validate_json(effect.model_dump_json())
        assert again == effect
