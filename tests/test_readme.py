"""What the README shows is run as it stands there."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest
import torch

from bench import cli, runner
from bench.records import ROW, EndRow, Trial, TrialRow
from bench.run import Run
from bench.suite import shipped_suites
from bench.worker import TrialSpec, run_trial

README = Path(__file__).parents[1] / "README.md"
SUITE = """
about = "The smoke suite, smaller"
baselines = ['dcnv2-small = dcnv2(dataset="planted(rows=2000, ids=200)", width=64, depth=1)']
stacks = ["int8-linear", "prune-unstructured"]
scenarios = ["offline(batch_sizes=[64])", "single-stream(batch_sizes=[32])"]

[protocol]
looks = [2]
pairs = 2
block_seconds = 0.005
window_seconds = 0.005
distinct_batches = 8
warmup_cap_seconds = 0.1
bootstraps = 50
memory_processes = 2
margin = 0.5
"""


def block(name: str) -> str:
    """The Python block of the README that begins with a comment of that name."""
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.M | re.S)
    (found,) = (text for text in blocks if text.startswith(f"# {name}\n"))
    return found


def code_lines(text: str) -> int:
    """Lines that are neither blank nor a comment."""
    return sum(bool(line.strip()) and not line.strip().startswith("#") for line in text.split("\n"))


def command(plugin: str) -> list[str]:
    """The README's command that runs this plug-in, as words."""
    (found,) = re.findall(rf"^(leanrec run .*--plugin {plugin}.*)$", README.read_text(), re.M)
    return found.split()


@pytest.mark.parametrize(("name", "most"), [("my_technique.py", 20), ("my_model.py", 40)])
def test_an_extension_takes_few_lines(name: str, most: int) -> None:
    assert 5 < code_lines(block(name)) <= most


def test_the_suite_of_the_commands_is_shipped() -> None:
    for name in ("my_technique.py", "my_model.py"):
        assert command(name)[2] in shipped_suites()


def run_here(spec: TrialSpec, limit: float, log: Path) -> Trial:
    """The trial, in this process: how one starts its own is not the README's matter."""
    threads, records = torch.get_num_threads(), io.StringIO()
    run_trial(spec, records)
    torch.set_num_threads(threads)
    head, *rows, end = map(ROW.validate_json, records.getvalue().splitlines())
    assert isinstance(head, TrialRow)
    assert isinstance(end, EndRow)
    return Trial(head=head, rows=tuple(rows), end=end)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "baseline", "stacks"),
    [
        ("my_technique.py", "dcnv2-small", {"control", "my-technique"}),
        ("my_model.py", "my-model", {"control", "prune-unstructured"}),
    ],
)
def test_an_extension_runs_as_the_readme_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, baseline: str, stacks: set[str]
) -> None:
    """The README's own file and command; only the suite is smaller, and trials run here."""
    (tmp_path / name).write_text(block(name), encoding="utf-8")
    (tmp_path / "smaller.toml").write_text(SUITE, encoding="utf-8")
    leanrec, run, _, *options = command(name)
    assert (leanrec, run) == ("leanrec", "run")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["leanrec", "run", "smaller.toml", *options])
    monkeypatch.setattr(runner, "run_worker", run_here)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    finished = Run.load(tmp_path / options[options.index("--out") + 1])
    assert finished.failures == []
    measured = {t.head.stack for t in finished.trials if t.head.mode == "measure"}
    assert measured == stacks
    assert {e.baseline for e in finished.effects} == {baseline}
    assert {e.scenario for e in finished.effects} == {"offline", "single-stream", "quality"}
