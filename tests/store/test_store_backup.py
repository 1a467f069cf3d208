"""Backups of a store that is written, and their way back."""

import json
import os
import threading
from pathlib import Path
from typing import Any

import duckdb
import pytest

from store.backup import BESIDE, MANIFEST, CannotBackUp, CannotRestore, copy, manifest_of, restore, seal
from store.database import FILE, StoreTooNew
from store.settings import StoreSettings
from store.writer import StoreOverloaded
from tests.store_kit import START, Store, span


def backed_up(store: Store, out: Path) -> Path:
    copy(store.database, out)
    seal(out, START)
    return out


def rows(number: int) -> list[dict[str, Any]]:
    """A commit that is there as a whole or not at all."""
    return [span(f"{number}-{index}", trace=f"t{number}", input_messages=os.urandom(200).hex()) for index in range(20)]


def test_backup_comes_back_whole(store: Store, tmp_path: Path) -> None:
    (store.directory / "user-id.key").write_bytes(b"secret")
    store.put("spans", *rows(1))
    store.sql("CHECKPOINT")
    store.put("spans", *rows(2))
    store.put("scores", {"score_id": "x"})
    backup = backed_up(store, tmp_path / "backup")
    store.put("spans", *rows(3))

    manifest = restore(backup, tmp_path / "restored")
    again = Store(tmp_path / "restored", StoreSettings())
    assert again.sql("SELECT DISTINCT trace_id FROM spans ORDER BY 1") == [("t1",), ("t2",)]
    assert (manifest.rows["spans"], manifest.rows["scores"], manifest.made_at) == (40, 1, START)
    assert again.put("spans", *rows(2)).duplicates == {"spans": 20}
    again.close()
    assert (tmp_path / "restored" / "user-id.key").read_bytes() == b"secret"
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "restored").glob("*.key")} == {0o600}


def test_backups_while_rows_and_checkpoints_come_hold_whole_commits(store: Store, tmp_path: Path) -> None:
    ending, acknowledged = threading.Event(), [0]

    def write() -> None:
        while not ending.is_set():
            try:
                store.put("spans", *rows(acknowledged[0] + 1))
                acknowledged[0] += 1
            except StoreOverloaded:
                continue

    def fold() -> None:
        while not ending.wait(0.02):
            if store.database.fold_at():
                store.sql("CHECKPOINT")

    threads = [threading.Thread(target=write), threading.Thread(target=fold)]
    for thread in threads:
        thread.start()
    known = []
    for number in range(5):
        known.append(acknowledged[0])
        copy(store.database, tmp_path / f"b{number}")
    ending.set()
    for thread in threads:
        thread.join()
    for number, least in enumerate(known):
        seal(tmp_path / f"b{number}", START)
        connection = duckdb.connect(str(tmp_path / f"b{number}" / FILE))
        commits = connection.execute("SELECT trace_id, count(*) FROM spans GROUP BY ALL").fetchall()
        connection.close()
        assert {count for _, count in commits} <= {20}
        assert {name for name, _ in commits} == {f"t{index + 1}" for index in range(len(commits))}
        assert len(commits) >= least


def test_checkpoints_go_on_after_a_backup(store: Store, tmp_path: Path) -> None:
    store.put("spans", *rows(1))
    settings = "SELECT current_setting('checkpoint_threshold')"
    before = store.database.fold_at(), store.sql(settings)
    with store.database.held():
        assert store.database.fold_at() == 0
        assert store.sql(settings) != before[1]
    assert (store.database.fold_at(), store.sql(settings)) == before


def test_directory_with_something_in_it_is_not_backed_up_into(store: Store, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(CannotBackUp, match="is not empty; give a new directory"):
        copy(store.database, tmp_path / "full")


def test_nothing_is_overwritten_by_a_restore(store: Store, tmp_path: Path) -> None:
    backup = backed_up(store, tmp_path / "backup")
    with pytest.raises(CannotRestore, match=r"holds tidegauge\.duckdb.*; nothing is overwritten"):
        restore(backup, store.directory)


def test_copy_without_its_manifest_is_no_backup(store: Store, tmp_path: Path) -> None:
    copy(store.database, tmp_path / "half")
    with pytest.raises(CannotRestore, match=r"manifest\.json: No such file.*no complete backup"):
        restore(tmp_path / "half", tmp_path / "restored")


def test_damaged_backup_is_refused_and_leaves_nothing(store: Store, tmp_path: Path) -> None:
    store.put("spans", *rows(1))
    backup = backed_up(store, tmp_path / "backup")
    with (backup / FILE).open("r+b") as file:
        file.seek(20_000)
        file.write(b"\xa5")
    with pytest.raises(CannotRestore, match="is not what was backed up: its checksum differs"):
        restore(backup, tmp_path / "restored")
    assert list((tmp_path / "restored").iterdir()) == []


def test_damaged_store_is_not_backed_up_as_if_it_were_whole(store: Store, tmp_path: Path) -> None:
    store.put("spans", *(row for number in range(100) for row in rows(number)))
    store.sql("CHECKPOINT")
    copy(store.database, tmp_path / "backup")
    [(block, *_), *_] = store.sql(
        "SELECT block_id FROM pragma_storage_info('spans') WHERE persistent AND column_name = 'input_messages'"
    )
    with (tmp_path / "backup" / FILE).open("r+b") as file:
        file.seek(3 * 4096 + block * 262_144 + 5_000)
        file.write(b"\xa5" * 40)
    with pytest.raises(CannotBackUp, match="cannot be read: Corrupt database file"):
        seal(tmp_path / "backup", START)
    assert not (tmp_path / "backup" / MANIFEST).exists()


def test_backup_of_a_newer_version_is_refused(store: Store, tmp_path: Path) -> None:
    backup = backed_up(store, tmp_path / "backup")
    document = json.loads((backup / MANIFEST).read_text())
    (backup / MANIFEST).write_text(json.dumps({**document, "version": 999}))
    with pytest.raises(StoreTooNew, match="has schema 999, this version knows up to"):
        restore(backup, tmp_path / "restored")


def test_manifest_cannot_lead_out_of_the_directory(store: Store, tmp_path: Path) -> None:
    backup = backed_up(store, tmp_path / "backup")
    document = json.loads((backup / MANIFEST).read_text())
    document["files"]["../keys.json"] = document["files"][FILE]
    (backup / MANIFEST).write_text(json.dumps(document))
    with pytest.raises(CannotRestore, match="which is no file of a backup"):
        restore(backup, tmp_path / "restored")
    assert manifest_of(backup).files.keys() - {"../keys.json"} <= {FILE, *BESIDE}
