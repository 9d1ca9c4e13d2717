from __future__ import annotations

import dataclasses
import fcntl
import itertools
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_trials import DCNV2, FRAUDS

from baselines.base import DATASETS, Dataset, Recipe
from baselines.data import planted
from baselines.data.planted import Planted
from baselines.errors import LeanRecError
from baselines.models.dcnv2 import DCNv2Baseline
from baselines.registry import format_spec, load_plugin
from baselines.trainer import Epoch, NonFiniteLoss
from bench import pipeline as pipeline_module
from bench.checks import fingerprint
from bench.device import Device, get_device
from bench.pipeline import Pipeline, make_stack, stack_spec
from bench.store import Store
from techniques.base import TECHNIQUES, Change

CPU = get_device("cpu")
WIDE = 'dcnv2(dataset="planted(rows=1000, ids=300)", width=128, depth=2, cross_layers=1)'


@pytest.fixture(autouse=True)
def _plugin() -> None:
    load_plugin(FRAUDS)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def pipeline(
    store: Store, stack: str = "control", baseline: str = DCNV2, seed: int = 0
) -> Pipeline:
    return Pipeline.from_specs(baseline, stack, CPU, seed, store)


def test_a_control_is_trained_once_however_many_stacks_rest_on_it(store: Store) -> None:
    stacks = ["control", "honest", "int8-embedding", "int8-embedding+honest", "size-only"]
    trained = [pipeline(store, stack).train() for stack in stacks]
    assert [made for _, made in trained] == [True, False, False, False, False]
    assert len({path for path, _ in trained}) == 1


def test_a_control_is_trained_once_for_each_seed(store: Store) -> None:
    trained = [pipeline(store, seed=seed).train() for seed in (0, 1, 0, 1)]
    assert [made for _, made in trained] == [True, True, False, False]


def test_a_stack_that_changes_training_has_an_artefact_of_its_own(store: Store) -> None:
    one, two = (pipeline(store, f"retrained(epochs={n})+honest") for n in (1, 2))
    assert one.train()[1]
    assert two.train()[1]
    assert one.control().train()[1]
    assert not pipeline(store, "retrained(epochs=2)").train()[1]
    assert one.changes_training
    assert not one.control().changes_training
    assert len(one.history().epochs) == 1


def test_the_order_of_techniques_that_change_training_matters(store: Store) -> None:
    first = pipeline(store, "retrained+half-data").train()[0]
    assert pipeline(store, "half-data+retrained").train()[0] != first


