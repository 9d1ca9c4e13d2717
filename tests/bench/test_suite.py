"""Suite files: what they may say, and what is said of those that are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baselines.base import BASELINES
from baselines.data import ml100k
from baselines.data.sources import cache_dir
from baselines.errors import LeanRecError
from bench.device import get_device
from bench.pipeline import make_stack
from bench.plan import make_plan
from bench.protocol import Protocol
from bench.records import CONTROL
from bench.scenarios.base import SCENARIOS
from bench.store import Store
from bench.suite import Suite, load_suite, narrowed, shipped_suites

GOOD = """
about = "A toy"
baselines = ["dcnv2"]
stacks = ["int8-linear(min_width=8)", "fast = int8-linear+bf16"]
scenarios = ["offline(batch_sizes=[8])"]
"""


def write(folder: Path, text: str | bytes, name: str = "toy.toml") -> str:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def suite(**changes: object) -> Suite:
    fields = {
        "about": "A toy",
        "baselines": ("dcnv2(width=8)",),
        "stacks": ("int8-linear(min_width=8)", "fast = int8-linear+bf16"),
        "scenarios": ("offline(batch_sizes=[8])", "train"),
    }
    return Suite.model_validate(fields | changes)


def test_every_shipped_suite_loads_and_says_what_it_is_for() -> None:
    assert {"default", "demo", "smoke", "wide", "ads", "ecommerce", "media"} <= set(
        shipped_suites()
    )
    for name in shipped_suites():
        loaded = load_suite(name)
        assert loaded.name == name
        assert len(loaded.about) > 20


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store that the suites share."""
    return Store(tmp_path_factory.mktemp("store"))


@pytest.mark.parametrize("name", shipped_suites())
def test_every_shipped_suite_names_only_what_there_is(name: str) -> None:
    loaded = load_suite(name)
    for entry in loaded.baselines:
        BASELINES.make(entry.rpartition(" = ")[2])
    for entry in loaded.stacks:
        make_stack(entry.rpartition(" = ")[2])
    for entry in loaded.scenarios:
        SCENARIOS.make(entry)


@pytest.mark.slow
@pytest.mark.parametrize("name", shipped_suites())
def test_every_shipped_suite_plans_with_movielens_and_planted_data_alone(
    name: str, shared: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LEANREC_DATA", raising=False)
    if not any((cache_dir() / source.archive).exists() for source in ml100k.SOURCES):
        pytest.skip("needs MovieLens-100K in the cache; tests do not use the network")
    plan = make_plan(load_suite(name), get_device("cpu"), shared)
    run = {planned.cell.baseline for planned in plan.cells if not planned.skip}
    assert run == set(plan.baselines)
    assert any(planned.cell.stack != CONTROL and not planned.skip for planned in plan.cells)


def test_a_file_is_named_after_itself_unless_it_names_itself(tmp_path: Path) -> None:
    assert load_suite(write(tmp_path, GOOD)).name == "toy"
    assert load_suite(write(tmp_path, 'name = "mine"' + GOOD)).name == "mine"


def test_the_protocol_and_gates_are_read(tmp_path: Path) -> None:
    text = GOOD + '[protocol]\nlooks = [3]\n[gates]\nquality = "mlperf-99"\n'
    loaded = load_suite(write(tmp_path, text))
    assert loaded.protocol.looks == (3,)
    assert loaded.protocol.pairs == Protocol().pairs
    assert loaded.gates.quality == "mlperf-99"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD + 'tehcniques = ["bf16"]', "tehcniques"),
        (GOOD + "[protocol]\nloosk = [5]", "Did you mean 'looks'?"),
        (GOOD + "[gates]\nqualty = 'mlperf-99'", "Did you mean 'quality'?"),
        (GOOD + "[gates]\nquality = 'mlperf-98'", "mlperf-99"),
        (GOOD + "[protocol]\nlooks = [5, 3]", "looks must rise"),
        (GOOD + "[protocol]\nlooks = []", "looks must rise"),
        (GOOD + "[protocol]\nspend = []", "spend must give"),
        (GOOD + "[protocol]\nspend = [0.9, 0.9]", "spend must give"),
        (GOOD + "[protocol]\nspend = [1.5, -0.5]", "spend must give"),
        (GOOD + "[protocol]\nlooks = [2, 3, 4, 5]", "spend must give"),
        (GOOD + "[protocol]\npairs = 3", "multiple of 2"),
        (GOOD + "[protocol]\nblock_seconds = inf", "finite"),
        (GOOD + "budget_seconds = 0", "greater than 0"),
        (GOOD.replace('["dcnv2"]', "[]"), "baselines"),
        (GOOD.replace('["dcnv2"]', '"dcnv2"'), "baselines"),
        (GOOD.replace("about", "abuot"), "about"),
        (GOOD + GOOD, "Cannot overwrite a value"),
        ("about = ", "not readable TOML"),
        ('about = "Größe"'.encode("latin-1"), "not readable TOML"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, text: str | bytes, said: str) -> None:
    with pytest.raises(LeanRecError) as caught:
        load_suite(write(tmp_path, text))
    assert said in str(caught.value)
    assert "toy.toml" in caught.value.cause


def test_a_typo_in_a_suites_name_offers_the_nearest() -> None:
    with pytest.raises(LeanRecError, match="Did you mean smoke"):
        load_suite("smok")


def test_a_folder_is_no_suite(tmp_path: Path) -> None:
    with pytest.raises(LeanRecError, match="Shipped: "):
        load_suite(str(tmp_path))


@given(st.binary(max_size=200))
def test_any_file_loads_or_is_refused_with_a_reason(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = write(tmp_path_factory.getbasetemp(), content, "any.toml")
    with pytest.raises(LeanRecError, match=r"any\.toml"):
        load_suite(path)


class TestNarrowed:
    def test_options_replace_what_the_suite_names(self) -> None:
        chosen = narrowed(suite(), ["two-tower"], ["bf16", "compile"], ["single-stream"], 60)
        assert chosen.baselines == ("two-tower",)
        assert chosen.stacks == ("bf16", "compile")
        assert chosen.scenarios == ("single-stream",)
        assert chosen.budget_seconds == 60

    def test_nothing_given_changes_nothing(self) -> None:
        assert narrowed(suite(budget_seconds=5)) == suite(budget_seconds=5)

    @pytest.mark.parametrize(
        ("given", "taken"),
        [
            ("int8-linear", "int8-linear(min_width=8)"),
            ("fast", "fast = int8-linear+bf16"),
            ("int8-linear(min_width=16)", "int8-linear(min_width=16)"),
            ("int8-linear+bf16", "int8-linear+bf16"),
            ("mine = bf16", "mine = bf16"),
        ],
    )
    def test_a_bare_name_keeps_the_suites_parameters(self, given: str, taken: str) -> None:
        assert narrowed(suite(), stacks=[given]).stacks == (taken,)

    def test_protocol_and_gates_are_kept(self) -> None:
        whole = suite(protocol={"looks": (3,)}, gates={"quality": "mlperf-99"})
        chosen = narrowed(whole, stacks=["bf16"])
        assert (chosen.protocol, chosen.gates) == (whole.protocol, whole.gates)

    @pytest.mark.parametrize("budget", [-1.0, 0.0, float("nan")])
    def test_a_budget_that_is_none_is_refused(self, budget: float) -> None:
        with pytest.raises(LeanRecError, match="budget_seconds"):
            narrowed(suite(), budget=budget)
