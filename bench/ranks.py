"""Starts the ranks of a training, tells them what to do, and hears what they say.

Each rank is a process of `bench.rank`: a job on its stdin as a line of JSON, then orders; answers
on its stdout, a line each. Started here and not by torchrun, whose rendezvous listens on every
interface and which cannot put each rank behind a link of its own: the ranks meet in a file.
"""

from __future__ import annotations

import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from baselines.errors import LeanRecError
from baselines.trainer import Epoch, NonFiniteLoss
from bench.records import Row

GRACE = 2.0  # seconds in which the cause of an end may show on another rank than the first to end


class Link(Row):
    """A network to be emulated. seconds_a_round: its one-way delay. bytes_a_second: its rate; 0
    where the network itself is as slow, or not to be slowed."""

    seconds_a_round: float = 0.0
    bytes_a_second: float = 0.0

    def seconds(self, rounds: int, sent: float) -> float:
        """How long a collective waits for the link: its delay in every round, and its rate."""
        on_wire = sent / self.bytes_a_second if self.bytes_a_second else 0.0
        return rounds * self.seconds_a_round + on_wire


class Job(Row):
    """What the ranks are to train.

    folder: where the first rank puts weights and history, `checkpoints` where it keeps what a
    killed training goes on from; without a folder the ranks take orders. interface: the network
    interface over which ranks talk. rank, meeting: of the single process; the file in which all
    meet.
    """

    baseline: str
    stack: str
    device: str
    seed: int
    store: Path
    plugins: tuple[Path, ...]
    ranks: int
    threads: int = 1
    folder: Path | None = None
    checkpoints: Path | None = None
    link: Link | None = None
    interface: str = "lo"
    rank: int = 0
    meeting: str = ""


class Order(Row):
    """Train on the batches of these numbers, timed. together: False to train on this rank's share
    of each by itself, on weights of its own."""

    picks: tuple[int, ...]
    together: bool = True


class Started(Row):
    """The process runs."""

    kind: Literal["started"] = "started"


class Ready(Row):
    """What stands ready for orders: `batches` of `rows` rows each. steady_after: the steps until
    communication is as it goes on to be. cycle: the steps after which it repeats itself."""

    kind: Literal["ready"] = "ready"
    batches: int
    rows: int
    steady_after: int
    cycle: int


class Window(Row):
    """What an order showed. start, end: nanoseconds of the host's monotonic clock. rows: that went
    through. loss: of the last step. collectives, payload, sent: by count. on_wire: bytes that left
    this rank's network interface, headers included; None where it has none of its own.
    state_bytes: of this rank's weights and optimiser state."""

    kind: Literal["window"] = "window"
    start: int
    end: int
    rows: int
    loss: float
    collectives: int
    payload: int
    sent: float
    on_wire: int | None
    state_bytes: int


class EpochOver(Row):
    """An epoch that the first rank has judged."""

    kind: Literal["epoch"] = "epoch"
    samples_seen: int
    train_loss: float
    valid: float
    seconds: float


class Done(Row):
    """The job is done."""

    kind: Literal["done"] = "done"


class Failed(Row):
    """What the user has to mend; or that training diverged."""

    kind: Literal["failed"] = "failed"
    cause: str
    consequence: str = ""
    fix: str = ""
    diverged: bool = False


Answer = Started | Ready | Window | EpochOver | Done | Failed
_ANSWER: TypeAdapter[Answer] = TypeAdapter(Annotated[Answer, Field(discriminator="kind")])


