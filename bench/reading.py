"""Reading a run again and again while it is in progress: only what has changed is read anew."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from baselines.errors import LeanRecError
from bench.effects import Effect, estimates_of, judged
from bench.protocol import Protocol
from bench.records import Trial, read_trial
from bench.run import Run, noise_floor

Stamp = tuple[tuple[str, int, int], ...]  # name, time and size of every file of a run
_Group = tuple[str, str]  # baseline, device: no estimate rests on trials of two of them


def stamp(folder: Path) -> Stamp:
    """The state of the files that a `Run` and its profiles are read from; costs a look at each."""
    names = ("plan.json", "environment.json", "summary.json")
    files = [folder / name for name in names]
    for pattern in ("records/*.jsonl", "profiles/*/*.json"):
        files += sorted(folder.glob(pattern))
    return tuple(filter(None, map(_stamp_of, files)))


class Reader:
    """Reads the run in a folder as `Run.load` does, and keeps what it read of unchanged files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[Path, tuple[object, Trial | LeanRecError]] = {}
        self._estimates: dict[_Group, tuple[list[Trial], list[Effect]]] = {}
        self._terms: tuple[Protocol, dict[str, float]] | None = None
        self._lock = threading.Lock()

    def read(self) -> Run:
        """The run as it is now. Raises LeanRecError as `Run.load` does."""
        with self._lock, _without_collections():
            run = Run.load(self.folder, self._trials)
            run.__dict__["effects"] = self._effects(run)
            return run

    def _trials(self, folder: Path) -> tuple[list[Trial], list[str]]:
        before, self._files = self._files, {}
        for path in sorted(folder.glob("*.jsonl")):
            state = _stamp_of(path)
            known = before.get(path)
            self._files[path] = known if known and known[0] == state else (state, _read(path))
        found = [what for _, what in self._files.values()]
        problems = [str(what) for what in found if isinstance(what, LeanRecError)]
        return [what for what in found if isinstance(what, Trial)], problems

    def _effects(self, run: Run) -> list[Effect]:
        terms = (run.plan.protocol, noise_floor(run.environment))
        if terms != self._terms:
            self._terms, self._estimates = terms, {}
        groups: dict[_Group, list[Trial]] = {}
        for trial in run.trials:
            groups.setdefault((trial.head.baseline, trial.head.device), []).append(trial)
        before, self._estimates = self._estimates, {}
        for key, trials in groups.items():
            known = before.get(key)
            if known is None or not _same(known[0], trials):
                known = trials, estimates_of(trials, *terms)
            self._estimates[key] = known
        estimates = [e for _, found in self._estimates.values() for e in found]
        return judged(estimates, set(run.plan.primary), run.plan.protocol)


def _stamp_of(path: Path) -> tuple[str, int, int] | None:
    try:
        stat = path.stat()
    except OSError:  # renamed or removed since it was listed
        return None
    return path.name, stat.st_mtime_ns, stat.st_size


def _read(path: Path) -> Trial | LeanRecError:
    try:
        return read_trial(path)
    except LeanRecError as error:
        return error


def _same(before: list[Trial], trials: list[Trial]) -> bool:
    return len(before) == len(trials) and all(a is b for a, b in zip(before, trials, strict=True))


@contextmanager
def _without_collections() -> Iterator[None]:
    """Without the garbage collector, which would look through millions of rows again and again
    and find nothing: rows hold no cycles. What was made is left out of later collections, so that
    what is garbage already must go before."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()
