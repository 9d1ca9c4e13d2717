"""The optimisers of a recipe: Adam or AdamW, with tables apart where their gradients are sparse."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from baselines.base import Recipe
from baselines.narrow_adam import NarrowAdam
from baselines.parallel import Team


def make_optimisers(recipe: Recipe, team: Team) -> list[torch.optim.Optimizer]:
    """Of all parameters of the team's model that are trained, tables and others as `recipe` says.

    Every group holds its `share` of the recipe's rate.
    """
    trained = [p for p in team.model.parameters() if p.requires_grad]
    apart = {
        id(parameter): rate / recipe.lr
        for name, rate in recipe.own_rates.items()
        for parameter in team.model.get_submodule(name).parameters()
    }
    tables: dict[int, nn.Parameter] = {}
    for module in team.model.modules():
        if not isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
            continue
        if module.weight.requires_grad and id(module.weight) not in apart:
            module.sparse = recipe.sparse_embeddings
            tables[id(module.weight)] = cast(nn.Parameter, module.weight)
    others = [p for p in trained if id(p) not in tables and id(p) not in apart]
    groups = [(others, recipe.weight_decay, 1.0)]
    for share in dict.fromkeys(apart.values()):
        groups.append(([p for p in trained if apart.get(id(p)) == share], 0.0, share))
    optimisers: list[torch.optim.Optimizer] = []
    if recipe.sparse_embeddings and tables:
        sparse = torch.optim.SparseAdam(list(tables.values()), recipe.lr, recipe.betas)
        optimisers.append(sparse)
    else:
        groups.append((list(tables.values()), recipe.embedding_l2, 1.0))
    dense = [
        {"params": p, "weight_decay": decay, "lr": recipe.lr * share, "share": share}
        for p, decay, share in groups
        if p
    ]
    decoupled = recipe.optimiser == "adamw"
    if dense and recipe.moments == "bfloat16":
        narrow = team.optimiser(NarrowAdam, dense, betas=recipe.betas, decoupled=decoupled)
        optimisers.append(narrow)
    elif dense:
        adam = torch.optim.AdamW if decoupled else torch.optim.Adam
        optimisers.append(team.optimiser(adam, dense, betas=recipe.betas, fused=True))
    return optimisers
