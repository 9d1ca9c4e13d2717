"""The cold-start scenario: parts of a start, and starts that go wrong."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from small_trials import (
    DCNV2,
    FRAUDS,
    accusations,
    end_of,
    run,
)

from baselines.checkpoint import save
from baselines.data.sources import cache_dir
from baselines.errors import LeanRecError
from bench.cold_start import StartSpec, start
from bench.device import get_device
from bench.pipeline import Pipeline
from bench.records import EventRow, ValueRow
from bench.scenarios import cold_start
from bench.scenarios.base import SCENARIOS
from bench.store import Store

PLUGIN = Path(__file__).with_name("frauds_when_serving.py")
ONCE = "cold-start(repeats=1)"


def test_a_start_answers_what_the_pipeline_serves(tmp_path: Path) -> None:
    store = Store(cache_dir() / "small-trials")
    pipeline = Pipeline.from_specs(DCNV2, "int8-linear", get_device("cpu"), 0, store)
    predictor = pipeline.predictor(pipeline.trained_model())
    batches = pipeline.baseline.task.requests(pipeline.data, 3, 2, 0)
    save(batches, tmp_path / "requests.pt")
    spec = StartSpec(
        baseline=DCNV2, stack="int8-linear", device="cpu", seed=0, store=store.root, plugins=(),
        threads=1, requests=tmp_path / "requests.pt", answers=tmp_path / "answers.pt",
        spawned=time.monotonic_ns(),
    )  # fmt: skip
    begun = time.monotonic()
    row = start(spec)
    parts = row.imported, row.loaded, row.prepared, row.answered
    assert min(parts) > 0
    assert sum(parts) < time.monotonic() - begun
    given = torch.load(tmp_path / "answers.pt", weights_only=True)
    with torch.inference_mode():
        assert all(torch.equal(a, predictor(*b)) for a, b in zip(given, batches, strict=True))


@pytest.mark.slow
def test_both_arms_are_started_and_every_part_is_told() -> None:
    begun = time.monotonic()
    rows = run("control", ONCE)
    assert accusations(rows) == set()
    found = [r for r in rows if isinstance(r, ValueRow) and r.scenario == "cold-start"]
    for arm in ("control", "treatment"):
        told = {r.metric.name: r.value for r in found if r.arm == arm}
        total = told.pop("time_to_first_answer")
        assert told.pop("preparation") > 0
        assert set(told) == {"import_time", "load_time", "prepare_time", "first_call"}
        assert sum(told.values()) == pytest.approx(total)
        assert min(told.values()) > 0
        assert total < time.monotonic() - begun


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "name", "said"),
    [
        ("raises", "start_crashed", "treatment ended with 1 before it had answered: RuntimeError"),
        ("silent", "start_crashed", "treatment said nothing of its start"),
        ("hangs", "start_timeout", "treatment gave no answer within 120 s"),
        ("answers", "output_mismatch", "treatment, started anew, answers otherwise"),
    ],
)
def test_a_start_that_goes_wrong_is_a_failure_of_the_scenario(
    how: str, name: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = subprocess.run

    def start(*command: Any, input: str, timeout: float, **options: Any) -> Any:
        """What hangs is given up soon; the control may take as long as a loaded host needs."""
        timeout = 1.0 if "hangs" in input else 600.0
        return started(*command, input=input, timeout=timeout, **options)

    monkeypatch.setattr(cold_start.subprocess, "run", start)
    rows = run(f'breaks-anew(how="{how}")', ONCE, plugins=(FRAUDS, PLUGIN))
    assert end_of(rows).status == "ok"
    (event,) = [r for r in rows if isinstance(r, EventRow) and r.severity == "failure"]
    assert (event.scenario, event.name) == ("cold-start", name)
    assert event.detail.startswith(said)


@pytest.mark.parametrize("parameters", ["batch_size=0", "repeats=0", "threads=0", "repeats=1.5"])
def test_a_wrong_parameter_is_refused(parameters: str) -> None:
    with pytest.raises(LeanRecError, match="Correct the value"):
        SCENARIOS.make(f"cold-start({parameters})")
