"""The schema on disk, its versions, and files that cannot be opened."""

import lzma
import subprocess
import sys
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from store.database import FILE, Database, StoreCorrupt, StoreLocked, StoreTooNew, migrations
from store.reads import Reads
from store.tables import TABLES
from tests.store_kit import START, Store, span

DATA = Path(__file__).parents[1] / "data" / "store"
KINDS = {
    pa.timestamp("us", tz="UTC"): "TIMESTAMP WITH TIME ZONE",
    pa.string(): "VARCHAR",
    pa.float64(): "DOUBLE",
    pa.int64(): "BIGINT",
    pa.bool_(): "BOOLEAN",
}


def test_arrow_schemas_are_the_tables_on_disk(store: Store) -> None:
    on_disk = store.sql(
        "SELECT table_name, column_name, data_type FROM information_schema.columns ORDER BY ordinal_position"
    )
    for name, schema in TABLES.items():
        found = {column: kind for table, column, kind in on_disk if table == name}
        assert found == {field.name: KINDS[field.type] for field in schema}, name


def test_migrations_are_numbered_without_a_gap() -> None:
    assert [number for number, _ in migrations()] == list(range(1, len(migrations()) + 1))


@pytest.mark.parametrize("version", sorted(path.stem.split(".")[0] for path in DATA.glob("schema-*.duckdb.xz")))
def test_directory_of_an_earlier_schema_opens_with_all_it_holds(tmp_path: Path, version: str) -> None:
    (tmp_path / FILE).write_bytes(lzma.decompress((DATA / f"{version}.duckdb.xz").read_bytes()))
    database = Database(tmp_path)
    try:
        assert database.migrated_from == int(version.removeprefix("schema-"))
        reads = Reads(database)
        pending = reads.pending_requests(after_seq=0, settled_before=START + 1e6, limit=10)
        assert pending.column("span_id").to_pylist() == ["client"]
        assert reads.cursor("evals") == 1
        assert pending.column_names == TABLES["spans"].names
    finally:
        database.close()


def test_newer_schema_is_refused_untouched(tmp_path: Path) -> None:
    Database(tmp_path).close()
    connection = duckdb.connect(str(tmp_path / FILE))
    connection.execute("INSERT INTO schema_version VALUES (999, now())")
    connection.close()
    with pytest.raises(StoreTooNew, match="has schema 999, this version knows up to"):
        Database(tmp_path)


def test_corrupt_file_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"this is no database" * 1000)
    with pytest.raises(StoreCorrupt, match=r"tidegauge\.duckdb is damaged"):
        Database(tmp_path)


def test_directory_in_use_by_another_process_is_refused(tmp_path: Path, store: Store) -> None:
    program = (
        "import sys; from pathlib import Path; from store.database import Database, StoreLocked\n"
        "try: Database(Path(sys.argv[1]))\n"
        "except StoreLocked as error: print(error); sys.exit(7)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(store.directory)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, "is open in another process" in done.stdout) == (7, True), done
    assert StoreLocked.__doc__


def test_requests_view_has_every_column_of_spans(store: Store) -> None:
    store.put("spans", span("a"))
    view = store.sql("SELECT column_name FROM information_schema.columns WHERE table_name = 'requests'")
    assert {name for (name,) in view} == set(TABLES["spans"].names)
