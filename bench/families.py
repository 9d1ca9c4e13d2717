"""Multiplicity: which effects form a family, and what becomes of verdicts that it does not bear."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bench.records import CONTROL, Cell
from bench.stats import benjamini_hochberg, holm

if TYPE_CHECKING:
    from bench.effects import Effect

_METHODS: dict[str, tuple[str, Callable[..., Any]]] = {
    "A/A": ("Holm", holm),
    "primary": ("Holm", holm),
    "segments": ("BH", benjamini_hochberg),
    "secondary": ("BH", benjamini_hochberg),
}
_CLAIMS = {"faster", "slower", "smaller", "larger", "non-inferior", "better"}
_CLAIMS_OF_A_SEGMENT = {"inferior"}


def with_families(effects: list[Effect], primary: set[str], alpha: float) -> list[Effect]:
    """Fill p_adjusted and family; a claim whose adjusted p exceeds alpha becomes inconclusive.

    Families: A/A (the control against itself) and primary (headline metrics of the cells whose
    ids are in `primary`) by Holm; segments and secondary (the rest) by Benjamini-Hochberg. Effects
    without a p-value are in none. A claim is what refutes the effect's null hypothesis, see
    `Effect.p_value`.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for index, effect in enumerate(effects):
        if effect.p_value is not None:
            members[_family(effect, primary)].append(index)
    judged = list(effects)
    for name, indices in members.items():
        method, adjust = _METHODS[name]
        adjusted = adjust([effects[i].p_value for i in indices])
        for i, p in zip(indices, adjusted, strict=True):
            update = {"p_adjusted": float(p), "family": f"{name} ({method}, {len(indices)})"}
            claims = _CLAIMS_OF_A_SEGMENT if effects[i].segment else _CLAIMS
            if p > alpha and effects[i].verdict in claims:
                note = f"{effects[i].verdict} alone, but not in its family: adjusted p {p:.2g}"
                update |= {
                    "verdict": "inconclusive",
                    "note": "; ".join(filter(None, (effects[i].note, note))),
                }
            judged[i] = effects[i].model_copy(update=update)
    return judged


def _family(effect: Effect, primary: set[str]) -> str:
    if effect.stack == CONTROL:
        return "A/A"
    if effect.segment:
        return "segments"
    cell = Cell(
        baseline=effect.baseline,
        stack=effect.stack,
        scenario=effect.scenario,
        device=effect.device,
    )
    return "primary" if effect.primary and cell.id in primary else "secondary"
