"""Names, specs and plug-ins: what is right is found, what is wrong is said."""

from __future__ import annotations

import importlib.metadata
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from baselines.base import BASELINES
from baselines.errors import LeanRecError
from baselines.registry import Registry, format_spec, load_plugin, parse_spec
from techniques.base import TECHNIQUES


class Spice:
    """The kind of plug-in of these tests."""

    name: ClassVar[str]


@pytest.fixture
def spices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry[Spice]]:
    """A registry over a package of its own, which holds nothing yet."""
    package = tmp_path / "spice_rack"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    yield Registry("spice", "spice_rack", "test.spices")
    for module in [m for m in sys.modules if m.startswith(("spice_rack", "leanrec_plugin_"))]:
        del sys.modules[module]


@pytest.fixture
def pepper(spices: Registry[Spice]) -> type[Spice]:
    """A spice with a parameter of each type, registered."""

    @spices.register("black-pepper")
    @dataclass(frozen=True)
    class Pepper(Spice):
        heat: Annotated[float, Field(gt=0, lt=10)] = 1.0
        grains: int = 5
        whole: bool = True
        origin: Literal["Kampot", "Malabar"] = "Kampot"
        label: str = ""
        sizes: tuple[int, ...] = ()

    return Pepper


def test_names_are_sorted_and_get_finds_them(spices: Registry[Spice], pepper: type[Spice]) -> None:
    other = spices.register("allspice")(dataclass(frozen=True)(type("Allspice", (Spice,), {})))
    assert spices.names() == ["allspice", "black-pepper"]
    assert spices.get("black-pepper") is pepper
    assert spices.get("allspice") is other
    assert other.name == "allspice"


@pytest.mark.parametrize(
    ("typo", "near"), [("black-peper", "black-pepper"), ("pepper", "black-pepper")]
)
def test_a_typo_is_answered_with_the_nearest_name(
    spices: Registry[Spice], pepper: type[Spice], typo: str, near: str
) -> None:
    with pytest.raises(LeanRecError) as error:
        spices.make(typo)
    assert error.value.cause == f"Unknown spice {typo!r}."
    assert f"Did you mean {near}?" in error.value.fix


def test_a_name_like_no_other_is_answered_with_all(
    spices: Registry[Spice], pepper: type[Spice]
) -> None:
    with pytest.raises(LeanRecError) as error:
        spices.get("zzz")
    assert error.value.fix == "Known: black-pepper."


@pytest.mark.parametrize(
    ("registry", "typo", "near"),
    [
        (TECHNIQUES, "int8-liner", "int8-linear"),
        (TECHNIQUES, "prune", "prune-structured"),
        (TECHNIQUES, "bf-16", "bf16"),
        (BASELINES, "two-towers", "two-tower"),
        (BASELINES, "dcn", "dcnv2"),
    ],
)
def test_the_projects_own_names_are_suggested(
    registry: Registry[Any], typo: str, near: str
) -> None:
    with pytest.raises(LeanRecError) as error:
        registry.make(typo)
    assert near in error.value.fix.split("?")[0]


@pytest.mark.parametrize("name", ["", "Pepper", "black pepper", "a+b", "-a", "a(b)", "poivre-é"])
def test_a_name_that_a_suite_could_not_hold_is_refused(spices: Registry[Spice], name: str) -> None:
    with pytest.raises(LeanRecError, match="lower case words"):
        spices.register(name)


def test_a_name_held_by_another_class_is_refused(
    spices: Registry[Spice], pepper: type[Spice]
) -> None:
    class Other(Spice):
        pass

    with pytest.raises(LeanRecError, match="registered twice"):
        spices.register("black-pepper")(Other)
    assert spices.register("black-pepper")(pepper) is pepper
    assert spices.get("black-pepper") is pepper


