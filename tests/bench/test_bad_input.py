"""What users get wrong: each mistake ends in a clear error or a recorded result."""

from __future__ import annotations

import errno
import io
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_worker import FakeWorkers
from front_door import TINY, Leanrec, Said, environment, tiny_suite

from bench import launch, runner, store
from bench.protocol import Protocol
from bench.records import EndRow, read_trials
from bench.run import Run
from bench.worker import TrialSpec, run_trial

BASELINE = '''
from dataclasses import dataclass
import pandas as pd
import torch
from baselines.base import Baseline, Recipe, baseline
from baselines.data.frame import from_frame
from baselines.tasks.ctr import CTR


class Model(torch.nn.Module):
    def __init__(self, sizes):
        super().__init__()
        self.tables = torch.nn.ModuleList(torch.nn.Embedding(n, 4) for n in sizes)
        self.head = torch.nn.Linear(4 * len(sizes), 1)

    def forward(self, ids):
        columns = [table(ids[:, i]) for i, table in enumerate(self.tables)]
        return self.head(torch.cat(columns, dim=1)).squeeze(1)


@baseline("mine")
@dataclass(frozen=True)
class Mine(Baseline):
    """The user's own."""

    path: str = "clicks.csv"
    task = CTR()
    recipe = Recipe(epochs=1)

    def data(self):
        frame = pd.read_csv(self.path, encoding="utf-8-sig")
        return from_frame(frame, label="click", user="user", item="item")

    def build(self, data):
        return Model(data.fields.values())
'''


