"""The command `leanrec`.

Exit codes: 0 all well, 1 a gate failed, 2 could not measure or bad input.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer
from rich.markup import escape

from baselines.errors import LeanRecError
from bench.cli_runs import runs
from bench.console import AsJson, DeviceName, Plugins, end_in_order, err, out, print_json

app = typer.Typer(
    help="Measure what efficiency techniques really buy a recommender, and what they cost.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command("list")
def list_(
    kind: Annotated[str, typer.Argument(metavar="baselines|datasets|techniques|scenarios|suites")],
    plugin: Plugins = [],
    as_json: AsJson = False,
) -> None:
    """List what there is, with one line on each."""
    from bench.catalogue import catalogue

    rows = catalogue(kind, plugin)
    if as_json:
        return print_json(rows)
    for row in rows:
        out.print(f"[bold]{row['name']}[/bold]  {escape(row['about'])}")
        if row.get("parameters"):
            parameters = ", ".join(f"{k}={v}" for k, v in row["parameters"].items())
            out.print(f"    {parameters}", style="dim", markup=False)
    return None


@app.command()
def run(
    suite: Annotated[str, typer.Argument(metavar="SUITE", help="A shipped suite, or a TOML file.")],
    folder: Annotated[Path | None, typer.Option("--out", help="Folder of the run.")] = None,
    baseline: Annotated[
        list[str], typer.Option(help="These baselines instead of the suite's.")
    ] = [],
    technique: Annotated[list[str], typer.Option(help="Instead of the suite's stacks.")] = [],
    scenario: Annotated[list[str], typer.Option(help="Instead of the suite's scenarios.")] = [],
    device: DeviceName = "cpu",
    budget: Annotated[float | None, typer.Option(help="Seconds after which to stop.")] = None,
    plugin: Plugins = [],
    resume: Annotated[bool, typer.Option(help="Go on with the run in --out.")] = False,
) -> None:
    """Measure a suite."""
    from baselines.registry import load_plugin
    from bench.campaign import (
        artefact_store,
        broken_gates,
        default_folder,
        exit_code,
        gate_text,
        open_run,
    )
    from bench.device import get_device
    from bench.plan import make_plan
    from bench.progress import Bar
    from bench.run import Run, noise_floor
    from bench.runner import Runner
    from bench.suite import load_suite, narrowed
    from reports.terminal import show as show_run

    for path in plugin:
        load_plugin(path)
    chosen = narrowed(load_suite(suite), baseline, technique, scenario, budget)
    folder = folder or default_folder(chosen)
    store, on = artefact_store(), get_device(device)
    plan = make_plan(chosen, on, store, tuple(path.resolve() for path in plugin))
    end_in_order()
    try:
        with open_run(plan, on, folder, resume=resume) as begun, Bar(err) as bar:
            Runner(folder, plan, store, noise_floor(begun.environment), bar.tell).run()
    except KeyboardInterrupt:
        raise LeanRecError(
            "Interrupted.",
            f"Every finished trial is in {folder}.",
            f"Go on with: leanrec run {quote(suite)} --out {quote(str(folder))} --resume "
            "(and the same options).",
        ) from None
    finished = Run.load(folder)
    show_run(finished, out)
    for effect in broken_gates(finished):
        err.print(f"gate failed: {gate_text(effect, finished)}", style="red", markup=False)
    out.print(f"Records: {folder}", markup=False)
    out.print(f"Report: leanrec report {quote(str(folder))}", markup=False)
    raise typer.Exit(exit_code(finished))


@app.command()
def train(
    spec: Annotated[
        str, typer.Argument(metavar="SPEC", help="A baseline: sasrec(embedding_dim=32)")
    ],
    seeds: Annotated[int, typer.Option(min=1, help="How many, counted from 0.")] = 3,
    device: DeviceName = "cpu",
    plugin: Plugins = [],
    as_json: AsJson = False,
) -> None:
    """Train a baseline and judge it on its test split. Runs share the trained models."""
    from baselines.registry import load_plugin
    from bench.campaign import artefact_store
    from bench.training import train_seeds
    from bench.training_table import show_line, show_trained, summary

    for path in plugin:
        load_plugin(path)
    plugins = tuple(path.resolve() for path in plugin)
    end_in_order()
    try:
        trained = train_seeds(
            spec, range(seeds), device, artefact_store(), plugins, lambda row: show_line(row, err)
        )
    except KeyboardInterrupt:
        raise LeanRecError(
            "Interrupted.",
            "The finished epochs of every seed are kept.",
            "Go on with the same command.",
        ) from None
    if as_json:
        print_json(summary(trained))
    else:
        show_trained(trained, out)


@app.command()
def speed(
    works: Annotated[
        list[str] | None, typer.Argument(metavar="[WORK…]", help="All if none.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Seconds each: only to see it work.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Time training, evaluation and reading beside the bare arithmetic of the same work."""
    from bench.barriers import WORKER_VARIABLES

    os.environ.update(WORKER_VARIABLES)  # read when torch is first imported
    from bench.allocator import keep_freed_memory
    from bench.speed import speed_rows
    from bench.speed_table import show_speed, summary

    keep_freed_memory()
    rows = speed_rows(
        works or (), quick, lambda work: err.print(f"timing: {work}", markup=False, highlight=False)
    )
    if as_json:
        print_json(summary(rows))
    else:
        show_speed(rows, out)


