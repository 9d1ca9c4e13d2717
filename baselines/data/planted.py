"""Planted data: generated from a known truth, so the best attainable quality is known.

Ids follow a Zipf law and id order is popularity order: 0 is the most popular. Latent values are
hashed from the id, so a table of 10⁹ ids costs what the drawn rows touch. Rows are independent
and are split in the order in which they were drawn.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from scipy.special import expit

from baselines.base import Dataset, DataSource, Scored, Split, dataset
from baselines.data.draws import normals, uniforms, zipf
from baselines.data.events import Events, earlier
from baselines.data.segments import with_segments
from baselines.data.splits import pair_splits, random_parts
from baselines.errors import LeanRecError
from baselines.metrics import CTR_METRICS, RETRIEVAL_METRICS, pessimistic_ranks

SHARES = (0.8, 0.1, 0.1)
DRIFTING_SHARES = (0.4, 0.1, 0.5)  # of what drifts, a long test part is left to drift in
CHUNK = 1 << 16  # rows generated at a time
BIAS, MAIN_SPREAD, AFFINITY_SPREAD, AFFINITY_RANK = -0.5, 1.2, 1.0, 2
TURNED = 2**20  # streams of the values that drifting ones turn to
TASTE, TASTE_RANK = 3.0, 8
DESCRIBED = 10**5  # items up to which each has a text
BEST_CELLS = 10**8  # (user, item) pairs up to which the best ranking is worked out
SUCCESSORS = (0.4, 0.2, 0.1)  # P of each successor of an item; else the next is any item


@dataset("planted")
@dataclass(frozen=True)
class Planted(DataSource):
    """Generated from a known truth, so the best attainable quality is known.

    rows: impressions or interactions drawn. ids: of each field; the items. users: of retrieval
    and of sequences. drift: of clicks, the radians by which latent values turn from the first row
    to the last; at π/2 nothing is left of the first.
    """

    rows: int = 200_000
    ids: int = 1000
    users: int = 2000
    seed: int = 0
    drift: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    def ctr(self, history: int = 0) -> Dataset:
        """Ten fields. Rows count as one after another in time; a history tells nothing more."""
        return ctr(self.rows, self.ids, history=history, seed=self.seed, drift=self.drift)

    def retrieval(self) -> Dataset:
        """Draws of a user and one of his items."""
        return interactions(self.users, self.ids, self.rows, seed=self.seed)

    def sequences(self, length: int) -> Dataset:
        """Chains of `length` + 3 items a user."""
        return sequences(self.users, self.ids, length, seed=self.seed)


def ctr(
    rows: int = 200_000,
    ids: int = 1000,
    fields: int = 10,
    zipf_exponent: float = 1.05,
    history: int = 0,
    seed: int = 0,
    drift: float = 0.0,
) -> Dataset:
    """Clicks on rows of `fields` ids, each one of `ids`; the first two are the user and the item.

    inputs: (ids int64 [n, fields],), then with `history` = L the user's last L items, int64 [n, L].
    P(click) = σ(bias + Σ_f a_f + u · v), where the main effects a_f of all ids and the vectors u of
    the user and v of the item are normal: an additive part, and one that only a model of the pair
    can learn. With `drift` each latent value turns by so many radians towards another one, evenly
    over the rows, and the split is 4:1:5. best: the test AUC and logloss of the true probabilities
    on the drawn clicks. Raises LeanRecError for sizes too small to split.
    """
    _check_sizes(rows=(rows, 100), ids=(ids, 2), fields=(fields, 2))
    rng = np.random.default_rng(seed)
    drawn = np.empty((rows, fields), dtype=np.int64)
    labels = np.empty(rows, dtype=np.float32)
    truth = np.empty(rows, dtype=np.float32)
    for start in range(0, rows, CHUNK):
        part = slice(start, min(start + CHUNK, rows))
        count = part.stop - start
        for field in range(fields):
            drawn[part, field] = zipf(count, ids, zipf_exponent, rng)
        angle = drift * np.arange(part.start, part.stop) / rows
        truth[part] = click_probability(drawn[part], seed, angle if drift else None)
        labels[part] = rng.random(count) < truth[part]
    users, items = (torch.from_numpy(drawn[:, k].copy()) for k in (0, 1))
    inputs = [torch.from_numpy(drawn)]
    if history:
        before = earlier(Events("", "", drawn[:, 0], drawn[:, 1], times=np.arange(rows)))
        last = before.last(np.arange(rows), history, np.arange(ids), ids)
        inputs.append(torch.from_numpy(last))
    whole = Split(tuple(inputs), torch.from_numpy(labels), users, items)
    shares = DRIFTING_SHARES if drift else SHARES
    cuts = [0, *(np.cumsum(shares) * rows).round().astype(int)]
    train, valid, test = (_slice(whole, *pair) for pair in itertools.pairwise(cuts))
    scored = Scored(
        {"score": truth[cuts[2] :], "label": test.labels.numpy(), "user": test.users.numpy()},
        np.arange(len(test)),
    )
    return Dataset(
        "planted-ctr", train, valid, with_segments(test, train),
        fields={"user": ids, "item": ids, **{f"field_{k}": ids for k in range(2, fields)}},
        protocol=f"Planted clicks: {rows} rows, {fields} fields of {ids} ids, Zipf "
        f"{zipf_exponent:g}, {f'drift {drift:g}, ' if drift else ''}split "
        f"{':'.join(f'{10 * share:g}' for share in shares)}, seed {seed}.",
        best={m.name: m(scored) for m in CTR_METRICS if m.name in ("auc", "logloss")},
        ordered=True,
    )  # fmt: skip


def interactions(
    users: int = 2000,
    items: int = 1000,
    rows: int = 100_000,
    zipf_exponent: float = 1.05,
    seed: int = 0,
) -> Dataset:
    """Interactions of users with a Zipf catalogue; each draw picks a user and one of his items.

    inputs: (users int64 [n], items int64 [n]). P(item | user) ∝ Zipf(item) · exp(taste · cos of
    hashed vectors). A pair drawn again counts once, so n < rows. texts: words for the signs of the
    item's vector. best: the test metrics of ranking by the true probability, where users × items
    is at most 10⁸. Raises LeanRecError for sizes too small to split.
    """
    _check_sizes(users=(users, 2), items=(items, 20), rows=(rows, 100))
    rng = np.random.default_rng(seed)
    who = rng.integers(users, size=rows)
    what = np.empty(rows, dtype=np.int64)
    missing = np.arange(rows)
    while len(missing):  # rejection from the Zipf law
        offer = zipf(len(missing), items, zipf_exponent, rng)
        cosine = (_taste(who[missing], seed, 0) * _taste(offer, seed, 1)).sum(1)
        taken = np.log(rng.random(len(missing))) < TASTE * (cosine - 1)
        what[missing[taken]] = offer[taken]
        missing = missing[~taken]
    _, first = np.unique(who * items + what, return_index=True)
    parts = random_parts(np.arange(len(first)), SHARES, seed)
    train, valid, test = pair_splits([who[first], what[first]], parts)
    best = {}
    if users * items <= BEST_CELLS:
        popularity = -zipf_exponent * np.log(np.arange(1, items + 1))
        best = _best_ranking(train, valid, test, popularity, seed)
    return Dataset(
        "planted-interactions", train, valid, with_segments(test, train),
        fields={"user": users, "item": items},
        protocol=f"Planted interactions: {rows} draws of {users} users and {items} items, Zipf "
        f"{zipf_exponent:g}, random split 8:1:1, seed {seed}; full ranking, train and valid items "
        "of the user removed, ties against the item; mean over users with a relevant item.",
        best=best, texts=_descriptions(items, seed) if items <= DESCRIBED else (),
    )  # fmt: skip


def sequences(
    users: int = 5000,
    items: int = 1000,
    length: int = 50,
    zipf_exponent: float = 1.05,
    seed: int = 0,
) -> Dataset:
    """Chains of items of which the next depends on the last; leave-one-out, one row a user.

    inputs: (history int64 [users, length],), oldest first; items: the next item. Each item has
    three hashed successors, with the probabilities `SUCCESSORS`; else the next is drawn from the
    Zipf law. The valid part is one step after the train part, the test part one after that. best:
    HR@10 and nDCG@10 on the test part of ranking by the true probability. Raises LeanRecError for
    sizes too small.
    """
    _check_sizes(users=(users, 1), items=(items, 20), length=(length, 1))
    rng = np.random.default_rng(seed)
    chain = np.empty((users, length + 3), dtype=np.int64)
    chain[:, 0] = zipf(users, items, zipf_exponent, rng)
    choices = len(SUCCESSORS) + 1
    shares = (*SUCCESSORS, 1 - sum(SUCCESSORS))
    for step in range(1, chain.shape[1]):
        options = np.empty((users, choices), dtype=np.int64)
        options[:, :-1] = successors(chain[:, step - 1], items, seed)
        options[:, -1] = zipf(users, items, zipf_exponent, rng)
        chain[:, step] = options[np.arange(users), rng.choice(choices, size=users, p=shares)]
    user = torch.arange(users)

    def part(shift: int) -> Split:
        history = torch.from_numpy(chain[:, shift : shift + length].copy())
        target = torch.from_numpy(chain[:, shift + length].copy())
        return Split((history,), torch.ones(users), user, target)

    train, valid, test = part(0), part(1), part(2)
    rank = _next_ranks(chain[:, -2], chain[:, -1], items, zipf_exponent, seed)
    scored = Scored({"rank": rank, "relevant": np.ones(users), "user": user.numpy()}, user.numpy())
    return Dataset(
        "planted-sequences", train, valid, with_segments(test, train),
        fields={"item": items},
        protocol=f"Planted sequences: {users} users, {items} items, {length} events of history, "
        f"Zipf {zipf_exponent:g}, leave-one-out, seed {seed}; full ranking, history not removed, "
        "ties against the item.",
        best={m.name: m(scored) for m in RETRIEVAL_METRICS if m.name in ("ndcg@10", "hr@10")},
        repeats=True,
    )  # fmt: skip


def click_probability(ids: np.ndarray, seed: int, angle: np.ndarray | None = None) -> np.ndarray:
    """The true probability of a click for each row of ids [n, F]: float64 [n].

    angle: float64 [n], radians by which latent values have turned at each row.
    """
    fields = ids.shape[1]

    def latent(stream: int, column: np.ndarray) -> np.ndarray:
        value = normals(seed, stream, column)
        if angle is None:
            return value
        other = normals(seed, TURNED + stream, column)
        return np.cos(angle) * value + np.sin(angle) * other

    main = sum(latent(field, ids[:, field]) for field in range(fields))
    affinity = sum(
        latent(fields + 2 * k, ids[:, 0]) * latent(fields + 2 * k + 1, ids[:, 1])
        for k in range(AFFINITY_RANK)
    )
    main, affinity = main / np.sqrt(fields), affinity / np.sqrt(AFFINITY_RANK)
    return expit(BIAS + MAIN_SPREAD * main + AFFINITY_SPREAD * affinity)


def _taste(ids: np.ndarray, seed: int, side: int) -> np.ndarray:
    """A hashed unit vector for each id: float64 [n, TASTE_RANK]."""
    vector = np.stack(
        [normals(seed, side * TASTE_RANK + k, ids) for k in range(TASTE_RANK)], axis=1
    )
    return vector / np.linalg.norm(vector, axis=1, keepdims=True)


def _descriptions(items: int, seed: int) -> tuple[str, ...]:
    """A word for each direction of an item's taste that stands out, so that texts tell of it."""
    taste = _taste(np.arange(items), seed, 1) * np.sqrt(TASTE_RANK)
    return tuple(
        f"item {item} " + " ".join(f"{'more' if row[k] > 0 else 'less'}{k}" for k in found)
        for item, row in enumerate(taste)
        for found in [np.flatnonzero(np.abs(row) > 0.5)]
    )