def test_parameters_are_made_and_checked(spices: Registry[Spice], pepper: type[Any]) -> None:
    spec = 'black-pepper(heat = 2, whole=false, origin="Malabar", label="é+(\\"", sizes=[1, 2])'
    assert spices.make(spec) == pepper(
        heat=2.0, whole=False, origin="Malabar", label='é+("', sizes=(1, 2)
    )
    assert spices.make(" black-pepper ( ) ") == pepper()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ("heat=10", "'heat': Input should be less than 10 (got 10)"),
        ("heat=nan", "'heat'"),
        ('grains="many"', "'grains'"),
        ("grains=1.5", "'grains'"),
        ('origin="Mars"', "'origin'"),
    ],
)
def test_a_value_that_does_not_fit_is_named(
    spices: Registry[Spice], pepper: type[Spice], args: str, said: str
) -> None:
    with pytest.raises(LeanRecError) as error:
        spices.make(f"black-pepper({args})")
    assert said in error.value.cause
    assert error.value.cause.startswith("spice 'black-pepper'")


def test_an_unknown_parameter_is_answered_with_the_nearest(
    spices: Registry[Spice], pepper: type[Spice]
) -> None:
    with pytest.raises(LeanRecError) as error:
        spices.make("black-pepper(grain=3)")
    assert "no parameter 'grain'" in error.value.cause
    assert "Did you mean 'grains'?" in error.value.fix
    with pytest.raises(LeanRecError, match="Known: grains, heat, label, origin, sizes, whole"):
        spices.make("black-pepper(q=3)")


@pytest.mark.parametrize(
    "spec",
    [
        "", "   ", "(a=1)", "a(", "a)", "a(b)", "a(b=)", "a(b=c)", "a(b=1) c", "a b",
        "a(b=1, b=2)", "a(b=__import__('os'))", "a(b=1}, x={)", "a(b=1}\nw={c=2)", "a(b=1\nc=2)",
    ],
)  # fmt: skip
def test_a_malformed_spec_is_an_error(spec: str) -> None:
    with pytest.raises(LeanRecError, match="is not of the form"):
        parse_spec(spec)


@pytest.mark.parametrize(
    ("spec", "parsed"),
    [
        ("a", ("a", {})),
        (" a ", ("a", {})),
        ("a()", ("a", {})),
        ("a(b=1)", ("a", {"b": 1})),
        ('a (b = 1.5 , c = "x)y(", d=[true, false])',
         ("a", {"b": 1.5, "c": "x)y(", "d": [True, False]})),
    ],
)  # fmt: skip
def test_a_spec_is_split(spec: str, parsed: tuple[str, dict[str, Any]]) -> None:
    assert parse_spec(spec) == parsed


def test_only_what_differs_from_its_default_is_written(pepper: type[Any]) -> None:
    assert format_spec(pepper()) == "black-pepper"
    assert format_spec(pepper(heat=1.0, grains=6)) == "black-pepper(grains=6)"
    assert format_spec(pepper(whole=False, sizes=(1, 2))) == (
        "black-pepper(whole=false, sizes=[1, 2])"
    )


@dataclass(frozen=True)
class Plain(Spice):
    """A parameter of each type, not registered."""

    name = "plain"
    ratio: float = 0.5
    count: int = 1
    on: bool = True
    text: str = ""
    numbers: tuple[float, ...] = ()


numbers = st.floats(allow_nan=False, allow_infinity=False)
plains = st.builds(
    Plain,
    numbers,
    st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
    st.text(st.characters(exclude_categories=("Cs",))),
    st.lists(numbers).map(tuple),
)


@given(plains)
def test_every_value_survives_being_written_and_read(plain: Plain) -> None:
    name, params = parse_spec(format_spec(plain))
    params = {k: tuple(v) if isinstance(v, list) else v for k, v in params.items()}
    assert name == "plain"
    assert Plain(**params) == plain


PLUGIN = """
from dataclasses import dataclass
from baselines.base import BASELINES as registry

@registry.register("{name}")
@dataclass(frozen=True)
class Mine:
    pass
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes a plug-in file; what it registers is forgotten after the test."""
    BASELINES.names()
    monkeypatch.setattr(BASELINES, "_classes", dict(BASELINES._classes))

    def write(text: str, name: str = "mine.py") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_a_plugin_file_registers_what_it_defines(plugin: Callable[..., Path]) -> None:
    path = plugin(PLUGIN.format(name="my-own"), "mine 'é\".py")
    load_plugin(path)
    load_plugin(path.parent / ".." / path.parent.name / path.name)  # the same file: once
    assert BASELINES.make("my-own").name == "my-own"


