"""What a trial saw, as typed rows; how they are written and read back.

One file per trial, published by one atomic rename when the trial has ended: a file that is there
is whole, so a kill at any moment loses no finished trial and leaves no half-written one.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from baselines.errors import LeanRecError

Arm = Literal["control", "treatment"]
ARMS: tuple[Arm, Arm] = ("control", "treatment")
Mode = Literal["measure", "memory", "train", "certificate"]
_UNSAFE = re.compile(r"[^A-Za-z0-9.+]+")
CONTROL = "control"  # the name of the empty stack; as a treatment, it is the A/A arm


class Row(BaseModel):
    """A row of a record file. Unknown keys are an error, so that a typo cannot hide."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class Metric(Row):
    """A metric's type. Nothing else decides which way is better, or how two values compare."""

    name: str
    unit: str
    direction: Literal["higher", "lower"]
    scale: Literal["ratio", "difference"]  # of treatment to control
    estimator: str  # what one value is, for example "median of a block"
    over_ranks: Literal["sum", "mean", "max", "none"] = "none"


class Cell(Row):
    """baseline × stack × scenario × device."""

    baseline: str
    stack: str
    scenario: str
    device: str

    @property
    def id(self) -> str:
        """For example ``dcnv2-int8_linear-offline-cpu``; what pytest and `leanrec profile` take."""
        parts = (self.baseline, self.stack, self.scenario, self.device)
        return "-".join(_UNSAFE.sub("_", part).strip("_") for part in parts)


class TrialRow(Row):
    """The head of a record file: what was compared, in which process."""

    kind: Literal["trial"] = "trial"
    id: str
    baseline: str
    stack: str
    device: str
    mode: Mode
    scenarios: tuple[str, ...]
    process: int  # the replicate; also the seed of the trained model
    seed: int
    started: str  # ISO 8601, UTC
    threads: int = 1


class BlockRow(Row):
    """One block of iterations of one arm. durations_ns excludes the dropped first ones."""

    kind: Literal["block"] = "block"
    scenario: str
    metric: Metric
    point: dict[str, int]  # for example {"batch": 512}
    pair: int
    position: Literal[0, 1]
    arm: Arm
    value: float
    samples: int
    durations_ns: tuple[int, ...]
    dropped: int
    outliers: int


class ValueRow(Row):
    """One number seen once in a trial: bytes, seconds of preparation, samples to a target."""

    kind: Literal["value"] = "value"
    scenario: str
    metric: Metric
    point: dict[str, int] = Field(default_factory=dict)
    arm: Arm
    value: float


class QualityRow(Row):
    """A quality metric of both arms on the same examples.

    replicates: treatment − control in each bootstrap resample of the units, the same resamples
    for every process of a run. segment is "" for all rows, otherwise ``name=number``.
    """

    kind: Literal["quality"] = "quality"
    scenario: str
    metric: Metric
    segment: str
    control: float
    treatment: float
    replicates: tuple[float, ...]
    units: int
    protocol: str
    primary: bool


class CurveRow(Row):
    """A metric along something else: over a stream, through a load, under rising rates.

    name: whose curve it is, an arm or for example "oracle". along: what x is, with its unit. x, y:
    [n] each, y in the metric's unit; not finite where it is not defined. limit: what y is held to,
    None where it is to nothing. A curve is shown and never judged: effects come of other rows.
    """

    kind: Literal["curve"] = "curve"
    scenario: str
    metric: Metric
    name: str
    along: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    limit: float | None = None

    @model_validator(mode="after")
    def _as_long(self) -> Self:
        if len(self.x) != len(self.y):
            raise ValueError(f"x has {len(self.x)} values and y {len(self.y)}")
        return self


class EventRow(Row):
    """Something that a reader of the numbers must know. A failure voids the cell."""

    kind: Literal["event"] = "event"
    scenario: str  # "" for the whole trial
    name: str
    severity: Literal["failure", "warning", "note"]
    detail: str


Status = Literal["ok", "error", "crash", "timeout", "out_of_memory", "non_finite"]


class EndRow(Row):
    """The foot of a record file: how the trial ended, and where its time went (seconds)."""

    kind: Literal["end"] = "end"
    status: Status
    cause: str = ""
    phases: dict[str, float] = Field(default_factory=dict)
    wall: float


AnyRow = Annotated[
    TrialRow | BlockRow | ValueRow | QualityRow | CurveRow | EventRow | EndRow,
    Field(discriminator="kind"),
]
ROW: TypeAdapter[AnyRow] = TypeAdapter(AnyRow)


class Trial(Row):
    """A record file, read."""

    head: TrialRow
    rows: tuple[BlockRow | ValueRow | QualityRow | CurveRow | EventRow, ...]
    end: EndRow


def write_trial(folder: Path, trial: Trial) -> Path:
    """Write one trial as JSON lines and publish it atomically as ``<id>.jsonl``.

    Raises LeanRecError where the folder cannot be written or the disk is full.
    """
    path = folder / f"{trial.head.id}.jsonl"
    lines = "".join(row.model_dump_json() + "\n" for row in (trial.head, *trial.rows, trial.end))
    write_atomically(path, lines)
    return path


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace `path` by `content` in one step, flushed to disk before the rename.

    Who may read it is for the umask to say: `tempfile` would keep it from everyone else.
    """
    temporary = path.parent / f".{secrets.token_hex(8)}.part"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise LeanRecError(
            f"{path} cannot be written: {error.strerror or error}.",
            "What was recorded before is intact.",
            "Free space or choose another --out folder, then go on with --resume.",
        ) from error


def read_trial(path: Path) -> Trial:
    """Read one record file. Raises LeanRecError with the line where it is corrupt."""
    rows: list[AnyRow] = []
    try:
        for line in json_lines(path.read_text(encoding="utf-8")):
            rows.append(ROW.validate_json(line))
        head, *body, end = rows
        if not isinstance(end, EndRow):
            raise ValueError("the end row is missing")
        return Trial.model_validate({"head": head, "rows": tuple(body), "end": end})
    except (ValidationError, ValueError, OSError) as error:
        why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise LeanRecError(
            f"Record file {path} is corrupt at line {len(rows) + 1}: {why}.",
            "Its trial is left out of every result.",
            "Delete the file and run again with --resume to measure that trial anew.",
        ) from error


def json_lines(text: str) -> list[str]:
    """The lines of a record file. JSON strings may hold other line breaks than the newline."""
    return text.removesuffix("\n").split("\n")


def read_trials(folder: Path) -> tuple[list[Trial], list[str]]:
    """All trials in `folder`, and a message for every file that cannot be read."""
    trials, problems = [], []
    for path in sorted(folder.glob("*.jsonl")):
        try:
            trials.append(read_trial(path))
        except LeanRecError as error:
            problems.append(str(error))
    return trials, problems


def dump_json(value: object) -> str:
    """JSON as every file of a run holds it."""
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def events(trials: Iterable[Trial]) -> list[tuple[Trial, EventRow]]:
    """Every event with its trial."""
    return [(t, row) for t in trials for row in t.rows if isinstance(row, EventRow)]


def point_text(point: dict[str, int]) -> str:
    """For example ``batch=512``; "" for a metric without points."""
    return ",".join(f"{key}={value}" for key, value in sorted(point.items()))


def read_point(text: str) -> dict[str, int]:
    """The point that `point_text` wrote."""
    parts = (part.partition("=") for part in text.split(",") if part)
    return {key: int(value) for key, _, value in parts}
