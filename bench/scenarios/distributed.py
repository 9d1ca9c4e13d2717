"""Training by several ranks: what it gains over one process, and what the ranks send each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import geometric_mean
from typing import Annotated, ClassVar

from pydantic import Field

from baselines.errors import LeanRecError
from bench import network
from bench.blocks import THROUGHPUT
from bench.comparison import Comparison
from bench.pipeline import TRAINING_STAGES, Pipeline
from bench.rank_blocks import RankArm, RankBlocks
from bench.ranks import Link, Ranks, Ready, Window
from bench.records import Arm, BlockRow, EventRow, Metric, ValueRow, point_text
from bench.scenarios.base import Scenario, ScenarioRow, scenario
from bench.scenarios.train import samples_to_target

READY_WITHIN = 120.0  # seconds
WIRE_TOLERANCE = 0.05  # what headers and packets sent again may add to the bytes counted


def _lower(name: str, unit: str, estimator: str, ratio: bool = False) -> Metric:
    return Metric(
        name=name, unit=unit, direction="lower", scale="ratio" if ratio else "difference",
        estimator=estimator, over_ranks="max",
    )  # fmt: skip


STEP_TIME = _lower("step_time", "s", "first start to last end of a block ÷ its batches", ratio=True)
STATE = _lower("training_state", "B", "weights, moments and the like that a rank holds", ratio=True)
SENT = _lower("sent", "B", "what a rank sends for a batch, by count of what collectives are given")
COLLECTIVES = _lower("collectives", "", "of a batch, by count")
EFFICIENCY = Metric(
    name="efficiency",
    unit="",
    direction="higher",
    scale="ratio",
    estimator="throughput ÷ that of as many processes on the same rows that send nothing",
)


@scenario("distributed")
@dataclass(frozen=True)
class Distributed(Scenario):
    """Training steps of all ranks against those of one process, on the same global batches.

    rate_mbit: what each rank may send, Mbit/s; 0 for as much as the host can. Ranks get networks of
    their own with that rate where the host lets us; otherwise a collective sleeps as long as its
    bytes would take. delay_ms: of the link, one way, slept in every round of a collective: 2(n−1)
    in an all-reduce of n ranks, by ring. threads: of each rank, and of the one process. target: as
    of `train`. Efficiency compares with the same processes each alone on its share of the rows, so
    that it shows what communication costs, and not that the ranks share a host's memory.
    """

    stages: ClassVar[frozenset[str]] = TRAINING_STAGES
    parallel: ClassVar[bool] = True

    rate_mbit: Annotated[int, Field(ge=0)] = 0
    delay_ms: Annotated[float, Field(ge=0)] = 0.0
    threads: Annotated[int, Field(ge=1)] = 1
    target: float = 0.99

    def measure(self, comparison: Comparison) -> Iterator[ScenarioRow]:
        """Blocks of both arms, then what they sent and held, and samples to the target."""
        if comparison.device.name != "cpu" and (self.rate_mbit or self.delay_ms):
            raise LeanRecError(
                "A link is emulated between processes on the CPU alone.",
                "Collectives of other devices wait for no sleeping process.",
                "Leave out rate_mbit and delay_ms.",
            )
        refused = network.reason_against() if self.rate_mbit else ""
        if self.rate_mbit or self.delay_ms:
            detail = self._said_of_link(refused)
            yield EventRow(scenario=self.name, name="link", severity="note", detail=detail)
        with ExitStack() as stack:
            with comparison.phases("load"):
                pipelines = comparison.control, comparison.treatment
                control, treatment = (self._start(p, refused, comparison, stack) for p in pipelines)
            blocks = RankBlocks(control, treatment, comparison.protocol, comparison.rng)
            with comparison.phases("blocks"):
                yield from self._measured(blocks)
        yield from samples_to_target(comparison, self.target, self.name)

    def _said_of_link(self, refused: str) -> str:
        """What the numbers rest on, in words."""
        delay = f"{self.delay_ms:g} ms slept in each round of a collective"
        if not self.rate_mbit:
            return delay
        rate = f"{self.rate_mbit} Mbit/s a rank"
        if not refused:
            return f"{rate}, by a token bucket on each rank's own network; {delay}"
        return f"modelled, since {refused}: {rate}, slept for the bytes counted; {delay}"

    def _start(
        self, pipeline: Pipeline, refused: str, comparison: Comparison, stack: ExitStack
    ) -> RankArm:
        """The ranks of an arm, ready for orders until `stack` is closed."""
        name: Arm = "treatment" if pipeline is comparison.treatment else "control"
        job = pipeline.job(threads=self.threads)
        alone = job.ranks == 1
        own = bool(self.rate_mbit) and not refused and not alone
        ranks = stack.enter_context(Ranks(job.ranks, network.isolated(job.ranks) if own else None))
        if own:
            stack.enter_context(network.joined(ranks, self.rate_mbit))
            job = job.model_copy(update={"interface": network.INTERFACE})
        modelled = 0.0 if own else self.rate_mbit * 1e6 / 8
        if not alone and (self.delay_ms or modelled):
            link = Link(seconds_a_round=self.delay_ms / 1e3, bytes_a_second=modelled)
            job = job.model_copy(update={"link": link})
        ranks.begin(job)
        ready: Ready = ranks.hear(Ready, READY_WITHIN)[0]
        return RankArm(name, ranks, ready, comparison.protocol.trial_timeout_seconds)

    def _measured(self, blocks: RankBlocks) -> Iterator[ScenarioRow]:
        blocks.prepare()
        control, treatment = blocks.arms
        point = {"batch": control.ready.rows, "ranks": treatment.ranks.count}
        if treatment.ranks.count > 1:
            emulated = {"mbit": self.rate_mbit, "delay_us": round(self.delay_ms * 1e3)}
            point |= {name: value for name, value in emulated.items() if value}
        for arm in blocks.arms:
            if not arm.steady:
                detail = f"{arm.name} at {point_text(point)} had not settled when its warm-up ended"
                yield EventRow(
                    scenario=self.name, name="not_steady", severity="warning", detail=detail
                )
        rates: dict[str, list[float]] = {"control": [], "treatment": []}
        for pair, position, arm, block in blocks.run():
            rates[arm.name].append(block.rate)
            yield BlockRow(
                scenario=self.name, metric=THROUGHPUT, point=point, pair=pair,
                position=1 if position else 0, arm=arm.name, value=block.rate,
                samples=block.rows, durations_ns=(block.elapsed,), dropped=blocks.dropped,
                outliers=0,
            )  # fmt: skip
        apart = [block.rate for block in blocks.apart]
        for arm in blocks.arms:
            rate = geometric_mean(rates[arm.name])
            values = {STEP_TIME: arm.ready.rows / rate, **_counted(arm)}
            if apart:
                one = arm is control
                values[EFFICIENCY] = 1.0 if one else rate / geometric_mean(apart)
            for metric, value in values.items():
                yield ValueRow(
                    scenario=self.name, metric=metric, point=point, arm=arm.name, value=value
                )
            yield from self._faults(arm)

    def _faults(self, arm: RankArm) -> Iterator[EventRow]:
        """Losses that are not finite, and traffic that the network saw and the count did not."""
        windows = [window for windows in arm.windows for window in windows]
        if not all(math.isfinite(window.loss) for window in windows):
            yield EventRow(
                scenario=self.name, name="non_finite", severity="failure",
                detail=f"a rank of the {arm.name} had a loss that is not finite",
            )  # fmt: skip
        sent = sum(window.sent for window in windows)
        on_wire = sum(window.on_wire or 0 for window in windows)
        if not on_wire:
            return
        off = on_wire / sent - 1 if sent else math.inf
        detail = f"{on_wire} B left the ranks' networks; {sent:.0f} B were counted ({off:+.1%})"
        fits = abs(off) <= WIRE_TOLERANCE
        yield EventRow(
            scenario=self.name, name="traffic" if fits else "traffic_mismatch",
            severity="note" if fits else "warning", detail=detail,
        )  # fmt: skip


def _counted(arm: RankArm) -> dict[Metric, float]:
    """Of the rank with most."""
    steps = sum(windows[0].rows for windows in arm.windows) / arm.ready.rows

    def a_step(of: Callable[[Window], float]) -> float:
        return max(sum(map(of, by_rank)) for by_rank in zip(*arm.windows, strict=True)) / steps

    return {
        SENT: a_step(lambda window: window.sent),
        COLLECTIVES: a_step(lambda window: window.collectives),
        STATE: max(window.state_bytes for window in arm.windows[-1]),
    }