@app.command()
def certificate(
    comparisons: Annotated[int, typer.Option(min=5, help="Comparisons a known truth.")] = 100,
    device: DeviceName = "cpu",
    as_json: AsJson = False,
) -> None:
    """Measure how far this host's verdicts can be trusted, by comparing a model with itself."""
    from bench.certificate import print_certificate
    from bench.certify import certify
    from bench.device import get_device
    from bench.progress import Bar

    end_in_order()
    with Bar(err) as bar:
        made = certify(get_device(device), comparisons, bar.tell)
    if as_json:
        print_json(made.model_dump(mode="json"))
    else:
        print_certificate(made, out)


@app.command()
def doctor(device: DeviceName = "cpu", as_json: AsJson = False) -> None:
    """Say what of this machine would disturb a measurement. Changes nothing."""
    from bench.device import get_device
    from bench.doctor import diagnose, print_findings

    findings = diagnose(get_device(device))
    if as_json:
        print_json([f.model_dump(mode="json") for f in findings])
    else:
        print_findings(out, findings)


@app.command()
def profile(
    cell: Annotated[str, typer.Argument(metavar="CELL", help="dcnv2-int8_linear-offline-cpu")],
    diff: Annotated[
        bool, typer.Option("--diff", help="The difference by operator, not each arm's operators.")
    ] = False,
    suite: Annotated[
        str | None, typer.Option(help="The suite that holds the cell, instead of default.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--run", help="The run to explain: its dashboard shows it.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--out", help="Folder of the profile; else profiles/CELL.")
    ] = None,
    device: DeviceName = "cpu",
    plugin: Plugins = [],
) -> None:
    """Profile both arms of a cell, beside the clock, to see why one is faster."""
    if folder and (suite or to):
        raise LeanRecError(
            "--run names the suite and the folder.",
            "Nothing was profiled.",
            "Leave --suite and --out away, or --run.",
        )
    from bench.barriers import WORKER_VARIABLES

    os.environ.update(WORKER_VARIABLES)  # read when torch is first imported
    from baselines.registry import load_plugin
    from bench.allocator import keep_freed_memory
    from bench.campaign import artefact_store
    from bench.device import get_device
    from bench.plan import make_plan
    from bench.profiling import plan_of_run, profile_cell
    from bench.suite import load_suite
    from reports.profiles.terminal import show_profile

    keep_freed_memory()
    for path in plugin:
        load_plugin(path)
    store = artefact_store()
    if folder:
        plan = plan_of_run(folder, plugin)
        device = next((c.cell.device for c in plan.cells), device)
    else:
        plan = make_plan(load_suite(suite or "default"), get_device(device), store)
    to = to or (folder or Path()) / "profiles" / cell
    made = profile_cell(
        plan, cell, get_device(device), store, to,
        lambda line: err.print(line, markup=False, highlight=False),
    )  # fmt: skip
    show_profile(made, to, diff, out)


app.add_typer(runs)


def main() -> None:
    """The entry point: user mistakes end with 2 and three sentences, not with a traceback.

    Ctrl-C ends the process by the signal until there is something to put in order. Raised within
    the import of a large library, KeyboardInterrupt would be lost or break it.
    """
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        sys.exit(_run(app))
    finally:
        signal.signal(signal.SIGINT, before)


def _run(command: Callable[..., Any]) -> int:
    try:
        command(standalone_mode=True)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 2
    except LeanRecError as error:
        for part in (error.cause, error.consequence, error.fix):
            if part:
                err.print(part, markup=False, style="red" if part == error.cause else None)
        return 2
    return 0


if __name__ == "__main__":
    main()
