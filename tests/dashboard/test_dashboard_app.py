"""The dashboard's logic, page by page, without a browser."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from large_run import write_large_run
from made_profile import made_profile
from streamlit.testing.v1 import AppTest
from synthetic_run import Truth, write_run

import dashboard.app
from bench import effects, reading, records
from bench.limits import Limits, findings
from bench.profiles.record import FILE, folder_in, write_profile
from bench.run import Run, Underway, write_json
from dashboard.app import BASELINE, TECHNIQUE, TRADE_OFF, VIEWS
from reports import figures, tables
from reports import format as fmt

APP = str(Path(dashboard.app.__file__))
OpenApp = Callable[..., AppTest]


@pytest.fixture
def open_app(monkeypatch: pytest.MonkeyPatch) -> OpenApp:
    def start(*folders: Path, **query: str | list[str]) -> AppTest:
        monkeypatch.setattr("sys.argv", [APP, *map(str, folders)])
        app = AppTest.from_file(APP, default_timeout=300)
        for key, value in query.items():
            app.query_params[key] = value
        return app.run()

    return start


def html(app: AppTest) -> str:
    return "".join(element.proto.body for element in app.get("html"))


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_opens_without_an_exception(
    open_app: OpenApp, run_folder: Path, view: str
) -> None:
    app = open_app(run_folder, view=view)
    assert not app.exception
    assert not app.error
    assert app.header


def test_the_matrix_is_the_reports_matrix(open_app: OpenApp, run_folder: Path) -> None:
    shown = html(open_app(run_folder, view="Verdicts"))
    for text in tables.verdict_matrix(Run.load(run_folder))["Throughput"]:
        assert text in shown


def test_filters_come_from_the_address(open_app: OpenApp, run_folder: Path) -> None:
    app = open_app(run_folder, view="Verdicts", baseline="two-tower", technique="bf16")
    shown = html(app)
    assert "two-tower" in shown
    assert "dcnv2" not in shown
    assert "int8-linear" not in shown


def test_a_filter_chosen_goes_to_the_address(open_app: OpenApp, run_folder: Path) -> None:
    app = open_app(run_folder, view="Effects")
    app.multiselect(key="scenario").set_value(["offline"]).run()
    assert app.query_params["scenario"] == "offline"
    assert {heading.value for heading in app.subheader} == {
        "dcnv2, offline, cpu",
        "two-tower, offline, cpu",
    }


def test_a_metric_can_be_chosen(open_app: OpenApp, run_folder: Path) -> None:
    app = open_app(run_folder, view="Effects", metric=["auc"], baseline=["dcnv2"])
    assert [set(frame.value["Metric"]) for frame in app.dataframe] == [{"auc"}]


def test_names_in_the_address_that_do_not_exist_are_ignored(
    open_app: OpenApp, run_folder: Path
) -> None:
    app = open_app(run_folder, view="Nowhere", baseline="<script>", metric="none")
    assert not app.exception
    assert app.radio(key="view").value == "Overview"


def test_another_run_can_be_chosen(open_app: OpenApp, run_folder: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", {"compile": Truth({4096: 2.0})}, ["mine"], processes=2)
    app = open_app(run_folder, other, view="Verdicts", baseline="dcnv2")
    app.radio(key="run").set_value(str(other)).run()
    assert not app.exception
    assert "mine" in html(app)


@pytest.fixture
def crashed(tmp_path: Path) -> Path:
    folder = write_run(tmp_path, {"bf16": Truth()}, ["dcnv2"], processes=2, finished=False)
    record = sorted((folder / "records").glob("*.jsonl"))[0]
    record.write_text(record.read_text()[:300])
    return folder


@pytest.mark.parametrize("view", ["Answer", "Effects"])
def test_a_corrupt_record_of_a_run_in_progress_is_a_message(
    open_app: OpenApp, crashed: Path, view: str
) -> None:
    app = open_app(crashed, view=view)
    assert not app.exception
    assert "is corrupt at line" in app.warning[0].value
    told = app.markdown if view == "Answer" else app.info
    assert any("provisional" in element.value for element in told)


@pytest.mark.parametrize("view", VIEWS)
def test_an_empty_run_is_a_message(open_app: OpenApp, tmp_path: Path, view: str) -> None:
    folder = write_run(tmp_path, {"bf16": Truth()}, ["dcnv2"], processes=0, finished=False)
    app = open_app(folder, view=view)
    assert not app.exception
    assert app.info or any("provisional" in element.value for element in app.markdown)


def test_a_missing_run_is_a_message(open_app: OpenApp, tmp_path: Path) -> None:
    app = open_app(tmp_path / "nowhere")
    assert not app.exception
    assert "is not a run" in app.error[0].value


def test_an_unreadable_plan_is_a_message(open_app: OpenApp, crashed: Path) -> None:
    (crashed / "plan.json").write_text("{")
    app = open_app(crashed)
    assert not app.exception
    assert "is not readable" in app.error[0].value


def test_no_run_is_a_message(open_app: OpenApp) -> None:
    assert "No run was given" in open_app().error[0].value


def test_limits_come_from_the_address_and_decide(open_app: OpenApp, run_folder: Path) -> None:
    app = open_app(run_folder, view="Decide", baseline="dcnv2", speedup="1.2", quality="mlperf-99")
    assert not app.exception
    told = "\n".join(element.value for element in app.markdown)
    assert "nothing: no stack is known to keep every limit" in told  # slower at batch 1
    app.select_slider(key="speedup").set_value("any").run()
    told = "\n".join(element.value for element in app.markdown)
    assert "**use** – bf16: 3.3" in told
    assert "speedup" not in app.query_params


def test_the_objective_can_be_chosen(open_app: OpenApp, run_folder: Path) -> None:
    app = open_app(run_folder, view="Decide")
    app.radio(key="objective").set_value("size").run()
    assert any("smaller than the control" in element.value for element in app.markdown)
    assert app.query_params["objective"] == "size"


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"objective": "training"}, "training was not measured"),
        ({"memory": "5"}, "max"),
        ({"speedup": "1e9", "latency": "-3", "objective": "nothing"}, ""),
    ],
)
def test_limits_that_nothing_is_held_to_are_a_message(
    open_app: OpenApp, run_folder: Path, query: dict[str, str], said: str
) -> None:
    app = open_app(run_folder, view="Decide", **query)
    assert not app.exception
    assert any(said in element.value for element in [*app.info, *app.markdown])


@pytest.fixture
def weeks(tmp_path: Path) -> list[Path]:
    """Three runs a week apart, the last of which lost some of its speed."""
    return [
        write_run(
            tmp_path / f"week-{n}", {"control": Truth(), "bf16": Truth({4096: speed})}, ["dcnv2"],
            environment={"host": "a1", "started": f"2025-01-{n:02}", "software": {"torch": torch}},
        )
        for n, speed, torch in ((1, 3.0, "2.12"), (8, 3.0, "2.12"), (15, 2.0, "2.13"))
    ]  # fmt: skip


def test_runs_are_compared_from_the_earlier_to_the_later(
    open_app: OpenApp, weeks: list[Path]
) -> None:
    app = open_app(weeks[2], *weeks[:2], view="Compare runs", scenario="offline")
    assert not app.exception
    assert [heading.value for heading in app.header] == [
        "Changes",
        "What was different",
        "Over time",
    ]
    told = [element.value.replace("\\", "") for element in app.markdown]
    assert f"From A, {weeks[0]}, to B, {weeks[2]}: 1 worse, 0 better and 0 inconclusive." in told
    assert "2.13" in html(app)
    app.radio(key="with").set_value(str(weeks[1])).run()
    assert app.query_params["with"] == str(weeks[1])
    assert any(f"From A, {weeks[1]}" in element.value.replace("\\", "") for element in app.markdown)
    numbers = next(frame.value for frame in app.dataframe if "Run 3" in frame.value)
    assert [numbers[f"Run {n}"][0].split("×")[0] for n in (1, 2, 3)] == ["3.00", "3.00", "2.00"]


def test_one_run_is_not_compared(open_app: OpenApp, weeks: list[Path]) -> None:
    alone = open_app(weeks[0], view="Compare runs")
    assert any("with two runs or more" in element.value for element in alone.markdown)


def test_tables_and_figures_can_be_taken_away(open_app: OpenApp, run_folder: Path) -> None:
    app = open_app(run_folder, view="Effects", baseline="dcnv2", scenario="offline")
    labels = [button.proto.label for button in app.get("download_button")]
    assert labels == ["PNG", "SVG", "CSV"]
    app = open_app(run_folder, view="Verdicts")
    assert [button.proto.label for button in app.get("download_button")] == ["CSV"]


def test_a_run_that_goes_on_is_read_again(open_app: OpenApp, tmp_path: Path) -> None:
    truths = {"bf16": Truth({4096: 3.0})}
    write_run(tmp_path, truths, ["dcnv2"], processes=0, finished=False)
    app = open_app(tmp_path, view="Verdicts")
    assert "in progress" in html(app)
    write_run(tmp_path, truths, ["dcnv2"])
    assert "3.00× faster" in html(app.run())


def test_a_profile_put_into_a_run_is_shown(open_app: OpenApp, tmp_path: Path) -> None:
    folder = write_run(tmp_path, {"int8-linear": Truth()}, ["dcnv2"], processes=2)
    app = open_app(folder, view="Profile")
    assert not app.exception
    assert any("leanrec profile --diff dcnv2-" in element.value for element in app.markdown)
    profile = made_profile()
    place = folder_in(folder, profile.cell)
    write_profile(place, profile)
    app = app.run()
    assert not app.exception
    assert "quantized::linear_dynamic" in html(app)
    assert any("tensorboard --logdir" in element.value for element in app.markdown)
    (place / FILE).write_text("{")
    app = app.run()
    assert not app.exception
    assert "cannot be read" in app.warning[0].value


def test_a_page_looks_again_by_itself_while_a_run_is_in_progress(
    open_app: OpenApp, tmp_path: Path
) -> None:
    truths = {"bf16": Truth({4096: 3.0})}
    write_run(tmp_path, truths, ["dcnv2"], processes=0, finished=False)
    now = Underway(done=1, expected=5, seconds_left=90.0, doing="measure dcnv2 × bf16 #1")
    write_json(tmp_path / "progress.json", now)
    app = open_app(tmp_path, view="Verdicts", technique="bf16")
    told = " ".join(element.value.replace("\\", "") for element in app.info)
    assert "measure dcnv2 × bf16 #1. 1 of 5 processes are done, about 1 min 30 s left" in told
    write_run(tmp_path, truths, ["dcnv2"])
    app.run()
    assert not app.info
    assert app.query_params["technique"] == "bf16"


@pytest.mark.parametrize("content", ["", "{", '{"done": "many"}'])
def test_a_progress_that_is_not_readable_is_not_told(
    open_app: OpenApp, tmp_path: Path, content: str
) -> None:
    write_run(tmp_path, {"bf16": Truth()}, ["dcnv2"], processes=0, finished=False)
    (tmp_path / "progress.json").write_text(content)
    app = open_app(tmp_path)
    assert not app.exception
    assert app.info[0].value.startswith("Last written")


def test_the_first_page_shows_every_stack_against_every_baseline(
    open_app: OpenApp, run_folder: Path
) -> None:
    app = open_app(run_folder)
    shown = html(app)
    assert app.radio(key="view").value == "Overview"
    for text in ("dcnv2", "two-tower", "bf16", "▲ Throughput 3.3", "▼ Latency 1.4"):
        assert text in shown
    assert 'title="' in shown
    assert any("A Processor With 2 Cores" in element.value for element in app.markdown)


def test_a_view_of_many_figures_is_shown_in_parts(open_app: OpenApp, run_folder: Path) -> None:
    app = open_app(run_folder, view="Effects", part="2")
    first = [heading.value for heading in app.subheader]
    assert app.query_params["part"] == "2"
    app.number_input(key="part").set_value(1).run()
    assert [heading.value for heading in app.subheader] != first
    app.number_input(key="part").set_value(2).run()
    app.multiselect(key="baseline").set_value(["dcnv2", "two-tower"]).run()
    assert app.number_input(key="part").value == 1
    app.multiselect(key="baseline").set_value(["dcnv2"]).run()
    app.multiselect(key="scenario").set_value(["offline"]).run()
    assert not app.exception
    assert "part" not in app.query_params


@pytest.mark.parametrize("part", ["0", "-1", "99", "x", "1e9"])
def test_a_part_that_does_not_exist_is_the_nearest(
    open_app: OpenApp, run_folder: Path, part: str
) -> None:
    app = open_app(run_folder, view="Effects", part=part)
    assert not app.exception
    assert app.header


def test_a_filter_that_was_asked_for_before_costs_no_work(
    open_app: OpenApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_large_run(tmp_path, baselines=2, stacks=5, metrics=6)
    calls: list[str] = []
    for owner, name in ((records, "read_trial"), (effects, "estimates_of"), (figures, "svg")):
        original = getattr(owner, name)
        counted = functools.partial(count, calls, name, original)
        monkeypatch.setattr(reading if owner is not figures else figures, name, counted)
    app = open_app(tmp_path, view="Effects")
    assert {name: calls.count(name) for name in ("read_trial", "estimates_of")} == {
        "read_trial": 20,
        "estimates_of": 2,
    }
    app.multiselect(key="baseline").set_value(["baseline-1"]).run()
    drawn = calls.count("svg")
    assert 0 < drawn < 10
    app.multiselect(key="baseline").set_value([]).run()
    assert len(calls) == 20 + 2 + drawn


def count(calls: list[str], name: str, original: Callable[..., Any], *arguments: Any) -> Any:
    calls.append(name)
    return original(*arguments)


def test_hostile_names_are_shown_as_text(open_app: OpenApp, tmp_path: Path) -> None:
    folder = write_run(tmp_path, {"<script>x</script>": Truth()}, ["$a$ **b**"], processes=2)
    app = open_app(folder, view="Verdicts")
    assert not app.exception
    assert "<script>" not in html(app)
    assert "&lt;script&gt;" in html(app)


@pytest.mark.parametrize(
    ("view", "names"),
    [(TECHNIQUE, ["int8-linear", "bf16"]), (BASELINE, ["dcnv2", "two-tower"])],
)
def test_the_one_a_page_is_about_is_chosen_and_kept_in_the_address(
    open_app: OpenApp, run_folder: Path, view: str, names: list[str]
) -> None:
    key = f"one-{view.lower()}"
    app = open_app(run_folder, view=view, **{key: names[1]})
    assert app.header[0].value == f"{names[1]}: effects"
    app.selectbox(key=key).set_value(names[0]).run()
    assert not app.exception
    assert app.header[0].value == f"{names[0]}: effects"
    assert app.query_params[key] == names[0]
    unknown = open_app(run_folder, view=view, **{key: "nobody"})
    assert unknown.header[0].value == f"{names[0]}: effects"


def test_a_technique_s_numbers_are_those_of_the_effects(
    open_app: OpenApp, run_folder: Path
) -> None:
    app = open_app(run_folder, view=TECHNIQUE, **{"one-technique": "bf16"}, metric="throughput")
    frame = app.dataframe[0].value
    expected = [
        fmt.effect(e)
        for e in Run.load(run_folder).effects
        if e.metric == "throughput" and e.stack in ("bf16", "control")
    ]
    assert sorted(frame["Effect [interval]"]) == sorted(expected)


def test_a_part_without_a_technique_has_no_page_of_one(open_app: OpenApp, run_folder: Path) -> None:
    truths = {"control": Truth()}
    folder = write_run(run_folder.parent / "alone", truths, ["dcnv2"], processes=2)
    (folder / "plan.json").write_text(
        (folder / "plan.json").read_text().replace('"stack": "lora"', '"stack": "control"')
    )
    app = open_app(folder, view=TECHNIQUE)
    assert not app.exception
    assert any("holds no technique" in element.value for element in app.markdown)


def test_serving_shows_every_scenario_that_was_run(open_app: OpenApp, served_folder: Path) -> None:
    app = open_app(served_folder, view="Serving")
    assert not app.exception
    assert html(app).count("<img") == 5
    titles = ["Under load", "Caches", "Fresh weights", "Cold start"]
    assert [heading.value for heading in app.header] == titles
    part = open_app(served_folder, view="Serving", scenario="server")
    assert {heading.value for heading in part.subheader} == {"dcnv2 on cpu"}
    assert sum("scenario is not selected" in text.value for text in part.markdown) == 3


def test_limits_of_the_trade_off_are_those_of_the_decision(
    open_app: OpenApp, run_folder: Path
) -> None:
    app = open_app(run_folder, view=TRADE_OFF, speedup="1.2")
    held = findings(Run.load(run_folder).effects, Limits.of(None, 1.2, None, None))
    shown = html(app)
    for finding in held:
        if finding.state != "met" and finding.stack != "control":
            assert fmt.percent(finding.distance) in shown
    app.select_slider(key="speedup").set_value("any").run()
    assert not app.exception
    assert not app.subheader
    unmeasured = open_app(run_folder, view=TRADE_OFF, memory="5")
    assert any("concerns nothing that was measured" in told.value for told in unmeasured.info)


def test_a_limit_is_a_slider_about_what_was_measured(open_app: OpenApp, run_folder: Path) -> None:
    app = open_app(run_folder, view=TRADE_OFF)
    keys = {slider.key for slider in app.select_slider}
    assert keys == {"quality", "speedup", "latency", "preparation"}  # no memory was measured
    latencies = app.select_slider(key="latency").options
    assert latencies[-1] == "any"
    assert float(latencies[0]) <= 0.1  # ms, of both batch sizes
    assert float(latencies[-2]) > 7
    app.select_slider(key="preparation").set_value("0.5").run()
    assert app.query_params["preparation"] == "0.5"
    assert "int8-linear" in html(app)
    exact = open_app(run_folder, view=TRADE_OFF, latency="7.3125")
    assert exact.select_slider(key="latency").value == "7.3125"
    assert exact.query_params["latency"] == "7.3125"
