"""Which rows are members of the target's datasets, now or at a snapshot, and how they come to be others."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from deriva_ml_core.backend import Catalog
from deriva_ml_core.dataset.members import member_links, split_batches
from deriva_ml_core.definitions import RID
from deriva_ml_core.errors import CatalogUnavailable
from deriva_ml_core.pushing.gathering import DatasetVersionContents
from deriva_ml_core.pushing.passage import PushContext

__all__ = ["Membership", "set_members", "read_members", "take_snapshot", "wanted_members"]

SNAPSHOT_ATTEMPTS = 5
"""How often a snapshot is taken that another writer got between."""

Membership = Mapping[RID, Mapping[str, Mapping[RID, None]]]
"""The members of datasets, by element table, in the order in which they were added; a table without any is left out.
Two are equal whatever the order.
"""


def wanted_members(context: PushContext, contents: DatasetVersionContents) -> Membership:
    """The members that the copies of a version's datasets should have."""
    return {
        context.target_rid(rid): {
            table: dict.fromkeys(map(context.target_rid, rids)) for table, rids in members.items() if rids
        }
        for rid, members in contents.members.items()
    }


def read_members(catalog: Catalog, datasets: Collection[RID]) -> Membership:
    """The members of datasets, one question an element table."""
    found: dict[RID, dict[str, dict[RID, None]]] = {rid: {} for rid in datasets}
    if datasets:
        for link in member_links(catalog.model).values():
            for page in catalog.pages(link.table, {link.dataset_column: list(datasets)}):
                for row in page:
                    found[row[link.dataset_column]].setdefault(link.element, {})[row[link.member_column]] = None
    return found


def take_snapshot(catalog: Catalog, wanted: Membership, empty: Collection[RID]) -> str:
    """A snapshot in which datasets have these members, and no others.

    Args:
        catalog: Where they are.
        wanted: Their members.
        empty: Those of them that have none so far.

    Raises:
        CatalogUnavailable: Others change them without end.
    """
    for _ in range(SNAPSHOT_ATTEMPTS):
        set_members(catalog, wanted, empty)
        snapshot = catalog.snapshot()
        if read_members(catalog.at(snapshot), list(wanted)) == wanted:
            return snapshot
        empty = ()
    raise CatalogUnavailable(
        f"Others keep changing the datasets {', '.join(wanted)} of {catalog.name}, which are copies: push again later."
    )


def set_members(catalog: Catalog, wanted: Membership, empty: Collection[RID] = ()) -> None:
    """Give datasets these members, and no others; those that are fresh have none so far."""
    present = read_members(catalog, [rid for rid in wanted if rid not in empty])
    for link in member_links(catalog.model).values():
        for dataset, members in wanted.items():
            should, there = members.get(link.element, {}), present.get(dataset, {}).get(link.element, {})
            for rids in split_batches(sorted(there.keys() - should.keys())):
                catalog.delete(link.table, {link.dataset_column: dataset, link.member_column: list(rids)})
            _insert_members(
                catalog,
                link.table,
                link.dataset_column,
                link.member_column,
                dataset,
                [rid for rid in should if rid not in there],
            )


def _insert_members(catalog: Catalog, table: str, dataset: str, member: str, rid: RID, members: Iterable[RID]) -> None:
    for rids in split_batches(list(members)):
        catalog.insert(table, [{dataset: rid, member: each} for each in rids], skip_existing=True)
