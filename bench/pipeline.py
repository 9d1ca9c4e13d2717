"""The five stages of a recommender, with the techniques of a stack applied and artefacts shared.

    prepare(data) → build(model) → train(recipe) → compress(model) → deploy(predictor)

Pipelines that agree up to a stage share its artefact: the data by baseline and the techniques
that prepare it, the trained weights by data, baseline, the techniques up to training, and seed,
what is fine-tuned after compression by the weights and the techniques that compress up to there.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial, reduce
from pathlib import Path
from typing import Any

import torch
from torch import nn

from baselines.asynchronous import make_trainer
from baselines.base import BASELINES, Baseline, Dataset, Recipe
from baselines.checkpoint import save
from baselines.errors import LeanRecError
from baselines.registry import format_spec, loaded_plugins, split_specs
from baselines.trainer import Epoch, History, NonFiniteLoss, Trainer
from bench.data_artefact import files_of, load_data, save_data
from bench.device import Device
from bench.ranks import Job, train_on_ranks
from bench.records import CONTROL
from bench.store import Store, address, code_version
from bench.tuning import Tuner
from techniques.base import STAGES, TECHNIQUES, Context, Technique

TRAINING_STAGES = frozenset({"prepare", "build", "train"})


def make_stack(text: str) -> tuple[Technique, ...]:
    """The techniques that a stack's spec names, in order; ``control`` names none.

    Raises LeanRecError for an unknown technique, a wrong parameter, or one named twice.
    """
    if text.strip() == CONTROL:
        return ()
    stack = tuple(TECHNIQUES.make(part) for part in split_specs(text))
    names = [t.name for t in stack]
    for name in names:
        if names.count(name) > 1:
            raise LeanRecError(
                f"Stack {text!r} names {name!r} twice.",
                "Nothing was run.",
                "Name each technique once.",
            )
    return stack


def stack_spec(stack: tuple[Technique, ...]) -> str:
    """The canonical text of a stack."""
    return "+".join(format_spec(t) for t in stack) or CONTROL


@dataclass(frozen=True)
class Pipeline:
    """One recommender under one stack and seed."""

    baseline: Baseline
    stack: tuple[Technique, ...]
    device: Device
    seed: int
    store: Store

    @classmethod
    def from_specs(
        cls, baseline: str, stack: str, device: Device, seed: int, store: Store
    ) -> Pipeline:
        """Raises LeanRecError where a spec is wrong."""
        return cls(BASELINES.make(baseline), make_stack(stack), device, seed, store)

    def control(self) -> Pipeline:
        """The same recommender under the empty stack."""
        return dataclasses.replace(self, stack=())

    @property
    def changes_training(self) -> bool:
        """Whether the stack touches a stage up to training."""
        return bool(TRAINING_STAGES & stages_of(self.stack))

    def _context(self, data: Dataset | None = None) -> Context:
        task = self.baseline.task
        examples = tuple(task.requests(data, 64, 4, self.seed)) if data else ()
        train = data.train if data else None
        return Context(task.name, self.device.torch_device, self.seed, examples, train)

    def _apply(self, stage: str, thing: Any, context: Context) -> Any:
        return reduce(lambda x, t: getattr(t, stage)(x, context), self.stack, thing)

    def _prefix(self, *stages: str) -> list[Technique]:
        return [t for t in self.stack if set(stages) & set(t.stages)]

    def _key(self, *stages: str) -> dict[str, object]:
        prefix = self._prefix(*stages)
        return {
            "baseline": format_spec(self.baseline),
            "stack": [format_spec(t) for t in prefix],
            "code": code_version([type(self.baseline), *map(type, prefix)]),
        }

    def _data_artefact(self) -> Path:
        def make(folder: Path) -> None:
            data = self._apply("prepare", self.baseline.data(), self._context())
            save_data(data, folder)

        key = {**self._key("prepare"), "files": files_of(self.baseline)}
        return self.store.ensure("data", key, make)[0]

    @cached_property
    def data(self) -> Dataset:
        """The data, after the stack's prepare stage. Raises LeanRecError if it can't be had."""
        return load_data(self._data_artefact())

    @cached_property
    def data_digest(self) -> str:
        """The hash of the split, which stands beside every quality number."""
        digest: str = json.loads((self._data_artefact() / "data.json").read_text())["digest"]
        return digest

    def fresh_model(self, device: torch.device) -> nn.Module:
        """An untrained model, initialised from the seed; on the meta device only its shapes."""
        data = self.data  # made before the seed is set, and on no other device than it asks for
        torch.manual_seed(self.seed)
        with torch.device("meta" if device.type == "meta" else "cpu"):
            model = self.baseline.build(data)
        model = self._apply("build", model, self._context())
        return model if device.type == "meta" else model.to(device)

    @property
    def recipe(self) -> Recipe:
        """The training recipe under the stack."""
        recipe: Recipe = self._apply("train", self.baseline.recipe, self._context())
        return recipe

    def trainer(self, model: nn.Module, recipe: Recipe | None = None) -> Trainer:
        """A trainer of `model` in this pipeline's recipe, or the one given."""
        recipe, device = recipe or self.recipe, self.device.torch_device
        return make_trainer(model, self.baseline.task, recipe, device, self.seed)

    def train(self, on_epoch: Callable[[Epoch], None] | None = None) -> tuple[Path, bool]:
        """The artefact of trained weights and history, trained now if need be; and whether it was.

        A training that was killed goes on from its last checkpoint. Of a baseline, stack, seed and
        device one checkpoint is kept: a training that starts deletes those that were left by other
        code or data and that no process is writing. Raises NonFiniteLoss where training diverges.
        """
        key = {
            **self._key("prepare", "build", "train"),
            "data": self.data_digest,
            "seed": self.seed,
            "device": self.device.name,
        }
        lasting = {name: value for name, value in key.items() if name not in ("code", "data")}
        ending = f".{address(lasting)}.checkpoint"
        checkpoints = self.store.path("trained", key).with_suffix(ending)

        def make(folder: Path) -> None:
            self.store.sweep("trained", ending)
            parallel = self.recipe.parallel
            try:
                if parallel is None:
                    self.fit_into(folder, on_epoch, checkpoints)
                else:
                    threads = max(1, torch.get_num_threads() // parallel.ranks)
                    job = self.job(threads=threads, folder=folder, checkpoints=checkpoints)
                    train_on_ranks(job, on_epoch)
            except NonFiniteLoss:
                shutil.rmtree(checkpoints, ignore_errors=True)  # it would diverge again
                raise

        made = self.store.ensure("trained", key, make)
        shutil.rmtree(checkpoints, ignore_errors=True)
        return made

    def fit_into(
        self,
        folder: Path | None,
        on_epoch: Callable[[Epoch], None] | None,
        checkpoints: Path | None,
    ) -> None:
        """Train in this process, a rank where the recipe is parallel, and put weights and history
        into `folder`; None for the ranks but the first."""
        model = self.fresh_model(self.device.torch_device)
        history = self.trainer(model).fit(self.data, on_epoch, checkpoints)
        if folder is not None:
            save(model.state_dict(), folder / "weights.pt")
            (folder / "history.json").write_text(json.dumps(dataclasses.asdict(history)))

    def job(self, **more: Any) -> Job:
        """This training as a job of its ranks; more: other fields of the job."""
        self._data_artefact()  # made once, before all ranks ask for it
        parallel = self.recipe.parallel
        return Job(
            baseline=format_spec(self.baseline),
            stack=stack_spec(self.stack),
            device=self.device.name,
            seed=self.seed,
            store=self.store.root,
            plugins=loaded_plugins(),
            ranks=parallel.ranks if parallel else 1,
            **more,
        )

    def trained_model(self) -> nn.Module:
        """The trained model on the device, in evaluation mode."""
        folder, _ = self.train()
        model = self.fresh_model(self.device.torch_device)
        weights = torch.load(
            folder / "weights.pt", map_location=self.device.torch_device, weights_only=True
        )
        model.load_state_dict(weights)
        return model.eval()

    def history(self) -> History:
        """How the training went."""
        folder, _ = self.train()
        content = json.loads((folder / "history.json").read_text())
        return History(epochs=[Epoch(**e) for e in content.pop("epochs")], **content)

    @property
    def context(self) -> Context:
        """What the stages after training may know."""
        return self._context(self.data)

    def make_ahead(self) -> None:
        """Make the artefacts that take training: the weights, and what the stack tunes of them."""
        self.train()
        if tunes(self.stack):
            self._compress(self.trained_model(), self.context)

    def predictor(self, model: nn.Module) -> nn.Module:
        """What is served: `model` compressed and deployed by the stack; `model` is left alone."""
        return self.serve(model)[0]

    def serve(self, model: nn.Module) -> tuple[nn.Module, float]:
        """The predictor, and the seconds of fine-tuning in it that were spent before this call."""
        context = self.context
        compressed, earlier = self._compress(model, context)
        served = self.baseline.task.predictor(compressed, self.data).eval()
        return self._apply("deploy", served, context), earlier

    def _compress(self, model: nn.Module, context: Context) -> tuple[nn.Module, float]:
        earlier = 0.0
        for i, t in enumerate(self.stack):
            prefix = [other for other in self.stack[: i + 1] if "compress" in other.stages]
            key = partial(self._tuned_key, prefix)
            tune = Tuner(self.store, key, self.trainer, self.recipe, self.data)
            model = t.compress(model, dataclasses.replace(context, tune=tune))
            earlier += tune.earlier
        return model, earlier

    def _tuned_key(self, prefix: list[Technique]) -> dict[str, object]:
        return {
            "trained": self.train()[0].name,
            "stack": [format_spec(t) for t in prefix],
            "code": code_version([type(self.baseline), *map(type, prefix)]),
        }

    def reason_against(self) -> str | None:
        """Why the stack does not apply to the baseline on this device; None where it does."""
        model = self.control().fresh_model(torch.device("meta"))
        for t in self.stack:
            reason = t.reason_against(model, self.baseline.task.name, self.device.name)
            if reason:
                return f"{t.name} {reason}"
        return None


def tunes(stack: tuple[Technique, ...]) -> bool:
    """Whether a stack trains what it has compressed."""
    return any(t.fine_tune for t in stack)


def stages_of(stack: tuple[Technique, ...]) -> set[str]:
    """The stages that a stack changes."""
    return {stage for t in stack for stage in t.stages if stage in STAGES}
