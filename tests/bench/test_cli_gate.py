"""`leanrec report --gate`: exit codes, what is said, the XML. Workers are stood in for."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from fake_worker import FakeWorkers
from front_door import Leanrec, Said, tiny_suite

from bench import runner


@pytest.fixture
def leanrec(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Leanrec:
    """The command, in this process."""
    return Leanrec(monkeypatch, capsys)


@pytest.fixture
def measured(tmp_path: Path, leanrec: Leanrec, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a finished run."""
    monkeypatch.setattr(runner, "run_worker", FakeWorkers({"prune-unstructured": 0.5}))
    folder = tmp_path / "measured"
    assert leanrec("run", tiny_suite(tmp_path), "--out", folder).code == 0
    return folder


class TestGate:
    """The one stack is twice as fast as the control, and loses no quality."""

    def gate(self, leanrec: Leanrec, run: Path, *limits: object) -> Said:
        return leanrec("report", run, "--format", "csv", "--gate", *limits)

    def test_limits_that_are_met_are_0_with_xml_for_ci(
        self, leanrec: Leanrec, measured: Path
    ) -> None:
        said = self.gate(leanrec, measured, "--max-quality-loss", "mlperf-99", "--min-speedup", 0.5)
        assert said.code == 0
        assert "limits are met" in said.out
        suite = ElementTree.parse(measured / "report" / "gate.xml").getroot()
        assert suite.get("failures") == "0"
        assert int(suite.get("tests", "0")) > 1

    def test_a_broken_limit_is_1_and_named(self, leanrec: Leanrec, measured: Path) -> None:
        said = self.gate(leanrec, measured, "--min-speedup", 1000)
        assert said.code == 1
        assert "at least 1000× asked for: broken" in said.text
        assert "Traceback" not in said.text

    @pytest.mark.parametrize(
        ("limits", "cause"),
        [
            ((), "--gate goes with a limit"),
            (("--max-quality-loss", "auc-1"), "max_quality_loss cannot be 'auc-1'"),
            (("--min-speedup", "-1"), "min_speedup cannot be -1"),
            (("--max-preparation", "0"), "max_preparation cannot be 0"),
            (("--min-speedup", "1", "--only", "nothing*"), "concerns nothing"),
        ],
    )
    def test_bad_limits_are_2_and_write_nothing(
        self, leanrec: Leanrec, measured: Path, limits: tuple[str, ...], cause: str
    ) -> None:
        said = self.gate(leanrec, measured, *limits)
        assert said.code == 2
        assert cause in said.text
        assert not (measured / "report").exists()

    def test_a_limit_without_gate_is_2(self, leanrec: Leanrec, measured: Path) -> None:
        assert leanrec("report", measured, "--max-memory", 10).code == 2