def test_what_a_trained_artefact_depends_on(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    made = pipeline(store, baseline="small-towers").train()[0]
    others = [
        pipeline(store, baseline="small-towers", seed=1).train()[0],
        pipeline(store, "half-data", "small-towers").train()[0],
        pipeline(store, "retrained", "small-towers").train()[0],
        dataclasses.replace(
            pipeline(store, baseline="small-towers"), device=Device("other", torch.device("cpu"))
        ).train()[0],
    ]
    monkeypatch.setattr(pipeline_module, "code_version", lambda classes: "edited")
    others.append(pipeline(store, baseline="small-towers").train()[0])
    assert len({made, *others}) == 6


def test_only_a_stack_that_prepares_has_data_of_its_own(store: Store) -> None:
    control, same, half = (pipeline(store, s) for s in ("control", "retrained", "half-data"))
    assert same.data_digest == control.data_digest
    assert half.data_digest != control.data_digest
    assert len(half.data.train) == len(control.data.train) // 2
    assert torch.equal(half.data.test.labels, control.data.test.labels)


@pytest.mark.parametrize("baseline", [DCNV2, "small-towers"])
def test_data_comes_back_as_it_was(store: Store, baseline: str) -> None:
    whole = pipeline(store, baseline=baseline)
    made, read = whole.baseline.data(), whole.data
    assert read.digest == made.digest == whole.data_digest
    for field in dataclasses.fields(Dataset):
        if field.name not in ("train", "valid", "test"):
            assert getattr(read, field.name) == getattr(made, field.name)
    for split in ("train", "valid", "test"):
        _same_split(made, read, split)


def test_what_is_said_of_the_data_comes_back_too(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pipeline(store)
    said = dataclasses.replace(
        whole.baseline.data(), numeric=("price",), texts=("a \u2013 film", ""), repeats=True
    )
    monkeypatch.setattr(type(whole.baseline), "data", lambda self: said)
    read = whole.data
    assert (read.numeric, read.texts, read.repeats) == (said.numeric, said.texts, True)
    assert read.digest == said.digest != dataclasses.replace(said, texts=()).digest


@dataclass(frozen=True)
class SizedByFile(Planted):
    """Planted data of as many rows as a file says."""

    path: str = ""

    def ctr(self, history: int = 0) -> Dataset:
        return planted.ctr(rows=int(Path(self.path).read_text()), ids=20, fields=3)


def test_a_users_file_that_changed_is_read_anew(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DATASETS._classes, "sized-by-file", SizedByFile)
    monkeypatch.setattr(SizedByFile, "name", "sized-by-file", raising=False)
    file = tmp_path / "rows.txt"
    source = format_spec(SizedByFile(path=str(file)))

    def rows(to_read: str) -> int:
        file.write_text(to_read)
        data = Pipeline(DCNv2Baseline(dataset=source), (), CPU, 0, store).data
        return sum(map(len, (data.train, data.valid, data.test)))

    assert [rows("1000"), rows("1000"), rows("2000")] == [1000, 1000, 2000]


class KilledError(Exception):
    """Stands for the kill of a training."""


def test_a_killed_training_goes_on_and_leaves_nothing_behind(store: Store, tmp_path: Path) -> None:
    slow = Pipeline(
        DCNv2Baseline(dataset="planted(rows=2000, ids=100)", width=16), (), CPU, 0, store
    )
    heard: list[Epoch] = []

    def kill(epoch: Epoch) -> None:
        raise KilledError

    with pytest.raises(KilledError):
        slow.train(kill)
    assert [p.suffix for p in (store.root / "trained").iterdir() if p.is_dir()] == [".checkpoint"]
    slow.train(heard.append)
    whole = dataclasses.replace(slow, store=Store(tmp_path / "elsewhere"))
    assert fingerprint(slow.trained_model()) == fingerprint(whole.trained_model())
    assert len(heard) == len(whole.history().epochs) - 1
    assert [p.suffix for p in (store.root / "trained").iterdir() if p.is_dir()] == [""]


def test_of_a_training_one_checkpoint_is_kept_unless_another_process_writes_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(epoch: Epoch) -> None:
        raise KilledError

    def checkpoints() -> set[str]:
        return {path.name for path in (store.root / "trained").glob("*.checkpoint")}

    def killed(code: str, seed: int = 0) -> str:
        """Train for an epoch; the name of the checkpoint that is new."""
        before = checkpoints()
        monkeypatch.setattr(pipeline_module, "code_version", lambda classes: code)
        with pytest.raises(KilledError):
            pipeline(store, seed=seed).train(kill)
        (made,) = checkpoints() - before
        return made

    killed("old")
    other_seed, new = killed("old", seed=1), killed("new")
    assert checkpoints() == {other_seed, new}
    lock = store.root / "trained" / new.replace(new[new.index(".") :], ".lock")
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        newer = killed("newer")
        assert checkpoints() == {other_seed, new, newer}
    pipeline(store).train()
    assert checkpoints() == {other_seed}


def test_a_training_that_diverges_leaves_nothing_behind(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DCNv2Baseline, "recipe", property(lambda self: Recipe(lr=1e38)))
    with pytest.raises(NonFiniteLoss):
        pipeline(store).train()
    assert not [p for p in (store.root / "trained").iterdir() if p.is_dir()]


def _same_split(made: Dataset, read: Dataset, name: str) -> None:
    a, b = getattr(made, name), getattr(read, name)
    assert len(a.inputs) == len(b.inputs)
    assert a.segments.keys() == b.segments.keys()
    pairs = [
        *zip(a.inputs, b.inputs, strict=True),
        *((a.segments[k], b.segments[k]) for k in a.segments),
        *((getattr(a, k), getattr(b, k)) for k in ("labels", "users", "items")),
    ]
    for x, y in pairs:
        assert x.dtype == y.dtype
        assert torch.equal(x, y)


def test_the_trained_model_is_the_one_that_was_trained(store: Store, tmp_path: Path) -> None:
    first, again = pipeline(store).trained_model(), pipeline(store).trained_model()
    assert fingerprint(first) == fingerprint(again)
    assert not first.training
    elsewhere = pipeline(Store(tmp_path / "elsewhere")).trained_model()
    assert fingerprint(first) == fingerprint(elsewhere)
    assert fingerprint(first) != fingerprint(pipeline(store, seed=1).trained_model())
    assert fingerprint(first) != fingerprint(pipeline(store).fresh_model(torch.device("cpu")))


def test_the_history_comes_back_as_it_was(store: Store) -> None:
    seen = []
    control = pipeline(store)
    control.train(on_epoch=seen.append)
    history = control.history()
    assert list(history.epochs) == seen
    assert history.metric == "auc"
    assert history.epochs[history.best].valid == max(e.valid for e in seen)


def test_a_fresh_model_depends_on_the_seed_alone(store: Store) -> None:
    cpu = torch.device("cpu")
    torch.manual_seed(99)
    first = fingerprint(pipeline(store).fresh_model(cpu))
    torch.manual_seed(7)
    assert fingerprint(pipeline(store).fresh_model(cpu)) == first
    assert fingerprint(pipeline(store, seed=1).fresh_model(cpu)) != first


def test_a_model_of_shapes_alone_holds_no_bytes(store: Store) -> None:
    model = pipeline(store).fresh_model(torch.device("meta"))
    assert {tensor.device.type for tensor in (*model.parameters(), *model.buffers())} == {"meta"}


@pytest.mark.parametrize("stack", ["int8-linear", "int8-embedding", "int8-linear+int8-embedding"])
def test_compressing_never_touches_the_control(store: Store, stack: str) -> None:
    treatment = pipeline(store, stack, WIDE)
    model = treatment.control().trained_model()
    batch = treatment.baseline.task.requests(treatment.data, 64, 1, 0)[0]
    with torch.inference_mode():
        before = fingerprint(model), model(*batch).clone()
        served = treatment.predictor(model)
        served(*batch)
        assert fingerprint(model) == before[0]
        assert torch.equal(model(*batch), before[1])


def test_techniques_are_applied_in_the_order_named(store: Store) -> None:
    outer = pipeline(store, "size-only+honest").predictor(torch.nn.Identity())
    assert [type(m).__name__ for m in (outer, outer.predictor)] == ["Wrapper", "SlightlyOff"]


def test_where_a_stack_does_not_apply_the_reason_names_the_technique(store: Store) -> None:
    reason = pipeline(store, "honest+int8-linear", "small-towers").reason_against()
    assert reason is not None
    assert reason.startswith("int8-linear ")
    assert pipeline(store, "honest+int8-linear", WIDE).reason_against() is None


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("int8-linaer", "Did you mean int8-linear"),
        ("bf16+bf16", "names 'bf16' twice"),
        ("bf16+", "not of the form"),
        ("retrained(epochs=1)+retrained(epochs=2)", "names 'retrained' twice"),
        ("retrained(epochs=many)", "not of the form"),
        ('retrained(epochs="many")', "epochs"),
        ("bf16+control", "Unknown technique 'control'"),
    ],
)
def test_a_stack_that_cannot_be_is_refused(text: str, cause: str) -> None:
    with pytest.raises(LeanRecError, match=cause.replace("(", r"\(")):
        make_stack(text)


@pytest.mark.parametrize("how", ["a+b", "a(b", "a)+(b", '\\"+', "'+"])
def test_signs_inside_a_parameter_do_not_part_the_stack(how: str) -> None:
    mutates, honest = make_stack(f'mutates(how="{how}")+honest')
    assert mutates.how == how.replace("\\", "")  # type: ignore[attr-defined]
    assert honest.name == "honest"


BUILT_IN = ["bf16", "compile", "int8-embedding", "int8-linear"]


@given(st.lists(st.sampled_from(BUILT_IN), unique=True))
def test_the_text_of_a_stack_comes_back(names: list[str]) -> None:
    stack = tuple(TECHNIQUES.make(name) for name in names)
    assert stack_spec(stack) == ("+".join(names) or "control")
    assert make_stack(stack_spec(stack)) == stack


def test_stacks_of_parameters_come_back() -> None:
    for epochs, how in itertools.product((1, 3), ("weights", 'a "quoted" + (one)')):
        stack = make_stack("mutates+retrained")
        changed = tuple(
            dataclasses.replace(t, **{"epochs": epochs} if t.name == "retrained" else {"how": how})
            for t in stack
        )
        assert make_stack(stack_spec(changed)) == changed
    assert Change.NUMERICS in stack[0].changes
