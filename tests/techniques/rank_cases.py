"""One rank of the trainings that test_data_parallel.py looks at: `RANK RANKS MEETING CASES OUT`.

All ranks train each case and, for comparison, the same batches in one process. The first rank
writes what was seen as JSON.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from baselines.base import BASELINES, Batch, Recipe
from baselines.errors import LeanRecError
from baselines.trainer import Trainer
from bench.collectives import join_group
from bench.rank import state_bytes
from techniques.base import TECHNIQUES, Context
from techniques.distributed.sharded_tables import ShardedTable, TableSharded

CPU = torch.device("cpu")
STEPS = 8
DATA = 'dataset="planted(rows=2000, ids=300)"'


def flat(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def mean_of(batches: list[Batch]) -> Batch:
    """Equal batches as one, whose mean loss is the mean of theirs."""
    return tuple(map(torch.cat, zip(*batches, strict=True)))


def train(stack: str, baseline: str, ranks: int) -> dict[str, object]:
    made = BASELINES.make(baseline)
    data, task = made.data(), made.task
    torch.manual_seed(0)
    model = made.build(data)
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(
                module.weight, std=0.1
            )  # else gradients so small that Adam divides noise
    recipe = dataclasses.replace(made.recipe, batch_size=33)
    technique = TECHNIQUES.make(stack)
    changed: Recipe = technique.train(recipe, Context(task.name, CPU, 0))
    control = dataclasses.replace(changed, parallel=None)
    alone = Trainer(copy.deepcopy(model), task, control, CPU, seed=0)
    together = Trainer(model, task, changed, CPU, seed=0)
    traffic.take()

    batches = [b for b, _ in zip(together.batches(data), range(STEPS), strict=False)]
    if task.name == "ctr" and "accumulate" not in stack:
        batches[-1] = tuple(column[:1] for column in batches[-1])  # a rank has no row of it
    steps = []
    for number, batch in enumerate(batches):
        together.step(batch, last=number == len(batches) - 1)
        taken = traffic.take()
        steps.append([taken.collectives, taken.payload, taken.sent])
        if "accumulate" not in stack:
            alone.step(batch)
    if "accumulate" in stack:
        for start in range(0, STEPS, technique.batches):
            alone.step(mean_of(batches[start : start + technique.batches]))
    mine = flat(model)
    whole = [torch.empty_like(mine) for _ in range(ranks)]
    dist.all_gather(whole, mine)
    together._team.settle()
    settled = [torch.empty_like(mine) for _ in range(ranks)]
    dist.all_gather(settled, flat(model))
    expected = flat(alone.model)
    return {
        "resumed_off": resumed_off(together, batches[0]),
        "off": float((settled[0] - expected).abs().max() / expected.abs().max()),
        "apart": max(float((other - whole[0]).abs().max()) for other in whole),
        "settled": all(torch.equal(other, settled[0]) for other in settled),
        "steps": steps,
        "weights": mine.nbytes,
        "shapes": [list(p.shape) for p in model.parameters()],
        "state": [
            together._team.gather(torch.tensor(state_bytes(t))).tolist() for t in (alone, together)
        ],
    }


def resumed_off(trainer: Trainer, batch: Batch) -> float:
    """How far weights get from those of a trainer that goes on from this one's saved state."""
    team, file = trainer._team, Path(meeting + "-state")
    again = Trainer(copy.deepcopy(trainer.model), trainer.task, trainer.recipe, CPU, seed=0)
    state = [team.state_of(optimiser) for optimiser in trainer.optimisers]
    if team.rank == 0:
        torch.save(state, file)
    dist.barrier()
    for optimiser, saved in zip(again.optimisers, torch.load(file), strict=True):
        again._team.load(optimiser, saved)
    again._team.resume(STEPS)
    dist.barrier()
    for one in (trainer, again):
        one.step(batch, last=True)
        one._team.settle()
    return float((flat(trainer.model) - flat(again.model)).abs().max())


def refusal(stack: str, baseline: str) -> str:
    """What is said where the ranks do not suit the technique."""
    made = BASELINES.make(baseline)
    recipe = TECHNIQUES.make(stack).train(made.recipe, Context("ctr", CPU, 0))
    try:
        Trainer(made.build(made.data()), made.task, recipe, CPU, seed=0)
    except LeanRecError as error:
        return str(error)
    return ""


def looked_up(rows: int, rank: int, ranks: int) -> dict[str, float]:
    """A sharded table against the whole, with other ids on every rank."""
    torch.manual_seed(0)
    whole, weight = nn.Embedding(rows, 8), torch.randn(rows, 8)
    sharded = ShardedTable(whole)
    asked = [torch.randint(rows, (5 + 3 * r, 2)) for r in range(ranks)]
    traffic.take()
    vectors = sharded(asked[rank])
    (vectors * weight[asked[rank]]).sum().backward()
    payload = traffic.take().payload
    expected = [whole(ids) for ids in asked]
    for ids, rows_of_rank in zip(asked, expected, strict=True):
        (rows_of_rank * weight[ids]).sum().div(ranks).backward()
    distinct = [set(ids.flatten().tolist()) for ids in asked]
    mine = range(sharded.first, sharded.first + len(sharded.part.weight))
    handed = sum(i in mine for ids in distinct for i in ids)
    wrong = sharded.part.weight.grad - sharded.own(whole.weight.grad)
    return {
        "off": float((vectors - expected[rank]).detach().abs().max()),
        "gradient_off": float(wrong.abs().max()) if len(wrong) else 0.0,
        "payload": payload,
        "counted_by_hand": 8 * ranks + (8 + 32) * len(distinct[rank]) + 32 * handed,
    }


def norm_off() -> float:
    """How far the norm of sharded gradients is from that of whole ones."""
    team = TableSharded(nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 1)))
    (sharded,), whole = team.tables.values(), torch.arange(28.0).view(7, 4)
    for parameter in team.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    sharded.part.weight.grad = sharded.own(whole)
    norm = team.norm(torch.nn.utils.get_total_norm([p.grad for p in team.model.parameters()]))
    return float(norm - torch.nn.utils.get_total_norm([whole, torch.ones(5)]))


if __name__ == "__main__":
    place, size, meeting, cases, out = sys.argv[1:]
    traffic = join_group(CPU, meeting, int(place), int(size), None)
    seen = {}
    for case in json.loads(cases):
        stack, baseline = case
        seen["/".join(case)] = train(stack, baseline, int(size))
    seen["refused"] = {"said": refusal(f"ddp(ranks={int(size) + 1})", f"dcnv2({DATA})")}
    seen["looked_up"] = {rows: looked_up(rows, int(place), int(size)) for rows in (37, 3)}
    seen["norm"] = {"off": norm_off()}
    if place == "0":
        Path(out).write_text(json.dumps(seen))
    dist.destroy_process_group()
