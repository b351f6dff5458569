"""Vocabulary terms that the copied rows name: those that lack at the target are added."""

from __future__ import annotations

from collections.abc import Mapping

from deriva_ml_core.pushing.gathering import Gathered
from deriva_ml_core.pushing.passage import Passage

__all__ = ["bring_terms"]


def bring_terms(passage: Passage, gathered: Gathered) -> None:
    """See to it that every term is there, with its description and synonyms; those that are there stay as they are."""
    for vocabulary, by_column in gathered.terms.items():
        if vocabulary in passage.there.model.tables:
            _bring(passage, vocabulary, by_column)


def _bring(passage: Passage, vocabulary: str, by_column: Mapping[str, Mapping[str, None]]) -> None:
    known = {row["Name"]: row for row in passage.there.select(vocabulary)}
    named: dict[tuple[str, str], str] = {("Name", name): name for name in by_column.get("Name", ())}
    lacking = [name for name in named.values() if name not in known]
    rows = passage.here.select(vocabulary, {"Name": lacking}) if lacking else []
    for column, values in by_column.items():
        if column != "Name":
            found = passage.here.select(vocabulary, {column: list(values)})
            named |= {(column, row[column]): row["Name"] for row in found}
            rows += [row for row in found if row["Name"] not in known]
    new = {
        row["Name"]: {"Name": row["Name"], "Description": row["Description"] or "", "Synonyms": row["Synonyms"]}
        for row in rows
    }
    if new:
        passage.there.insert(vocabulary, list(new.values()), skip_existing=True)
        passage.terms.extend(f"{vocabulary}: {name}" for name in new)
    passage.vocabularies[vocabulary] = frozenset({*known, *new})
    others = {key: name for key, name in named.items() if key[0] != "Name"}
    if others:
        there = {row["Name"]: row for row in passage.there.select(vocabulary)}
        passage.values |= {(vocabulary, *key): there[name][key[0]] for key, name in others.items()}