def _best_ranking(
    train: Split, valid: Split, test: Split, popularity: np.ndarray, seed: int
) -> dict[str, float]:
    """The test metrics of ranking by the true probability; `popularity` is log P(item) [items]."""
    seen_users, seen_items = (
        torch.cat((getattr(train, side), getattr(valid, side))) for side in ("users", "items")
    )
    items = _taste(np.arange(len(popularity)), seed, 1)
    rank = torch.empty(len(test), dtype=torch.int64)
    for block in test.users.unique().split(max(1, 2**22 // len(popularity))):
        score = TASTE * _taste(block.numpy(), seed, 0) @ items.T + popularity

        def pairs(users: torch.Tensor, of: torch.Tensor, block: torch.Tensor) -> torch.Tensor:
            return torch.stack((torch.searchsorted(block, users), of))

        seen, wanted = torch.isin(seen_users, block), torch.isin(test.users, block)
        rank[wanted] = pessimistic_ranks(
            torch.from_numpy(score),
            tuple(pairs(seen_users[seen], seen_items[seen], block)),
            tuple(pairs(test.users[wanted], test.items[wanted], block)),
        )
    user = test.users.numpy()
    columns = {"rank": rank.numpy(), "relevant": np.bincount(user)[user], "user": user}
    scored = Scored(columns, user)
    return {metric.name: metric(scored) for metric in RETRIEVAL_METRICS}


def successors(last: np.ndarray, items: int, seed: int) -> np.ndarray:
    """The successors of each item, popular ones more often: int64 [n, 3]."""
    ranks = [
        items ** uniforms(seed, k, last) - 1 for k in range(len(SUCCESSORS))
    ]  # log-uniform ranks: the Zipf law of exponent 1
    return np.stack(ranks, axis=1).astype(np.int64)


def _next_ranks(
    last: np.ndarray, target: np.ndarray, items: int, exponent: float, seed: int
) -> np.ndarray:
    """The rank of each target by its true probability after `last`: float64 [n], ∞ beyond 10.

    Only the successors and the ten most popular items can be among the first ten.
    """
    mass = np.arange(1, items + 1, dtype=np.float64) ** -exponent
    mass *= (1 - sum(SUCCESSORS)) / mass.sum()
    likely = successors(last, items, seed)
    top = np.broadcast_to(np.arange(10), (len(last), 10))
    candidates = np.concatenate((likely, top), axis=1)
    probability = mass[candidates]
    for k, share in enumerate(SUCCESSORS):
        probability += share * (candidates == likely[:, [k]])
    is_target = candidates == target[:, None]
    own = probability[np.arange(len(target)), is_target.argmax(1)]
    earlier = np.tri(candidates.shape[1], k=-1, dtype=bool)
    repeated = ((candidates[:, :, None] == candidates[:, None, :]) & earlier).any(2)
    rank = ((probability >= own[:, None]) & ~repeated).sum(1).astype(np.float64)
    listed = is_target.any(1)
    return np.where(listed & (rank <= 10), rank, np.inf)


def _slice(rows: Split, start: int, stop: int) -> Split:
    part = slice(start, stop)
    inputs = tuple(column[part] for column in rows.inputs)
    return Split(inputs, rows.labels[part], rows.users[part], rows.items[part])


def _check_sizes(**sizes: tuple[int, int]) -> None:
    for name, (value, least) in sizes.items():
        if value < least:
            raise LeanRecError(
                f"Planted data with {name}={value} is too small.",
                "Nothing was run.",
                f"Give {name} of at least {least}.",
            )
