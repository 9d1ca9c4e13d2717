"""Recommendations in words, and the command's exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from synthetic_run import TRUTHS, write_run

from bench import cli
from bench.limits import Limits
from bench.recommend import recommend
from bench.run import Run
from reports.recommendation import lines


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one baseline, in which prune-structured loses quality."""
    names = ("control", "bf16", "int8-linear", "int8-embedding", "prune-structured")
    truths = {name: TRUTHS[name] for name in names}
    return write_run(tmp_path_factory.mktemp("run"), truths, ["dcnv2"])


def test_the_choice_comes_with_its_evidence_and_what_spoke_against_the_rest(folder: Path) -> None:
    limits = Limits(max_quality_loss="mlperf-99")
    (found,) = recommend(Run.load(folder).effects, limits, "throughput")
    told = lines(found)
    assert told[0][0] == "use"
    assert told[0][1].startswith("bf16: 3.3")
    assert "the throughput of the control" in told[0][1]
    assert ("evidence", "quality") in [(what, text.split(", ")[1][:7]) for what, text in told]
    assert [text.partition(":")[0] for what, text in told if what == "runner-up"] == ["int8-linear"]
    (out,) = (text for what, text in told if what == "out")
    assert out.startswith("prune-structured: 1.80× [")
    assert "asked for: broken" in out
    assert "% beyond it" in out


def leanrec(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["leanrec", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_a_run_is_judged_without_measuring(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert leanrec(monkeypatch, "recommend", folder, "--max-quality-loss", "mlperf-99") == 0
    said = capsys.readouterr().out
    assert said.startswith("dcnv2 on cpu, for throughput\n  use: bf16: 3.3")


def test_json_holds_the_same_choice(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert leanrec(monkeypatch, "recommend", folder, "--objective", "size", "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["chosen"]["stack"] == "int8-embedding"


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--min-speedup", "50"), 1, "use: nothing: no stack is known to keep every limit"),
        (("--objective", "speed"), 2, "There is no objective 'speed'"),
        (("--objective", "training"), 2, "training was not measured"),
        (("--max-memory", "100"), 2, "max_memory concerns nothing"),
        (("--max-latency", "-1"), 2, "max_latency cannot be"),
    ],
)
def test_where_nothing_can_be_named_the_exit_code_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...], code: int, said: str,
) -> None:  # fmt: skip
    assert leanrec(monkeypatch, "recommend", folder, *options) == code
    printed = capsys.readouterr()
    assert said in " ".join((printed.out + printed.err).split())
    assert "Traceback" not in printed.err


def test_neither_run_nor_suite_is_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert leanrec(monkeypatch, "recommend", tmp_path / "nothing") == 2
    assert "no suite or suite file" in capsys.readouterr().err
