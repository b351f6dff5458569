"""The PostgreSQL catalog: users, names, values, cut connections and concurrent processes."""

from __future__ import annotations

import multiprocessing
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest

from deriva_ml_core.backends.postgres.address import parse_address
from deriva_ml_core.backends.postgres.open import create_catalog, open_catalog
from deriva_ml_core.backends.sql.catalog import SqlCatalog
from deriva_ml_core.default_schema import SCHEMA_VERSION
from deriva_ml_core.errors import (
    AccessRefused,
    CatalogTooNew,
    CatalogUnavailable,
    ConfigurationError,
    DuplicateRow,
    LoginRequired,
    RowInUse,
    UnknownAddress,
    UnknownRID,
)
from deriva_ml_core.schema import Column, ForeignKey, Table, association_table
from engines.postgres import PostgresServer


@pytest.fixture(scope="module")
def template(postgres: PostgresServer) -> str:
    """Create a database with a catalog and return its name."""
    name = postgres.create_database()
    create_catalog(parse_address(postgres.uri(name)), store="file:/unused")
    return name


@pytest.fixture
def database(postgres: PostgresServer, template: str) -> str:
    """Create a database with a new catalog and return its name."""
    return postgres.create_database(template)


@pytest.fixture
def catalog(postgres: PostgresServer, database: str) -> SqlCatalog:
    return open_at(postgres, database)


def open_at(postgres: PostgresServer, database: str, user: str = "postgres") -> SqlCatalog:
    return open_catalog(parse_address(postgres.uri(database, user)))


def test_rows_have_the_user_of_the_server(postgres: PostgresServer, database: str, catalog: SqlCatalog) -> None:
    """RCB and RMB are the users that the server knows; another user's change keeps the creator."""
    catalog.insert("Dataset", [{"Description": "mine"}])
    postgres.run("DROP ROLE IF EXISTS ada")
    postgres.run("CREATE ROLE ada LOGIN SUPERUSER")
    (row,) = catalog.select("Dataset")
    open_at(postgres, database, "ada").update("Dataset", [{"RID": row["RID"], "Description": "hers"}])
    (changed,) = catalog.select("Dataset")
    assert (row["RCB"], row["RMB"], changed["RCB"], changed["RMB"]) == ("postgres", "postgres", "postgres", "ada")
    assert changed["RCT"] == row["RCT"] < changed["RMT"]


def test_team(postgres: PostgresServer) -> None:
    """Members of the database's owner record together, each under the own name; a reader reads, and cannot write."""
    for statement in (
        "DROP DATABASE IF EXISTS of_team",
        *(f"DROP ROLE IF EXISTS {name}" for name in ("bob", "carol", "dan", "team")),
        "CREATE ROLE team",
        *(f"CREATE ROLE {name} LOGIN" for name in ("bob", "carol", "dan")),
        "GRANT team TO bob, carol",
        "CREATE DATABASE of_team OWNER team",
    ):
        postgres.run(statement)
    create_catalog(parse_address(postgres.uri("of_team", "bob")), store="file:/unused")
    bob, carol = open_at(postgres, "of_team", "bob"), open_at(postgres, "of_team", "carol")
    bob.create_tables([Table("Thing", (Column("A"),))])
    carol.insert("Thing", [{"A": "hers"}])
    (row,) = bob.select("Thing")
    bob.update("Thing", [{"RID": row["RID"], "A": "his"}])
    assert [(row["RCB"], row["RMB"]) for row in carol.select("Thing")] == [("carol", "bob")]
    with pytest.raises(AccessRefused, match="permission denied"):
        open_at(postgres, "of_team", "dan")
    postgres.run("GRANT USAGE ON SCHEMA deriva_ml TO dan", "of_team")
    postgres.run("GRANT SELECT ON ALL TABLES IN SCHEMA deriva_ml TO dan", "of_team")
    reader = open_at(postgres, "of_team", "dan")
    assert [row["A"] for row in reader.select("Thing")] == ["his"]
    for write in (lambda: reader.insert("Thing", [{}]), lambda: reader.delete("Thing", {})):
        with pytest.raises(AccessRefused, match="permission denied"):
            write()
    for catalog in (bob, carol, reader):
        catalog.close()