@pytest.fixture
def leanrec(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Leanrec:
    """The command in this process, in a folder of its own, with workers that take no time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "run_worker", FakeWorkers())
    return Leanrec(monkeypatch, capsys)


def refused(said: Said, *parts: str) -> None:
    """Exit code 2, and a text that has every part; `text` itself refuses a traceback."""
    assert said.code == 2, said.text
    for part in parts:
        assert part in said.text


def flat(said: Said) -> str:
    return " ".join(said.text.split())


class TestSuites:
    def test_an_unknown_technique_offers_the_nearest(
        self, tmp_path: Path, leanrec: Leanrec
    ) -> None:
        suite = tiny_suite(tmp_path, TINY.replace("prune-unstructured", "prune-unstructred"))
        refused(leanrec("run", suite, "--out", "r"), "Did you mean prune-unstructured")
        assert not Path("r").exists()

    def test_an_unknown_key_offers_the_nearest(self, tmp_path: Path, leanrec: Leanrec) -> None:
        suite = tiny_suite(tmp_path, TINY.replace("pairs = 2", "pair = 2"))
        refused(leanrec("run", suite, "--out", "r"), "protocol.pair", "Did you mean 'pairs'?")

    def test_bytes_that_are_no_utf_8(self, tmp_path: Path, leanrec: Leanrec) -> None:
        (tmp_path / "latin.toml").write_bytes(TINY.replace("small", "kürz").encode("latin-1"))
        refused(leanrec("run", "latin.toml", "--out", "r"), "latin.toml", "not readable TOML")

    @pytest.mark.parametrize("name", [".", "nowhere.toml", "", "a" * 5000])
    def test_what_is_no_suite(self, leanrec: Leanrec, name: str) -> None:
        refused(leanrec("run", name, "--out", "r"), "Nothing was run")

    def test_a_technique_that_does_not_apply_is_skipped_with_its_reason(
        self, tmp_path: Path, leanrec: Leanrec
    ) -> None:
        stack = "int8-linear(min_width=4096)"
        said = leanrec("run", tiny_suite(tmp_path), "--out", "r", "--technique", stack)
        assert said.code == 0
        assert "finds no linear layer at least 4096 wide" in flat(said)
        skips = {c.cell.stack: c.skip for c in Run.load(Path("r")).plan.cells}
        assert skips["control"] == ""
        assert "4096 wide" in skips[stack]


class TestFolders:
    @pytest.mark.parametrize("folder", ["file", "file/below", "/proc/leanrec"])
    def test_one_that_cannot_be_written(
        self, tmp_path: Path, leanrec: Leanrec, folder: str
    ) -> None:
        (tmp_path / "file").write_text("mine")
        refused(leanrec("run", tiny_suite(tmp_path), "--out", folder), "cannot be written")
        assert (tmp_path / "file").read_text() == "mine"

    def test_a_read_only_folder(
        self, tmp_path: Path, leanrec: Leanrec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def read_only(*arguments: Any, **options: Any) -> None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

        with monkeypatch.context() as patch:
            patch.setattr(Path, "mkdir", read_only)
            said = leanrec("run", tiny_suite(tmp_path), "--out", "r")
        refused(said, "Read-only file system")

    def test_a_cache_that_cannot_be_written(
        self, tmp_path: Path, leanrec: Leanrec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("LEANREC_CACHE", str(tmp_path / "file"))
        refused(leanrec("run", tiny_suite(tmp_path), "--out", "r"), "LEANREC_CACHE")

    def test_one_that_holds_something_else_is_left_alone(
        self, tmp_path: Path, leanrec: Leanrec
    ) -> None:
        Path("r").mkdir()
        Path("r/thesis.txt").write_text("mine")
        assert leanrec("run", tiny_suite(tmp_path), "--out", "r").code == 0
        assert Path("r/thesis.txt").read_text() == "mine"


class TestDisk:
    def full(self, *arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def test_full_while_data_is_prepared(
        self, tmp_path: Path, leanrec: Leanrec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cache = tmp_path / "cache"
        monkeypatch.setenv("LEANREC_CACHE", str(cache))
        with monkeypatch.context() as patch:
            patch.setattr(store.torch, "save", self.full)
            said = leanrec("run", tiny_suite(tmp_path), "--out", "r")
        refused(said, "artefact store", "No space left on device", "Free space")
        assert not [p for p in cache.rglob("*") if p.is_file() and p.suffix != ".lock"]
        assert leanrec("run", tiny_suite(tmp_path), "--out", "r").code == 0

    def test_full_while_trials_are_recorded(
        self, tmp_path: Path, leanrec: Leanrec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write, count = runner.write_trial, iter(range(100))

        def filling(folder: Path, made: Any) -> Path:
            if next(count) == 3:
                with monkeypatch.context() as patch:
                    patch.setattr(os, "fsync", self.full)
                    return write(folder, made)
            return write(folder, made)

        monkeypatch.setattr(runner, "write_trial", filling)
        said = leanrec("run", tiny_suite(tmp_path), "--out", "r")
        refused(said, "No space left on device", "--resume")
        trials, problems = read_trials(Path("r/records"))
        assert (len(trials), problems) == (3, [])
        assert leanrec("run", "tiny.toml", "--out", "r", "--resume").code == 0

    @pytest.mark.slow
    def test_a_limit_of_the_system_on_the_size_of_files(self, tmp_path: Path) -> None:
        limit = 50_000  # bytes; the data of the tiny suite take more
        said = subprocess.run(
            [sys.executable, "-m", "bench.cli", "run", tiny_suite(tmp_path), "--out", "r"],
            cwd=tmp_path,
            env=environment(LEANREC_CACHE=str(tmp_path / "cache")),
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
            capture_output=True,
            text=True,
            check=False,
        )
        refused(Said(said.returncode, said.stdout, said.stderr), "artefact store", "too large")


class TestRecords:
    def test_a_corrupt_record_is_set_aside_and_measured_anew(
        self, tmp_path: Path, leanrec: Leanrec
    ) -> None:
        assert leanrec("run", tiny_suite(tmp_path), "--out", "r").code == 0
        broken = sorted(Path("r/records").glob("*measure*"))[0]
        broken.write_text("".join(broken.read_text().splitlines(keepends=True)[:-1]))
        refused(leanrec("show", "r"), broken.name, "is corrupt at line", "end row is missing")
        assert leanrec("run", "tiny.toml", "--out", "r", "--resume").code == 0
        assert leanrec("show", "r").code == 0
        assert broken.with_suffix(".corrupt").exists()

    @pytest.mark.parametrize("content", [b"{", b"", b"\xff", b'{"suite": "x"}'])
    def test_a_corrupt_plan(self, tmp_path: Path, leanrec: Leanrec, content: bytes) -> None:
        assert leanrec("run", tiny_suite(tmp_path), "--out", "r").code == 0
        records = {p: p.read_bytes() for p in Path("r/records").iterdir()}
        Path("r/plan.json").write_bytes(content)
        for command in (
            ["show", "r"],
            ["report", "r"],
            ["run", "tiny.toml", "--out", "r", "--resume"],
        ):
            refused(leanrec(*command), "is not readable", "Its records are untouched")
        assert records == {p: p.read_bytes() for p in Path("r/records").iterdir()}


class TestPlugins:
    @pytest.mark.parametrize(
        ("source", "said"),
        [
            ("\n\nimport nowhere_at_all\n", ["line 3", "nowhere_at_all"]),
            ("x = 1\nraise RuntimeError('no licence')\n", ["line 2", "no licence"]),
            ("def broken(:\n", ["line 1", "SyntaxError"]),
            ("import sys\nsys.exit(0)\n", ["line 2", "SystemExit"]),
            ("\x00", ["null bytes"]),
        ],
    )
    def test_one_that_fails_to_import_is_named_with_its_line(
        self, tmp_path: Path, leanrec: Leanrec, source: str, said: list[str]
    ) -> None:
        (tmp_path / "my plug-in.py").write_text(source)
        suite = tiny_suite(tmp_path)
        ended = leanrec("run", suite, "--out", "r", "--plugin", "my plug-in.py")
        refused(ended, "my plug-in.py", *said)
        assert not Path("r").exists()
        refused(leanrec("list", "techniques", "--plugin", "my plug-in.py"), *said)

    @pytest.mark.parametrize(
        ("source", "said"),
        [
            (
                "from techniques.base import Technique, technique\n"
                "@technique('odd')\nclass Odd(Technique):\n    '''Odd.'''\n",
                "@dataclass(frozen=True) above class Odd",
            ),
            (
                "from techniques.base import technique\n@technique('An Odd')\nclass Odd: pass\n",
                "not lower case words",
            ),
            (
                "from dataclasses import dataclass\n"
                "from techniques.base import Technique, technique\n"
                "@technique('odd')\n@dataclass(frozen=True)\nclass Odd(Technique):\n"
                "    def reason_against(self, model, task, device):\n        return 1 / 0\n",
                "ZeroDivisionError: division by zero (odd.py, line 7)",
            ),
        ],
    )
    def test_a_technique_that_is_none(
        self, tmp_path: Path, leanrec: Leanrec, source: str, said: str
    ) -> None:
        (tmp_path / "odd.py").write_text(source)
        arguments = ("--plugin", "odd.py", "--technique", "odd", "--out", "r")
        refused(leanrec("run", tiny_suite(tmp_path), *arguments), said)

    def test_a_baseline_that_lacks_a_method(self, tmp_path: Path, leanrec: Leanrec) -> None:
        (tmp_path / "half.py").write_text(BASELINE.replace("def build", "def make"))
        said = leanrec(
            "run", tiny_suite(tmp_path), "--plugin", "half.py", "--baseline", "mine", "--out", "r"
        )
        refused(said, "cannot be made", "build")

    def test_parameters_without_a_default_or_that_are_no_json_are_listed(
        self, tmp_path: Path, leanrec: Leanrec
    ) -> None:
        (tmp_path / "odd.py").write_text(
            "from dataclasses import dataclass\nfrom pathlib import Path\n"
            "from techniques.base import Technique, technique\n"
            "@technique('odd')\n@dataclass(frozen=True)\nclass Odd(Technique):\n"
            "    '''Odd, with [brackets].'''\n    width: int\n    table: Path = Path('a')\n"
        )
        rows = leanrec("list", "techniques", "--plugin", "odd.py", "--json").json
        (odd,) = (row for row in rows if row["name"] == "odd")
        assert odd["parameters"] == {"width": None, "table": "a"}
        assert "Odd, with [brackets]." in leanrec("list", "techniques").text


def rows(count: int, click: Any = lambda k: k % 2) -> str:
    lines = (f"u{k % 50},item {k % 7},{click(k)}" for k in range(count))
    return "user,item,click\n" + "\n".join(lines) + "\n"


class TestData:
    """The user's own data, through a baseline in a file of his own."""

    @pytest.fixture
    def run(self, tmp_path: Path, leanrec: Leanrec) -> Iterator[Any]:
        (tmp_path / "my model.py").write_text(BASELINE)

        def run(table: str | bytes | None) -> Said:
            if table is not None:
                content = table if isinstance(table, bytes) else table.encode()
                (tmp_path / "clicks.csv").write_bytes(content)
            return leanrec(
                "run", tiny_suite(tmp_path), "--out", "r",
                "--plugin", "my model.py", "--baseline", "mine",
            )  # fmt: skip

        return run

    @pytest.mark.parametrize(
        ("table", "said"),
        [
            (rows(500).replace("click", "clik"), "Did you mean 'clik'?"),
            (rows(500, lambda k: "" if k == 7 else k % 2), "the first in row 7"),
            (rows(500, lambda k: "maybe" if k == 7 else k % 2), "'maybe'"),
            (rows(500, lambda k: "inf" if k == 7 else k % 2), "not finite"),
            (rows(500, lambda k: k % 5), "neither 0 nor 1"),
            (rows(500, lambda k: 1), "labels of one class only"),
            (rows(3), "with 3 rows, the"),
            (rows(0), "has no rows"),
            (rows(500).replace("u7,", ","), "have no 'user'"),
            ("", "No columns to parse"),
            (b"\xff\xfe\x00", "codec can't decode"),
            (None, "clicks.csv"),
        ],
        ids=[
            "column",
            "missing label",
            "word",
            "infinity",
            "rating",
            "class",
            "split",
            "empty",
            "user",
            "file",
            "bytes",
            "nowhere",
        ],
    )
    def test_what_is_wrong_is_said_before_anything_is_run(
        self, run: Any, table: str | bytes | None, said: str
    ) -> None:
        ended = run(table)
        refused(ended)
        assert said in flat(ended)
        assert not Path("r").exists()

    @pytest.mark.parametrize(
        "table",
        [
            rows(500),
            rows(500) + rows(500).split("\n", 1)[1],
            rows(500).replace("u7,", '"O\'Brien, ""Bob"" ☃",'),
            "\ufeff" + rows(500),
        ],
        ids=["words as ids", "duplicates", "quotes and Unicode", "a byte-order mark"],
    )
    def test_what_is_only_unusual_is_measured(self, run: Any, table: str) -> None:
        assert run(table).code == 0

    def test_an_error_of_the_users_own_code_is_told_with_its_line(
        self, tmp_path: Path, leanrec: Leanrec
    ) -> None:
        broken = BASELINE.replace("frame = pd.", "frame = {}['clicks']; pd.")
        (tmp_path / "broken.py").write_text(broken)
        said = leanrec(
            "run", tiny_suite(tmp_path), "--out", "r", "--plugin", "broken.py", "--baseline", "mine"
        )
        line = broken[: broken.index("{}['clicks']")].count("\n") + 1
        refused(said, "mine × control cannot be planned: KeyError: 'clicks'")
        assert f"(broken.py, line {line})" in flat(said)

    def test_a_missing_file_of_the_user_is_not_blamed_on_the_store(
        self, tmp_path: Path, leanrec: Leanrec
    ) -> None:
        source = BASELINE.replace("frame = pd.", "open('absent.csv'); frame = pd.")
        (tmp_path / "absent.py").write_text(source)
        said = leanrec(
            "run", tiny_suite(tmp_path), "--out", "r", "--plugin", "absent.py", "--baseline", "mine"
        )
        refused(said, "absent.csv")
        assert "artefact store" not in said.text


class TestNames:
    def test_unicode_spaces_quotes_and_markup_everywhere(
        self, tmp_path: Path, leanrec: Leanrec
    ) -> None:
        folder = "Größe \"[bold]\" – 'runs' ☃"
        plugin = tmp_path / "mein 'Modell' ü.py"
        plugin.write_text(BASELINE)
        data = tmp_path / 'klicks "ü" ☃.csv'
        data.write_text(rows(500))
        spec = r"""mine(path="klicks \"ü\" ☃.csv")"""
        suite = tiny_suite(tmp_path, 'name = "[/] \\"ü\\" ☃"\n' + TINY, "süite 'x'.toml")
        ended = leanrec(
            "run", suite, "--out", folder, "--plugin", plugin, "--baseline", spec,
            "--baseline", "mein.modell = " + spec,
        )  # fmt: skip
        assert ended.code == 0, ended.text
        run = Run.load(Path(folder))
        assert run.plan.suite == '[/] "ü" ☃'
        assert {t.head.baseline for t in run.trials} == {spec, "mein.modell"}
        assert spec in {row["baseline"] for row in leanrec("show", folder, "--json").json}
        assert leanrec("show", folder).code == 0
        report = leanrec("report", folder, "--format", "md,html,csv,json", "--out", folder + "/b")
        assert report.code == 0
        assert all(p.name.isascii() for p in (Path(folder) / "records").iterdir())
        again = leanrec(
            "run", suite, "--out", folder, "--plugin", plugin, "--baseline", spec,
            "--baseline", "mein.modell = " + spec, "--resume",
        )  # fmt: skip
        assert again.code == 0


class TestInTheWorker:
    """Mistakes that show only when a trial runs: a recorded result with its cause."""

    TECHNIQUE = """
from dataclasses import dataclass
from techniques.base import Technique, technique


@technique("broken")
@dataclass(frozen=True)
class Broken(Technique):
    def compress(self, model, context):
        {body}
"""

    @pytest.mark.parametrize(
        ("body", "status", "cause"),
        [
            ("raise ValueError('no such kernel')", "error", "no such kernel (broken.py, line 10)"),
            ("raise RuntimeError(' \\n ')", "error", "RuntimeError:  (broken.py, line 10)"),
            ("raise MemoryError", "out_of_memory", "could not get memory"),
        ],
    )
    def test_a_technique_that_raises(
        self, tmp_path: Path, body: str, status: str, cause: str
    ) -> None:
        records = io.StringIO()
        run_trial(self.spec(tmp_path, body), records)
        end = EndRow.model_validate_json(records.getvalue().splitlines()[-1])
        assert (end.status, cause in end.cause) == (status, True), end.cause

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("body", "cause"),
        [
            ("import os; os._exit(7)", "exited with 7"),
            ("import sys; sys.exit('enough')", "enough"),
            ("import os; os.kill(os.getpid(), 11)", "SIGSEGV"),
        ],
    )
    def test_a_technique_that_ends_the_process(self, tmp_path: Path, body: str, cause: str) -> None:
        spec = self.spec(tmp_path, body)
        made = launch.run_worker(spec, 300.0, tmp_path / "worker.log")
        assert (made.end.status, cause in made.end.cause) == ("crash", True), made.end.cause

    def spec(self, folder: Path, body: str) -> TrialSpec:
        plugin = folder / "broken.py"
        plugin.write_text(self.TECHNIQUE.format(body=body))
        cache = Path(os.environ["LEANREC_CACHE"])
        return TrialSpec(
            id="toy", mode="measure", baseline="toy", stack="broken",
            baseline_spec='dcnv2(dataset="planted(rows=2000, ids=200)", width=16, depth=1)',
            stack_spec="broken", device="cpu", scenarios=("quality",), process=0,
            protocol=Protocol(), store=cache / "artefacts", plugins=(plugin,), spawned=time.time(),
        )  # fmt: skip