def test_two_plugin_files_of_one_name_are_both_loaded(plugin: Callable[..., Path]) -> None:
    load_plugin(plugin(PLUGIN.format(name="one")))
    path = plugin(PLUGIN.format(name="two"))
    other = path.parent / "elsewhere" / path.name
    other.parent.mkdir()
    path.rename(other)
    load_plugin(other)
    assert {"one", "two"} <= set(BASELINES.names())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\nraise ValueError('no good')\n", "line 2: ValueError: no good"),
        ("import no_such_module\n", "line 1: ModuleNotFoundError"),
        ("def f(:\n", "line 1: SyntaxError"),
        ("import sys\nsys.exit(3)\n", "line 2: SystemExit: 3"),
        ("import json\n\njson.loads('{')\n", "line 3: JSONDecodeError"),
    ],
)
def test_a_plugin_that_fails_to_import_is_an_error_with_its_line(
    plugin: Callable[..., Path], text: str, said: str
) -> None:
    path = plugin(text)
    for _ in range(2):  # a failed import leaves nothing half-loaded behind
        with pytest.raises(LeanRecError) as error:
            load_plugin(path)
        assert said in error.value.cause
        assert str(path) in error.value.cause


def test_a_plugins_own_complaint_is_passed_on(plugin: Callable[..., Path]) -> None:
    load_plugin(plugin(PLUGIN.format(name="mine"), "first.py"))
    with pytest.raises(LeanRecError, match="registered twice"):  # though both are called Mine
        load_plugin(plugin(PLUGIN.format(name="mine"), "second.py"))


@pytest.mark.parametrize("name", ["missing.py", "folder", "text.txt"])
def test_what_is_not_a_python_file_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.txt").write_text("hello")
    with pytest.raises(LeanRecError, match="does not exist or is not a Python file"):
        load_plugin(tmp_path / name)


def test_modules_of_the_package_are_found(spices: Registry[Spice], tmp_path: Path) -> None:
    (tmp_path / "spice_rack" / "found.py").write_text("import sys\nsys.modules['spice_seen'] = 1\n")
    spices.names()
    assert sys.modules.pop("spice_seen") == 1


def entry_points(*values: str) -> Callable[..., list[importlib.metadata.EntryPoint]]:
    """Stands in for what installed packages announce."""

    def find(group: str) -> list[importlib.metadata.EntryPoint]:
        return [importlib.metadata.EntryPoint("theirs", value, group) for value in values]

    return find


def test_entry_points_are_loaded_once(
    spices: Registry[Spice], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "spice_rack_theirs.py").write_text("count = 0\ndef load(): pass\ncount += 1\n")
    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points("spice_rack_theirs:load"))
    spices.names()
    spices.names()
    assert sys.modules["spice_rack_theirs"].count == 1


def test_an_entry_point_that_raises_is_an_error_that_names_it(
    spices: Registry[Spice], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "spice_rack_broken.py").write_text("1 / 0\n")
    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points("spice_rack_broken"))
    for _ in range(2):  # and goes on being one
        with pytest.raises(LeanRecError, match=r"'theirs' of test\.spices.*line 1.*ZeroDiv"):
            spices.names()


@pytest.mark.slow
@pytest.mark.parametrize("handler", ["SIG_DFL", "default_int_handler"])
def test_finding_data_sources_leaves_ctrl_c_as_it_was(handler: str) -> None:
    """In a process of its own that waits for a lock, as the runner waits for workers."""
    program = (
        "import signal, threading\n"
        f"signal.signal(signal.SIGINT, signal.{handler})\n"
        "from baselines.base import DATASETS\n"
        "DATASETS.names()\n"
        "print('waits', flush=True)\n"
        "threading.Event().wait()\n"
    )
    waiting = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert waiting.stdout is not None
    assert waiting.stdout.readline() == "waits\n"
    waiting.send_signal(signal.SIGINT)
    try:
        _, said = waiting.communicate(timeout=120)
    finally:
        waiting.kill()
    assert waiting.returncode == -signal.SIGINT
    assert ("KeyboardInterrupt" in said) == (handler != "SIG_DFL")
