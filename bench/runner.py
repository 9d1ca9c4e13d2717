"""Runs a plan: artefacts first, then rounds of trials, each in its own process, until decided.

Round r runs trial r of every comparison that is not decided yet, so that the drift of a host is
spread over all of them. All state is in the run's folder: a trial whose record file is there is
done, whatever happened to the process that ran it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from baselines.errors import LeanRecError
from bench.effects import effects_of
from bench.launch import head_of, run_worker
from bench.pipeline import TRAINING_STAGES, make_stack, stages_of, tunes
from bench.plan import PlannedComparison, comparisons
from bench.records import (
    CONTROL,
    EndRow,
    EventRow,
    Mode,
    Trial,
    read_trial,
    write_trial,
)
from bench.run import PROGRESS, Plan, Summary, Underway, write_json
from bench.store import Store
from bench.worker import TrialSpec

WORK_PHASES = ("training", "preparation", "blocks", "checks", "quality", "memory")


@dataclass(frozen=True)
class Progress:
    """What the runner tells while it runs: after every trial, and before the first."""

    done: int  # processes that measured
    expected: int  # processes up to the next look of every comparison
    seconds_left: float
    doing: str
    last: Trial | None = None


class Runner:
    """Runs the comparisons of a plan into a run's folder.

    Use it inside `locked(folder)`. noise_floor: the host's, as in `effects_of`; what a verdict is
    read with while it runs is what it is read with afterwards. tell: called with a `Progress`.
    """

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        store: Store,
        noise_floor: Mapping[str, float],
        tell: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        self.folder, self.plan, self.store, self.tell = folder, plan, store, tell
        self.noise_floor = noise_floor
        self.protocol = plan.protocol
        self.start = time.monotonic()
        self.trials: dict[str, Trial] = self._finished()
        self.earlier = sum(t.end.wall for t in self.trials.values())
        self.fresh = 0
        self.spent = 0.0
        self.cut_short = False

    def _finished(self) -> dict[str, Trial]:
        """Trials whose records are whole; a corrupt file is set aside and its trial run again."""
        found = {}
        for path in (self.folder / "records").glob("*.jsonl"):
            try:
                found[path.stem] = read_trial(path)
            except LeanRecError:
                os.replace(path, path.with_suffix(".corrupt"))
        return found

    def run(self) -> Summary:
        """Run every comparison in rounds; what is recorded already is not run again."""
        todo = comparisons(self.plan)
        for process in range(max(self.protocol.looks)):
            for comparison in todo:
                self.advance(comparison, process)
        return self.close()

    def run_comparison(self, comparison: PlannedComparison) -> None:
        """Run one comparison to its decision, for a caller that goes cell by cell."""
        for process in range(max(self.protocol.looks)):
            self.advance(comparison, process)

    def close(self) -> Summary:
        """Write where the time of the run went."""
        work = sum(
            seconds
            for trial in self.trials.values()
            for phase, seconds in trial.end.phases.items()
            if phase in WORK_PHASES
        )
        summary = Summary(
            wall=self.earlier + time.monotonic() - self.start,
            work=work,
            finished=True,
            out_of_budget=self.cut_short,
        )
        write_json(self.folder / "summary.json", summary)
        (self.folder / PROGRESS).unlink(missing_ok=True)
        return summary

    def advance(self, comparison: PlannedComparison, process: int) -> None:
        """Run one process of a comparison, unless it is decided or the budget is spent."""
        if self._decided(comparison, process):
            return
        if self._out_of_budget and self._spec("measure", comparison, process).id not in self.trials:
            self.cut_short = True
            return
        self._round(comparison, process)

    @property
    def _out_of_budget(self) -> bool:
        budget = self.plan.budget_seconds
        return budget is not None and time.monotonic() - self.start > budget

    def _decided(self, comparison: PlannedComparison, process: int) -> bool:
        """Whether nothing is left to learn after `process` processes: read only at the looks.

        A comparison that lacks an earlier process was decided before it.
        """
        mine = self._of(comparison)
        if any(_void(trial) for trial in mine):
            return True
        earlier = [t for t in mine if t.head.process < process]
        if sum(t.head.mode == "measure" for t in earlier) < process:
            return True
        if process not in self.protocol.looks:
            return False
        rows = effects_of(earlier, self.protocol, set(), self.noise_floor)
        return all(e.verdict != "inconclusive" for e in rows if e.primary)

    def _of(self, comparison: PlannedComparison) -> list[Trial]:
        return [
            t
            for t in self.trials.values()
            if (t.head.baseline, t.head.stack) == (comparison.baseline, comparison.stack)
        ]

    def _round(self, comparison: PlannedComparison, process: int) -> None:
        for trained in self._trained_by(comparison):
            training = self._trial("train", trained, process)
            if training.end.status != "ok":
                self._give_up(comparison, process, training)
                return
        self._trial("measure", comparison, process)
        if process < self.protocol.memory_processes:
            control = PlannedComparison(
                comparison.baseline, CONTROL, comparison.device, comparison.scenarios
            )
            arms = [control, comparison] if comparison.stack != CONTROL else [control]
            for arm in arms if process % 2 else reversed(arms):
                self._trial("memory", self._memory_scenarios(arm), process)

    def _trained_by(self, comparison: PlannedComparison) -> list[PlannedComparison]:
        """The comparisons whose training this one rests on: the control's, and its own if any."""
        control = PlannedComparison(comparison.baseline, CONTROL, comparison.device, ())
        own = PlannedComparison(comparison.baseline, comparison.stack, comparison.device, ())
        stack = make_stack(self.plan.stacks[comparison.stack])
        trains = TRAINING_STAGES & stages_of(stack) or tunes(stack)
        return [control, own] if trains else [control]

    def _memory_scenarios(self, comparison: PlannedComparison) -> PlannedComparison:
        """One inference scenario stands for all; the control is measured for every load."""
        cells = {
            c.cell.scenario
            for c in self.plan.cells
            if c.cell.baseline == comparison.baseline
            and not c.skip
            and comparison.stack in (c.cell.stack, CONTROL)
        }
        served = next(
            (s for s in ("offline", "single-stream", "server", "refresh") if s in cells), None
        )
        wanted = [s for s in (served, "train") if s is not None and s in cells]
        specs = tuple(self.plan.scenarios[s] for s in wanted)
        return PlannedComparison(comparison.baseline, comparison.stack, comparison.device, specs)

    def _give_up(self, comparison: PlannedComparison, process: int, training: Trial) -> None:
        """Record that a comparison could not be measured because a training failed."""
        cause = f"training of {training.head.stack}: {training.end.cause}"
        spec = self._spec("measure", comparison, process)
        end = EndRow(status=training.end.status, cause=cause, wall=0.0)
        self._record(Trial(head=head_of(spec), rows=(), end=end))

    def _trial(self, mode: Mode, comparison: PlannedComparison, process: int) -> Trial:
        spec = self._spec(mode, comparison, process)
        if spec.id in self.trials:
            return self.trials[spec.id]
        self._begin(f"{mode} {spec.baseline} × {spec.stack} #{process}")
        limit = (
            self.protocol.training_timeout_seconds
            if mode == "train"
            else self.protocol.trial_timeout_seconds
        )
        trial = run_worker(spec, limit, self.folder / "logs" / f"{spec.id}.log")
        self.fresh += 1
        self.spent += trial.end.wall
        self._record(trial)
        return trial

    def _begin(self, doing: str) -> None:
        """Tell what is measured next, those who read the run's folder too."""
        progress = self._progress(doing)
        now = Underway(
            done=progress.done,
            expected=progress.expected,
            seconds_left=progress.seconds_left,
            doing=doing,
        )
        write_json(self.folder / PROGRESS, now)
        self.tell(progress)

    def _record(self, trial: Trial) -> None:
        write_trial(self.folder / "records", trial)
        self.trials[trial.head.id] = trial
        self.tell(self._progress("", trial))

    def _spec(self, mode: Mode, comparison: PlannedComparison, process: int) -> TrialSpec:
        name = f"{comparison.baseline} × {comparison.stack} × {comparison.device}"
        slug = re.sub(r"[^A-Za-z0-9+]+", "_", f"{comparison.baseline}-{comparison.stack}")[:80]
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        return TrialSpec(
            id=f"{slug}-{comparison.device}-{digest}-{mode}-{process}",
            mode=mode,
            baseline=comparison.baseline,
            stack=comparison.stack,
            baseline_spec=self.plan.baselines[comparison.baseline],
            stack_spec=self.plan.stacks[comparison.stack],
            device=comparison.device,
            scenarios=comparison.scenarios,
            process=process,
            protocol=self.protocol,
            store=self.store.root,
            plugins=self.plan.plugins,
            spawned=time.time(),
        )

    def _progress(self, doing: str, last: Trial | None = None) -> Progress:
        done = [
            sum(t.head.mode == "measure" for t in self._of(comparison))
            for comparison in comparisons(self.plan)
        ]
        looks = self.protocol.looks
        expected = sum(next((look for look in looks if look >= n), n) for n in done)
        left = (expected - sum(done)) * self.spent / max(self.fresh, 1) * 1.5
        return Progress(sum(done), expected, left, doing, last)


def _void(trial: Trial) -> bool:
    """Whether a trial ended in a way that more processes would only repeat."""
    return trial.end.status != "ok" or any(
        isinstance(row, EventRow) and row.severity == "failure" and not row.scenario
        for row in trial.rows
    )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the run's folder: two processes never write one run.

    Raises LeanRecError where another holds it, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise LeanRecError(
            f"The folder {folder} cannot be written: {error.strerror or error}.",
            "Nothing was run.",
            "Choose another --out folder.",
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LeanRecError(
                f"Another process is writing the run in {folder}.",
                "Nothing was run.",
                "Wait for it, or choose another --out folder.",
            ) from None
        yield
