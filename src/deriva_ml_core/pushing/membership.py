"""Which rows are members of the target's datasets, now or at a snapshot, and how they come to be others."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from deriva_ml_core.backend import Catalog
from deriva_ml_core.dataset.members import links, portions
from deriva_ml_core.definitions import RID
from deriva_ml_core.errors import CatalogUnavailable
from deriva_ml_core.pushing.gathering import Contents
from deriva_ml_core.pushing.passage import Passage

__all__ = ["Membership", "bring_members", "members_of", "snapshot_of", "wanted_members"]

TRIES = 5
"""How often a snapshot is taken that another writer got between."""

Membership = Mapping[RID, Mapping[str, Mapping[RID, None]]]
"""The members of datasets, by element table, in the order in which they were added; a table without any is left out.
Two are equal whatever the order.
"""


def wanted_members(passage: Passage, contents: Contents) -> Membership:
    """The members that the copies of a version's datasets should have."""
    return {
        passage.copy_of(rid): {
            table: dict.fromkeys(map(passage.copy_of, rids)) for table, rids in members.items() if rids
        }
        for rid, members in contents.members.items()
    }


def members_of(catalog: Catalog, datasets: Collection[RID]) -> Membership:
    """The members of datasets, one question an element table."""
    found: dict[RID, dict[str, dict[RID, None]]] = {rid: {} for rid in datasets}
    if datasets:
        for link in links(catalog.model).values():
            for page in catalog.pages(link.table, {link.dataset: list(datasets)}):
                for row in page:
                    found[row[link.dataset]].setdefault(link.element, {})[row[link.member]] = None
    return found


def snapshot_of(catalog: Catalog, wanted: Membership, fresh: Collection[RID]) -> str:
    """A snapshot in which datasets have these members, and no others.

    Args:
        catalog: Where they are.
        wanted: Their members.
        fresh: Those of them that have none so far.

    Raises:
        CatalogUnavailable: Others change them without end.
    """
    for _ in range(TRIES):
        bring_members(catalog, wanted, fresh)
        snapshot = catalog.snapshot()
        if members_of(catalog.at(snapshot), list(wanted)) == wanted:
            return snapshot
        fresh = ()
    raise CatalogUnavailable(
        f"Others keep changing the datasets {', '.join(wanted)} of {catalog.name}, which are copies: push again later."
    )


def bring_members(catalog: Catalog, wanted: Membership, fresh: Collection[RID] = ()) -> None:
    """Give datasets these members, and no others; those that are fresh have none so far."""
    present = members_of(catalog, [rid for rid in wanted if rid not in fresh])
    for link in links(catalog.model).values():
        for dataset, members in wanted.items():
            should, there = members.get(link.element, {}), present.get(dataset, {}).get(link.element, {})
            for rids in portions(sorted(there.keys() - should.keys())):
                catalog.delete(link.table, {link.dataset: dataset, link.member: list(rids)})
            _link(catalog, link.table, link.dataset, link.member, dataset, [rid for rid in should if rid not in there])


def _link(catalog: Catalog, table: str, dataset: str, member: str, rid: RID, members: Iterable[RID]) -> None:
    for rids in portions(list(members)):
        catalog.insert(table, [{dataset: rid, member: each} for each in rids], skip_existing=True)