@pytest.mark.parametrize(
    "name",
    ['100% "sure"', "L" + "ong" * 30, "L" + "ong" * 30 + "er", "Größe" * 20, "a:b;c--d", "%(x)s", "select"],
)
def test_names(catalog: SqlCatalog, name: str) -> None:
    """Tables and columns have any name, also one that the server would cut."""
    column, twin = f"{name} column", f"{name} column2"
    table = Table(name, (Column(column), Column(twin, "int8")), keys=((column,),), schema="domain")
    link = association_table(f"{name}_Dataset", ForeignKey(name, name), ForeignKey("Dataset", "Dataset"))
    catalog.create_tables([table, link])
    catalog.insert(name, [{column: "a", twin: 1}, {column: "b"}])
    first, second = catalog.select(name, order=(column,))
    assert (first[column], first[twin], second[twin]) == ("a", 1, None)
    snapshot = catalog.snapshot()
    catalog.update(name, [{"RID": first["RID"], twin: 2}])
    assert catalog.at(snapshot).select(name, {twin: [1, 5]}) == [first]
    assert catalog.locate([first["RID"]]) == {first["RID"]: name}
    assert catalog.at(snapshot).locate([first["RID"]]) == {first["RID"]: name}
    with pytest.raises(DuplicateRow, match=re.escape(f"{column} = 'a'")):
        catalog.insert(name, [{column: "a"}])
    (dataset,) = catalog.reserve(1)
    catalog.insert("Dataset", [{"RID": dataset}])
    catalog.insert(f"{name}_Dataset", [{name: first["RID"], "Dataset": dataset}])
    assert len(catalog.select(f"{name}_Dataset", {"Dataset": dataset})) == 1


MISFITS: list[tuple[str, Any]] = [
    ("int8", 1.5),
    ("int8", "many"),
    ("int8", 2**64),
    ("float8", "many"),
    ("boolean", "maybe"),
    ("boolean", 2),
    ("timestamptz", "yesterday, perhaps"),
    ("date", "31.12.2026"),
    ("text[]", "a"),
    ("text", "a\0b"),
    ("jsonb", {"a": "\0"}),
    ("text", {"a": 1}),
]


@pytest.mark.parametrize(("type_", "value"), MISFITS)
def test_value_of_wrong_type(catalog: SqlCatalog, type_: str, value: Any) -> None:
    """The error names column, type and value, and nothing is written."""
    catalog.create_tables([Table("Thing", (Column("Good"), Column("Bad", type_)))])
    with pytest.raises(ConfigurationError, match=re.escape(f"Thing.Bad has the type {type_}")) as raised:
        catalog.insert("Thing", [{"Good": "a", "Bad": None}, {"Good": "b", "Bad": value}])
    assert repr(value) in str(raised.value)
    assert catalog.select("Thing") == []


def test_number_without_a_fraction(catalog: SqlCatalog) -> None:
    """Numbers are stored exactly: a whole float in a column of whole numbers, and a truth value as one."""
    catalog.create_tables(
        [Table("Thing", (Column("Whole", "int4"), Column("Real", "float8"), Column("Is", "boolean")))]
    )
    catalog.insert("Thing", [{"Whole": 3.0, "Real": 2, "Is": 1}, {"Whole": True, "Real": 0.1, "Is": False}])
    rows = [(row["Whole"], row["Real"], row["Is"]) for row in catalog.select("Thing", order=("Whole",))]
    assert rows == [(1, 0.1, False), (3, 2.0, True)]


def test_order_of_texts(catalog: SqlCatalog) -> None:
    """Texts have the order of their bytes, whatever the language of the server."""
    catalog.create_tables([Table("Word", (Column("Text"),))])
    words = ["a", "B", "_", "é", "z", "Z", "-", "10", "9"]
    catalog.insert("Word", [{"Text": word} for word in words])
    assert [row["Text"] for row in catalog.select("Word", order=("Text",))] == sorted(words)


def test_references_are_checked_at_the_end(catalog: SqlCatalog) -> None:
    """Rows may refer to later rows of their transaction; an unknown one is named, and nothing is written."""
    dataset, version = catalog.reserve(2)
    with catalog.transaction():
        catalog.insert("Dataset", [{"RID": dataset, "Version": version}])
        catalog.insert("Dataset_Version", [{"RID": version, "Dataset": dataset, "Version": "0.1.0"}])
    other, missing = catalog.reserve(2)

    def refer_to_nothing() -> None:
        with catalog.transaction():
            catalog.insert("Dataset", [{"RID": other}])
            catalog.update("Dataset", [{"RID": dataset, "Version": missing}])

    with pytest.raises(UnknownRID, match=f"Dataset.Version = '{missing}'"):
        refer_to_nothing()
    assert [row["RID"] for row in catalog.select("Dataset")] == [dataset]
    with pytest.raises(RowInUse, match=f"Dataset {dataset} refers to it by Version"):
        catalog.delete("Dataset_Version", {"RID": version})


def cut_connections(postgres: PostgresServer, database: str) -> None:
    ended = postgres.run(f"SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE datname = '{database}'")
    assert ended
    assert all(done for (done,) in ended)


