"""profile.json: written, read, and refused where it is not what it should be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_profile import made_profile

from baselines.errors import LeanRecError
from bench.profiles.record import FILE, LARGEST, read_profile, write_profile


def test_a_profile_comes_back_as_it_was(tmp_path: Path) -> None:
    profile = made_profile()
    assert write_profile(tmp_path, profile) == tmp_path / FILE
    assert read_profile(tmp_path) == profile


def wrong(change: Callable[[dict[str, Any]], None]) -> str:
    content = made_profile().model_dump(mode="json")
    change(content)
    return json.dumps(content)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Invalid JSON"),
        ('{"version": 1', "Invalid JSON"),
        ("[]", "should be an object"),
        (wrong(lambda p: p.update(version=2)), "version"),
        (wrong(lambda p: p.update(surprise=1)), "surprise"),
        (wrong(lambda p: p["arms"].reverse()), "control and treatment"),
        (wrong(lambda p: p["arms"].pop()), "arms"),
        (wrong(lambda p: p["arms"][0]["seen"]["parts"].update(compute=1)), "add up"),
        (wrong(lambda p: p["arms"][0]["seen"].update(wall_us=float("inf"))), "wall_us"),
        (wrong(lambda p: p["arms"][0]["seen"]["operators"][0].update(self_us=-1)), "self_us"),
        (wrong(lambda p: p["arms"][0]["seen"]["operators"][0].update(self_us=1e9)), "take"),
        (
            wrong(lambda p: p["arms"][0]["seen"]["operators"].append(
                {**p["arms"][0]["seen"]["operators"][0], "self_us": 0})),
            "twice",
        ),
        (wrong(lambda p: p["arms"][0].update(trace="../../etc/passwd")), "trace"),
        (wrong(lambda p: p["arms"][0].update(trace="a/b; rm -rf c")), "trace"),
        (wrong(lambda p: p["clock"].update(gains=[])), "gains"),
        (wrong(lambda p: p["peaks"].update(flops=0)), "flops"),
        (" " * (LARGEST + 1), "16 MiB"),
    ],
)  # fmt: skip
def test_a_corrupt_profile_is_said_with_a_way_out(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / FILE).write_text(text, encoding="utf-8")
    with pytest.raises(LeanRecError, match="Make it anew") as error:
        read_profile(tmp_path)
    assert said in error.value.cause


def test_no_profile_is_said(tmp_path: Path) -> None:
    with pytest.raises(LeanRecError, match="No such file"):
        read_profile(tmp_path)
