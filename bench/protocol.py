"""The numbers of the measuring protocol. A suite may change them; every run records them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from bench.records import Row

QualityMargin = Literal["mlperf-99", "mlperf-99.9", "auc-0.001"]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Protocol(Row):
    """How a comparison is measured and decided. METHODOLOGY.md says why each number is what it is.

    looks: numbers of processes after which the verdict may be read; alpha is spent over them in
    the shares `spend`, so that stopping early raises no false alarm. margin is δ, the smallest
    ratio that matters; the host's noise floor replaces it where larger.
    """

    looks: tuple[int, ...] = (5, 8, 12)
    spend: tuple[float, ...] = (0.6, 0.2, 0.2)
    alpha: float = Field(0.05, gt=0, lt=0.5)
    pairs: int = Field(4, ge=2, multiple_of=2)  # block pairs a process, as many AB as BA
    block_seconds: Seconds = 0.05  # latency blocks
    window_seconds: Seconds = 0.25  # throughput blocks
    min_iterations: int = Field(20, ge=5)
    distinct_batches: int = Field(64, ge=2)
    warmup_cap_seconds: Seconds = 10.0
    margin: float = Field(0.02, gt=0, lt=1)
    quality_margin: QualityMargin = "mlperf-99"
    bootstraps: int = Field(200, ge=50)
    memory_processes: int = Field(3, ge=2)
    trial_timeout_seconds: Seconds = 300.0
    training_timeout_seconds: Seconds = 1800.0

    @field_validator("looks")
    @classmethod
    def _rising(cls, looks: tuple[int, ...]) -> tuple[int, ...]:
        if not looks or looks[0] < 2 or list(looks) != sorted(set(looks)):
            raise ValueError("looks must rise from at least 2 processes")
        return looks

    @model_validator(mode="after")
    def _enough_alpha(self) -> Self:
        if len(self.looks) > 1:
            shares = self.spend[: len(self.looks)]
            if len(shares) < len(self.looks) or min(shares) <= 0 or sum(shares) > 1 + 1e-9:
                raise ValueError("spend must give each look a share of alpha, at most 1 in all")
        return self

    def level_at(self, processes: int) -> float:
        """The confidence level of an interval over so many processes: 1 − alpha spent there.

        Bonferroni over the looks: valid however the looks depend on each other.
        """
        index = max((i for i, n in enumerate(self.looks) if n <= processes), default=0)
        share = self.spend[index] if len(self.looks) > 1 else 1.0
        return 1.0 - self.alpha * share
