"""Vocabulary terms that the copied rows name: those that lack at the target are added."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from deriva_ml_core.backend import Catalog, Row
from deriva_ml_core.pushing.gathering import Gathered
from deriva_ml_core.pushing.passage import Passage

__all__ = ["bring_terms"]


def bring_terms(passage: Passage, gathered: Gathered) -> None:
    """See to it that every term is there, with its description and synonyms; those that are there stay as they are."""
    for vocabulary, by_column in gathered.terms.items():
        if vocabulary in passage.there.model.tables:
            _bring(passage, vocabulary, by_column)


def _bring(passage: Passage, vocabulary: str, by_column: Mapping[str, Mapping[str, None]]) -> None:
    rows, others = dict[str, Row](), dict[tuple[str, str], str]()
    for column, values in by_column.items():
        if column != "Name":
            for row in passage.here.select(vocabulary, {column: list(values)}):
                rows[row["Name"]], others[column, row[column]] = row, row["Name"]
    wanted = dict.fromkeys((*by_column.get("Name", ()), *rows))
    known = _named(passage.there, vocabulary, wanted)
    rows |= _named(passage.here, vocabulary, wanted.keys() - known.keys() - rows.keys())
    new = {
        name: {"Name": name, "Description": row["Description"] or "", "Synonyms": row["Synonyms"]}
        for name, row in rows.items()
        if name not in known
    }
    if new:
        passage.there.insert(vocabulary, list(new.values()), skip_existing=True)
        passage.terms.extend(f"{vocabulary}: {name}" for name in new)
    passage.vocabularies[vocabulary] = frozenset({*known, *new})
    if others:
        there = _named(passage.there, vocabulary, others.values()) if new else known
        passage.values |= {(vocabulary, *key): there[name][key[0]] for key, name in others.items()}


def _named(catalog: Catalog, vocabulary: str, names: Iterable[str]) -> dict[str, Row]:
    """The terms of these names, as far as a catalog has them; a vocabulary may have many thousand others."""
    wanted = sorted(set(names))
    return {row["Name"]: row for row in catalog.select(vocabulary, {"Name": wanted})} if wanted else {}
