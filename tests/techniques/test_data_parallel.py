"""Ranks in processes of their own against one process: the same weights, and what was sent."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rank_cases import DATA

pytestmark = pytest.mark.slow

DCNV2 = f"dcnv2({DATA}, dropout=0.0, width=64, depth=2)"
SASREC = 'sasrec(dataset="planted(rows=2000, ids=300)", dropout=0.0, length=50)'
TWO = [
    ("ddp", DCNV2),
    ("ddp", SASREC),
    ("ddp-accumulate", DCNV2),
    ("ddp-compress", DCNV2),
    ("ddp-powersgd", DCNV2),
    ("ddp-local-sgd(period=2, warmup=2)", DCNV2),
    ("zero", DCNV2),
    ("fsdp", DCNV2),
    ("embedding-shard", DCNV2),
]
FOUR = [
    ("ddp(ranks=4)", DCNV2),
    ("ddp-hierarchical(period=1, rounds=2, warmup=2)", DCNV2),
]
EXACT = [
    ("ddp", DCNV2),
    ("ddp", SASREC),
    ("zero", DCNV2),
    ("fsdp", DCNV2),
    ("embedding-shard", DCNV2),
]
Seen = dict[str, Any]
REBUILT = 5  # by then DDP has told the other ranks once how it orders gradients: 60 bytes
TIMEOUT = 300  # seconds, on a host that does much else


def run(ranks: int, cases: list[tuple[str, str]], folder: Path) -> Seen:
    script, out = Path(__file__).with_name("rank_cases.py"), folder / "seen.json"
    root = str(Path(__file__).parents[2])
    processes = [
        subprocess.Popen(
            [sys.executable, script, str(rank), str(ranks), folder / "meeting",
             json.dumps(cases), out],
            env={**os.environ, "PYTHONPATH": root, "GLOO_SOCKET_IFNAME": "lo",
                 "OMP_NUM_THREADS": "1"},
        )
        for rank in range(ranks)
    ]  # fmt: skip
    try:
        assert [process.wait(TIMEOUT) for process in processes] == [0] * ranks
    finally:
        for process in processes:
            process.kill()
    seen: Seen = json.loads(out.read_text())
    return seen


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    return run(2, TWO, tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    return run(4, FOUR, tmp_path_factory.mktemp("four"))


@pytest.mark.parametrize("case", EXACT)
def test_two_ranks_come_to_the_weights_of_one_process(two: Seen, case: tuple[str, str]) -> None:
    seen = two["/".join(case)]
    assert seen["off"] < 1e-4
    assert seen["settled"]


@pytest.mark.parametrize("case", EXACT)
def test_what_is_saved_is_enough_to_go_on(two: Seen, case: tuple[str, str]) -> None:
    assert two["/".join(case)]["resumed_off"] < 1e-5


def test_so_do_four(four: Seen) -> None:
    assert four[f"ddp(ranks=4)/{DCNV2}"]["off"] < 1e-4


def test_an_accumulated_update_is_that_of_the_batches_together(two: Seen) -> None:
    seen = two[f"ddp-accumulate/{DCNV2}"]
    assert seen["off"] < 1e-4
    assert [collectives for collectives, *_ in seen["steps"][REBUILT:]] == [0, 0, 1]


def test_what_ddp_sends_for_a_batch_is_its_weights_tables_included(two: Seen, four: Seen) -> None:
    for seen, ranks in ((two[f"ddp/{DCNV2}"], 2), (four[f"ddp(ranks=4)/{DCNV2}"], 4)):
        for collectives, payload, sent in seen["steps"][REBUILT:]:
            assert collectives >= 1
            assert payload == seen["weights"]
            assert sent == pytest.approx(2 * (ranks - 1) / ranks * payload)


def test_bf16_halves_the_bytes_and_moves_the_weights_little(two: Seen) -> None:
    seen = two[f"ddp-compress/{DCNV2}"]
    assert seen["steps"][-1][1] == seen["weights"] / 2
    assert 0 < seen["off"] < 0.1


def test_powersgd_sends_thin_matrices_and_all_ranks_update_alike(two: Seen) -> None:
    seen = two[f"ddp-powersgd/{DCNV2}"]
    sizes = [(shape[0], math.prod(shape[1:])) for shape in seen["shapes"]]
    numbers = sum(min(2 * (n + m) if m > 1 else n, n * m) for n, m in sizes)
    assert [payload for _, payload, _ in seen["steps"][REBUILT:]] == [4 * numbers] * 3
    assert 4 * numbers < seen["weights"] / 3
    assert 0 < seen["off"] < 0.5
    assert seen["settled"]
    assert seen["apart"] == 0
    (alone, *_), ranks = seen["state"]
    assert all(
        alone + 0.9 * seen["weights"] < held < alone + 1.5 * seen["weights"] for held in ranks
    )


def test_local_ranks_drift_apart_and_are_averaged_once_in_a_period(two: Seen) -> None:
    seen = two[f"ddp-local-sgd(period=2, warmup=2)/{DCNV2}"]
    assert [payload for _, payload, _ in seen["steps"][2:]] == [seen["weights"], 0] * 3
    assert seen["apart"] > 0
    assert seen["settled"]


def test_groups_average_more_often_than_all(four: Seen) -> None:
    seen = four[f"ddp-hierarchical(period=1, rounds=2, warmup=2)/{DCNV2}"]
    sent = [step[2] for step in seen["steps"][2:]]
    in_groups, over_all = seen["weights"], 1.5 * seen["weights"]
    assert sent == pytest.approx([over_all, in_groups] * 3)
    assert seen["settled"]


def test_zero_and_fsdp_split_what_ddp_repeats(two: Seen) -> None:
    whole = two[f"ddp/{DCNV2}"]["weights"]
    (alone, *_), ranks = two[f"zero/{DCNV2}"]["state"]
    assert alone == pytest.approx(3 * whole, rel=0.01)
    assert sum(ranks) == pytest.approx(4 * whole, rel=0.01)  # weights twice, each moment once
    assert max(ranks) < alone
    assert sum(two[f"fsdp/{DCNV2}"]["state"][1]) == pytest.approx(3 * whole, rel=0.01)


def test_sharded_tables_are_held_once_and_less_is_sent_than_they_hold(two: Seen) -> None:
    seen = two[f"embedding-shard/{DCNV2}"]
    ((rows, width), *_) = seen["shapes"]
    table = 4 * rows * width
    assert sum(seen["state"][1]) == pytest.approx(6 * seen["weights"] - 3 * table, rel=0.01)
    assert all(payload < seen["weights"] for _, payload, _ in seen["steps"])


@pytest.mark.parametrize("rows", ["37", "3"])
def test_a_sharded_table_gives_its_rows_and_sends_each_once(
    two: Seen, four: Seen, rows: str
) -> None:
    for ranks in (two, four):
        seen = ranks["looked_up"][rows]
        assert seen["off"] == 0
        assert seen["gradient_off"] < 1e-6
        assert seen["payload"] == seen["counted_by_hand"]


def test_gradients_are_clipped_by_the_norm_of_all_parts(two: Seen, four: Seen) -> None:
    assert abs(two["norm"]["off"]) < 1e-4
    assert abs(four["norm"]["off"]) < 1e-4


def test_a_recipe_for_other_ranks_is_refused(two: Seen) -> None:
    assert "recipe is for 3 ranks, and this process is one of 2." in two["refused"]["said"]
