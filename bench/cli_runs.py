"""The verbs of `leanrec` that read runs: show, compare, report, recommend, dashboard."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from baselines.errors import LeanRecError
from bench.console import AsJson, DeviceName, Plugins, RunFolder, end_in_order, err, out, print_json

if TYPE_CHECKING:
    from bench.limits import Limits
    from bench.recommend import Objective

runs = typer.Typer()
MaxQualityLoss = Annotated[
    str | None, typer.Option("--max-quality-loss", help="A margin: auc-0.001, mlperf-99, …")
]
MinSpeedup = Annotated[
    float | None, typer.Option("--min-speedup", help="Times as fast as the control.")
]
MaxLatency = Annotated[
    float | None, typer.Option("--max-latency", help="Milliseconds, of the tail.")
]
MaxMemory = Annotated[
    float | None, typer.Option("--max-memory", help="MiB, at the peak of serving.")
]
MaxPreparation = Annotated[
    float | None, typer.Option("--max-preparation", help="Seconds, before the first answer.")
]


@runs.command()
def show(folder: RunFolder, as_json: AsJson = False) -> None:
    """Show the verdicts of a run."""
    from bench.campaign import exit_code
    from bench.run import Run
    from reports import terminal

    loaded = Run.load(folder)
    if as_json:
        print_json(terminal.show_json(loaded))
    else:
        terminal.show(loaded, out)
    raise typer.Exit(exit_code(loaded))


@runs.command()
def compare(
    run_a: Annotated[Path, typer.Argument(metavar="RUN_A", help="The earlier run.")],
    run_b: Annotated[Path, typer.Argument(metavar="RUN_B", help="The later run.")],
    as_json: AsJson = False,
) -> None:
    """Compare two runs, each by its ratios to its own control. Exits with 1 if any is worse."""
    from bench.compare import compare as compare_runs
    from bench.run import Run
    from reports import terminal

    a, b = Run.load(run_a), Run.load(run_b)
    changes = compare_runs(a, b)
    if as_json:
        print_json(terminal.changes_json(changes))
    else:
        terminal.show_changes(changes, out)
        terminal.show_differences(a, b, out)
    raise typer.Exit(1 if any(c.verdict == "worse" for c in changes) else 0)


@runs.command()
def report(
    folder: RunFolder,
    formats: Annotated[
        str, typer.Option("--format", help="md, html, pdf, tex, csv, xlsx, parquet, json.")
    ] = "md,html",
    to: Annotated[Path | None, typer.Option("--out", help="Folder for the files.")] = None,
    gate: Annotated[bool, typer.Option("--gate", help="Hold the stacks to the limits.")] = False,
    quality: MaxQualityLoss = None,
    speedup: MinSpeedup = None,
    latency: MaxLatency = None,
    memory: MaxMemory = None,
    preparation: MaxPreparation = None,
    only: Annotated[
        list[str], typer.Option(help="Hold these cells alone, for example '*-offline-*'.")
    ] = [],
) -> None:
    """Write a run's report. With --gate, also say which limits are kept, write gate.xml for
    continuous integration, and exit with 1 where one is broken or undecided."""
    from bench.limits import Limits, findings
    from bench.records import CONTROL
    from bench.run import Run
    from reports import gate as gates
    from reports.write import write

    run = Run.load(folder)
    limits = Limits.of(quality, speedup, latency, memory, preparation)
    if gate != (limits != Limits()):
        raise LeanRecError(
            "--gate goes with a limit, and a limit with --gate.",
            "Nothing was written.",
            "Give both, for example: --gate --max-quality-loss auc-0.001 --min-speedup 1.2",
        )
    stacks = [e for e in run.effects if e.stack != CONTROL]
    found = findings(stacks, limits, only)
    to = to or folder / "report"
    for path in write(run, formats.split(","), to):
        out.print(str(path), markup=False)
    if gate:
        out.print(str(gates.write_junit(run, found, to)), markup=False)
        for finding in found:
            if finding.state != "met":
                err.print(gates.sentence(finding), style="red", markup=False)
        met = sum(f.state == "met" for f in found)
        out.print(f"{met} of {len(found)} limits are met.", markup=False)
        raise typer.Exit(1 if met < len(found) else 2 if run.failures else 0)


@runs.command()
def recommend(
    what: Annotated[str, typer.Argument(metavar="RUN|SUITE", help="A run, or a suite to search.")],
    objective: Annotated[
        str, typer.Option(help="throughput, latency, training, memory or size.")
    ] = "throughput",
    quality: MaxQualityLoss = None,
    speedup: MinSpeedup = None,
    latency: MaxLatency = None,
    memory: MaxMemory = None,
    preparation: MaxPreparation = None,
    folder: Annotated[Path | None, typer.Option("--out", help="Folder of a search.")] = None,
    budget: Annotated[float | None, typer.Option(help="Seconds of a search.")] = None,
    device: DeviceName = "cpu",
    plugin: Plugins = [],
    as_json: AsJson = False,
) -> None:
    """Name the stack to use under limits, by a run's evidence or by a search through a suite.

    A search measures all stacks a little and the promising ones well. Exits with 1 where no stack
    of some baseline is known to keep every limit.
    """
    from bench.limits import Limits
    from bench.recommend import recommend as recommended
    from bench.recommend import require_objective
    from bench.run import Run
    from reports import recommendation

    limits = Limits.of(quality, speedup, latency, memory, preparation)
    wanted = require_objective(objective)
    path = Path(what)
    if not (path / "plan.json").exists():
        path = _searched(what, limits, wanted, folder, budget, device, plugin)
    run = Run.load(path)
    found = recommended(run.effects, limits, wanted)
    for line in run.failures:
        err.print(f"warning: {line}", style="yellow", markup=False)
    if as_json:
        print_json([r.model_dump(mode="json") for r in found])
    else:
        recommendation.show(found, out)
    raise typer.Exit(1 if any(r.chosen is None for r in found) else 0)


def _searched(
    suite: str, limits: Limits, objective: Objective, folder: Path | None, budget: float | None,
    device: str, plugins: list[Path],
) -> Path:  # fmt: skip
    """The folder of a search through `suite`, made now."""
    from baselines.registry import load_plugin
    from bench.campaign import artefact_store, default_folder, open_run
    from bench.device import get_device
    from bench.plan import make_plan
    from bench.progress import Bar
    from bench.run import noise_floor
    from bench.runner import Runner
    from bench.search import search
    from bench.suite import load_suite, narrowed

    for path in plugins:
        load_plugin(path)
    chosen = narrowed(load_suite(suite), budget=budget)
    folder = folder or default_folder(chosen)
    store, on = artefact_store(), get_device(device)
    plan = make_plan(chosen, on, store, tuple(path.resolve() for path in plugins))
    end_in_order()
    try:
        with open_run(plan, on, folder) as begun, Bar(err) as bar:
            runner = Runner(folder, plan, store, noise_floor(begun.environment), bar.tell)
            search(runner, limits, objective)
            runner.close()
    except KeyboardInterrupt:
        raise LeanRecError(
            "Interrupted.",
            f"Every finished trial is in {folder}.",
            f"What it bears so far: leanrec recommend {quote(str(folder))} (and the same limits).",
        ) from None
    err.print(f"Records: {folder}", markup=False)
    return folder


@runs.command()
def dashboard(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Folders of runs.")],
    port: Annotated[int | None, typer.Option(help="Port on 127.0.0.1.")] = None,
) -> None:
    """Look at runs in a browser. Serves on this machine only."""
    from bench.run import Run
    from dashboard.launch import launch

    for folder in folders:
        Run.load(folder)
    end_in_order()
    raise typer.Exit(launch(folders, port))