class Ranks:
    """The processes of one job. None outlives the `with` block, nor this process.

    commands: what each rank's command starts with, for example what puts it behind a link.
    """

    def __init__(self, count: int, commands: Sequence[Sequence[str]] | None = None) -> None:
        self.count = count
        self._commands = commands or [()] * count
        self._answers: queue.Queue[tuple[int, Answer | None]] = queue.Queue()
        self.processes: list[subprocess.Popen[str]] = []
        self._over: set[int] = set()  # ranks that will say nothing more
        self._folder = tempfile.TemporaryDirectory(prefix="leanrec-ranks-")

    def __enter__(self) -> Ranks:
        try:
            for rank in range(self.count):
                self._start(rank)
            self.hear(Started, timeout=None)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _start(self, rank: int) -> None:
        with self._log(rank).open("w") as log:
            process = subprocess.Popen(
                [*self._commands[rank], sys.executable, "-P", "-m", "bench.rank"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                text=True, encoding="utf-8",
            )  # fmt: skip
        self.processes.append(process)
        threading.Thread(target=self._listen, args=(rank, process), daemon=True).start()

    def _log(self, rank: int) -> Path:
        return Path(self._folder.name, f"log-{rank}")

    def _listen(self, rank: int, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            try:
                self._answers.put((rank, _ANSWER.validate_json(line)))
            except ValidationError:
                break  # the line during which the rank was killed
        self._answers.put((rank, None))

    def begin(self, job: Job) -> None:
        """Give every rank its job."""
        meeting = f"{self._folder.name}/meeting"
        for rank, process in enumerate(self.processes):
            _write(process, job.model_copy(update={"rank": rank, "meeting": meeting}))

    def order(self, order: Order, timeout: float | None) -> list[Window]:
        """Have every rank carry out an order; what each saw, by rank."""
        for process in self.processes:
            _write(process, order)
        return self.hear(Window, timeout)

    def hear(
        self,
        wanted: type[Any],
        timeout: float | None,
        tell: Callable[[EpochOver], None] = lambda row: None,
    ) -> list[Any]:
        """An answer of the class `wanted` from every rank, by rank; `tell` hears of epochs.

        Raises LeanRecError or NonFiniteLoss where a rank failed, and LeanRecError where one ended
        or said nothing within `timeout` seconds.
        """
        heard: dict[int, Any] = {}
        limit = time.monotonic() + (timeout or 0.0)
        while len(heard) < self.count:
            if ended := sorted(self._over - heard.keys()):
                raise self._ended(ended[0])
            left = max(0.0, limit - time.monotonic()) if timeout is not None else None
            try:
                rank, row = self._answers.get(timeout=left)
            except queue.Empty:
                silent = sorted(set(range(self.count)) - heard.keys())
                raise LeanRecError(
                    f"Rank {silent[0]} of {self.count} gave no answer within {timeout:.0f} s.",
                    "The ranks were ended.",
                    "Use a faster link, smaller batches or fewer ranks.",
                ) from None
            if row is None:
                self._over.add(rank)
            elif isinstance(row, Failed):
                if row.diverged:
                    raise NonFiniteLoss(row.cause)
                raise LeanRecError(row.cause, row.consequence, row.fix)
            elif isinstance(row, EpochOver):
                tell(row)
            elif isinstance(row, wanted):
                heard[rank] = row
        return [heard[rank] for rank in range(self.count)]

    def _ended(self, first: int) -> LeanRecError:
        """What to say of a rank's end. One that a signal ended is the cause of the others' ends."""
        limit = time.monotonic() + GRACE
        while True:
            codes = [process.poll() for process in self.processes]
            known = None not in codes or any(code is not None and code < 0 for code in codes)
            if known or time.monotonic() > limit:
                break
            time.sleep(0.05)
        rank = next((r for r, code in enumerate(codes) if code is not None and code < 0), first)
        code = codes[rank]
        said = self._log(rank).read_text(errors="replace").strip().splitlines()
        how = (
            f"was killed by signal {-code} ({signal.Signals(-code).name})"
            if code is not None and code < 0
            else f"exited with {code}{': ' + said[-1] if said else ''}"
        )
        return LeanRecError(
            f"Rank {rank} of {self.count} {how}.",
            "The other ranks were ended too, since they would wait for it.",
            "Free memory or use fewer ranks if the kernel ended it; run again to go on.",
        )

    def close(self) -> None:
        """End every rank."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
        for process in self.processes:
            process.wait()
            assert process.stdin is not None
            with suppress(BrokenPipeError):
                process.stdin.close()
        self._folder.cleanup()


def _write(process: subprocess.Popen[str], row: Row) -> None:
    assert process.stdin is not None
    with suppress(BrokenPipeError):  # it ended before; why, is said when it is heard
        process.stdin.write(row.model_dump_json() + "\n")
        process.stdin.flush()


def train_on_ranks(job: Job, on_epoch: Callable[[Epoch], None] | None) -> None:
    """Train to `job.folder`. Raises NonFiniteLoss where training diverges, LeanRecError where a
    rank ends early."""

    def tell(row: EpochOver) -> None:
        if on_epoch is not None:
            on_epoch(Epoch(row.samples_seen, row.train_loss, row.valid, row.seconds))

    with Ranks(job.ranks) as ranks:
        ranks.begin(job)
        ranks.hear(Done, None, tell)
