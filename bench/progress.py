"""Live progress with the time left. Drawn only between trials: nothing moves while one is timed."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console

from bench.records import Trial
from bench.runner import Progress


class Bar:
    """One line a finished trial, and on a terminal the line of the trial that runs."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._clear()

    def tell(self, progress: Progress) -> None:
        """Take what the runner tells."""
        self._clear()
        left = _minutes(progress.seconds_left)
        head = f"[{progress.done}/{progress.expected}, about {left} left]"
        if progress.last is not None:
            self.console.print(f"{head} {_outcome(progress.last)}", markup=False, highlight=False)
        elif self.console.is_terminal:
            self.console.print(
                f"{head} {progress.doing}"[: self.console.width - 1],
                end="\r", markup=False, highlight=False,
            )  # fmt: skip

    def _clear(self) -> None:
        if self.console.is_terminal:
            self.console.print(" " * (self.console.width - 1), end="\r")


def _outcome(trial: Trial) -> str:
    head, end = trial.head, trial.end
    cause = "" if end.status == "ok" else f": {end.status}: {end.cause}"
    return f"{head.mode} {head.baseline} × {head.stack} #{head.process} {end.wall:.1f} s{cause}"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds > 90 else f"{seconds:.0f} s"