def test_cut_connection(postgres: PostgresServer, database: str, catalog: SqlCatalog) -> None:
    """After the server has closed the connections, as in a restart, the next call opens another."""
    catalog.insert("Dataset", [{"Description": "before"}])
    cut_connections(postgres, database)
    catalog.insert("Dataset", [{"Description": "after"}])
    cut_connections(postgres, database)
    assert [row["Description"] for row in catalog.select("Dataset", order=("RCT",))] == ["before", "after"]


def test_connection_cut_in_a_transaction(postgres: PostgresServer, database: str, catalog: SqlCatalog) -> None:
    """The call fails, nothing of the transaction is written, and the next call succeeds."""

    def write() -> None:
        with catalog.transaction():
            catalog.insert("Dataset", [{"Description": "lost"}])
            cut_connections(postgres, database)
            catalog.insert("Dataset", [{"Description": "lost too"}])

    with pytest.raises(CatalogUnavailable, match=database):
        write()
    catalog.insert("Dataset", [{"Description": "kept"}])
    assert [row["Description"] for row in catalog.select("Dataset")] == ["kept"]


def in_processes(count: int, function: Callable[..., None], *arguments: object) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=function, args=(number, *arguments)) for number in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * count


def write_rows(number: int, catalog: SqlCatalog) -> None:
    for step in range(10):
        catalog.insert("Dataset", [{"Description": f"{number}-{step}"}, {}])
        catalog.insert_unless("Dataset", {"Description": f"shared {step}"}, {"Description": f"shared {step}"})


def test_processes(catalog: SqlCatalog) -> None:
    """Eight processes write at once: nothing is lost or twice, and no two transactions have one time."""
    in_processes(8, write_rows, catalog)
    rows = catalog.select("Dataset")
    assert sorted(row["Description"] for row in rows if row["Description"]) == sorted(
        [f"{number}-{step}" for number in range(8) for step in range(10)] + [f"shared {step}" for step in range(10)]
    )
    assert len({row["RID"] for row in rows}) == 8 * 10 * 2 + 10
    assert len({row["RCT"] for row in rows}) == 8 * 10 + 10


def test_snapshots_while_others_write(catalog: SqlCatalog) -> None:
    """A snapshot never changes: it has all transactions of earlier times, and none of later ones."""
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            catalog.insert("Dataset", [{}, {}, {}])

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    seen = []
    while len(seen) < 30:
        snapshot = catalog.snapshot()
        seen.append((snapshot, len(catalog.at(snapshot).select("Dataset"))))
    stop.set()
    for thread in threads:
        thread.join()
    assert [(snapshot, len(catalog.at(snapshot).select("Dataset"))) for snapshot, _ in seen] == seen


def create(_: int, uri: str) -> None:
    create_catalog(parse_address(uri), store="file:/unused")


def test_created_once(postgres: PostgresServer) -> None:
    """Processes that create the catalog of a database at once create one."""
    uri = postgres.uri(postgres.create_database())
    in_processes(4, create, uri)
    catalog = open_catalog(parse_address(uri))
    assert {row["Name"] for row in catalog.select("Workflow_Type")} >= {"Training"}


def test_database_without_a_catalog(postgres: PostgresServer) -> None:
    """The error says how to create one."""
    uri = postgres.uri(name := postgres.create_database())
    with pytest.raises(UnknownAddress, match=rf"{name}.* has no catalog.*deriva-ml init --host 'postgresql://"):
        open_catalog(parse_address(uri))


def test_newer_catalog(postgres: PostgresServer, database: str) -> None:
    """A newer version that older software can still use is opened; one that it cannot is refused."""
    postgres.run(f"UPDATE deriva_ml._catalog SET version = {SCHEMA_VERSION + 5}", database)
    open_at(postgres, database).insert("Dataset", [{}])
    postgres.run(f"UPDATE deriva_ml._catalog SET min_writer = {SCHEMA_VERSION + 1}", database)
    with pytest.raises(CatalogTooNew, match=f"version {SCHEMA_VERSION + 5}"):
        open_at(postgres, database)


def test_unreachable_servers(postgres: PostgresServer) -> None:
    """No server, an unknown database and an unknown user are told apart."""
    with pytest.raises(CatalogUnavailable, match="cannot be reached"):
        open_catalog(parse_address("postgresql://ada@127.0.0.1:1/ml"))
    with pytest.raises(ConfigurationError, match="no such database"):
        open_catalog(parse_address(postgres.uri("nonesuch")))
    with pytest.raises(LoginRequired, match=r"nobody_here.*\.pgpass"):
        open_catalog(parse_address(postgres.uri("postgres", user="nobody_here")))
