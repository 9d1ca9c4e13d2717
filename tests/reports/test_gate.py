"""The gate of a report: what it says, its XML, and how the command ends."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from synthetic_run import TRUTHS, Truth, write_run

from bench.limits import Limits, findings
from bench.records import EventRow
from bench.run import Run
from reports import gate

FAST = Limits(min_speedup=1.2, max_quality_loss="mlperf-99")


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """bf16 is fast at batch 512 and 4096, and slow at batch 1."""
    return Run.load(
        write_run(tmp_path_factory.mktemp("gated"), {"bf16": TRUTHS["bf16"]}, ["dcnv2"])
    )


def test_sentences_hold_the_figure_its_bound_and_the_limit(gated: Run) -> None:
    said = [gate.sentence(f) for f in findings(gated.effects, FAST)]
    (slow,) = (s for s in said if "batch=1:" in s)
    assert slow.startswith("dcnv2 × bf16, single-stream batch=1: speed-up 0.70× (bound 0.")
    assert slow.endswith("at least 1.20× asked for: broken")
    (quality,) = (s for s in said if "quality loss" in s)
    assert quality.endswith("at most 0.0078 asked for: met")


def test_xml_has_a_case_for_each_finding(gated: Run) -> None:
    found = findings(gated.effects, FAST)
    suite = ElementTree.fromstring(gate.junit(gated, found))
    assert int(suite.get("tests", "")) == len(suite.findall("testcase"))
    assert suite.get("failures") == "1"
    (failed,) = (case for case in suite.iter("testcase") if case.find("failure") is not None)
    assert failed.get("classname") == "dcnv2.bf16"
    assert failed.get("name") == "single-stream.batch=1.cpu.latency.min_speedup"
    assert suite.get("skipped") == "1"
    assert suite.get("errors") == "0"


def test_xml_of_hostile_names_is_well_formed(tmp_path: Path) -> None:
    name = "<b>&\"'\x00\x1b]]>\ud800"
    event = EventRow(scenario="offline", name="leak", severity="failure", detail=name[:-1])
    truths = {name[:-1]: Truth({4096: 1.5}, events=(event,))}
    run = Run.load(write_run(tmp_path, truths, ["dcnv2"], processes=3))
    suite = ElementTree.fromstring(gate.junit(run, findings(run.effects, FAST)))
    assert suite.get("errors") == "1"
    assert any("<b>&\"'\ufffd\ufffd]]>" in c.get("classname", "") for c in suite.iter("testcase"))
