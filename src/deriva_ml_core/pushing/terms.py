"""Vocabulary terms that the copied rows name: those that lack at the target are added."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from deriva_ml_core.backend import Catalog, Row
from deriva_ml_core.pushing.gathering import PushPlan
from deriva_ml_core.pushing.passage import PushContext

__all__ = ["copy_terms"]


def copy_terms(context: PushContext, plan: PushPlan) -> None:
    """See to it that every term is there, with its description and synonyms; those that are there stay as they are."""
    for vocabulary, by_column in plan.terms.items():
        if vocabulary in context.target.model.tables:
            _copy_vocabulary_terms(context, vocabulary, by_column)


def _copy_vocabulary_terms(context: PushContext, vocabulary: str, by_column: Mapping[str, Mapping[str, None]]) -> None:
    rows, others = dict[str, Row](), dict[tuple[str, str], str]()
    for column, values in by_column.items():
        if column != "Name":
            for row in context.source.select(vocabulary, {column: list(values)}):
                rows[row["Name"]], others[column, row[column]] = row, row["Name"]
    wanted = dict.fromkeys((*by_column.get("Name", ()), *rows))
    known = _select_terms(context.target, vocabulary, wanted)
    rows |= _select_terms(context.source, vocabulary, wanted.keys() - known.keys() - rows.keys())
    new = {
        name: {"Name": name, "Description": row["Description"] or "", "Synonyms": row["Synonyms"]}
        for name, row in rows.items()
        if name not in known
    }
    if new:
        context.target.insert(vocabulary, list(new.values()), skip_existing=True)
        context.added_terms.extend(f"{vocabulary}: {name}" for name in new)
    context.target_terms[vocabulary] = frozenset({*known, *new})
    if others:
        there = _select_terms(context.target, vocabulary, others.values()) if new else known
        context.translated_terms |= {(vocabulary, *key): there[name][key[0]] for key, name in others.items()}


def _select_terms(catalog: Catalog, vocabulary: str, names: Iterable[str]) -> dict[str, Row]:
    """The terms of these names, as far as a catalog has them; a vocabulary may have many thousand others."""
    wanted = sorted(set(names))
    return {row["Name"]: row for row in catalog.select(vocabulary, {"Name": wanted})} if wanted else {}
