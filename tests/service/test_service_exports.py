"""Tables as Arrow over HTTP and as files; backups through the running service and back."""

import asyncio
import csv
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from catalog.clock import SystemClock
from collector.otlp.conversions import hashed
from service.api import exports
from service.auth import Role
from service.cli import app
from service.config import Config
from service.runtime import Service
from store.batch import Batch
from store.scope import moment
from tests.e2e.service_kit import free_ports
from tests.store_kit import as_table, span

NOW = SystemClock().now()
ARROW = "application/vnd.apache.arrow.stream"


class Running:
    """A service with rows of two tenants and one of nobody's, and the commands that talk to it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        http, grpc, otlp = free_ports(3)
        addresses = {"listen": f"127.0.0.1:{http}", "otlp_grpc": f"127.0.0.1:{grpc}", "otlp_http": f"127.0.0.1:{otlp}"}
        self.service = Service(Config.model_validate({"data": directory, **addresses}))

    async def start(self) -> None:
        await self.service.listen()
        times: dict[str, Any] = {"start_time": moment(NOW - 60), "end_time": moment(NOW - 50)}
        rows = [
            span("a1", tenant="acme", user_id="u") | times,
            span("a2", tenant="acme", start_time=moment(NOW - 90_000), end_time=moment(NOW - 89_999)),
            span("b1", trace="t2", tenant="other") | times,
            span("c1", trace="t3") | times,
        ]
        tick = {"time": moment(NOW - 5), "target": "gpu"}
        tables = {"spans": as_table("spans", rows), "engine_state": as_table("engine_state", [tick])}
        await asyncio.wrap_future(self.service.writer.submit(Batch(tables)))

    async def get(self, path: str, key: str = "") -> httpx.Response:
        async with httpx.AsyncClient(base_url=self.service.config.url()) as client:
            return await client.get(path, headers={"authorization": f"Bearer {key}"} if key else {})

    async def rows(self, path: str, key: str = "") -> list[dict[str, Any]]:
        answer = await self.get(path, key)
        assert (answer.status_code, answer.headers["content-type"]) == (200, ARROW), answer.text
        rows: list[dict[str, Any]] = pa.ipc.open_stream(answer.content).read_all().to_pylist()
        return rows

    def key(self, *tenants: str) -> str:
        return self.service.keys.create(Role.READ, name="reader", tenants=list(tenants) or None)[1]

    async def command(self, *words: str) -> tuple[int, str]:
        done = await asyncio.to_thread(CliRunner().invoke, app, list(words))
        return done.exit_code, done.output


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    made = Running(tmp_path / "data")
    await made.start()
    yield made
    await made.service.stop()


async def test_table_comes_as_an_arrow_stream_with_the_columns_of_the_documents(running: Running) -> None:
    rows = await running.rows("/api/v1/export/spans")
    assert [row["span_id"] for row in rows] == ["a1", "a2", "b1", "c1"]
    assert rows[0]["start_time"] == moment(NOW - 60)
    assert "commit_seq" not in rows[0]


async def test_range_tenant_and_columns_are_chosen(running: Running) -> None:
    rows = await running.rows("/api/v1/export/spans?from=-1h&tenant=acme&columns=span_id,tenant")
    assert rows == [{"span_id": "a1", "tenant": "acme"}]


async def test_key_sees_the_rows_of_its_tenants_alone(running: Running) -> None:
    key = running.key("acme")
    for path in ("spans", "spans?tenant=other", "requests", "spans?from=-1h"):
        rows = await running.rows(f"/api/v1/export/{path}", key)
        assert {row["tenant"] for row in rows} <= {"acme"}, path
    assert len(await running.rows("/api/v1/export/spans", key)) == 2


async def test_table_without_tenants_is_not_for_a_key_that_has_them(running: Running) -> None:
    assert len(await running.rows("/api/v1/export/engine_state", running.key())) == 1
    answer = await running.get("/api/v1/export/engine_state", running.key("acme"))
    assert (answer.status_code, answer.json()["detail"]) == (
        403,
        "engine_state says nothing of tenants; it takes a key that is bound to none",
    )


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("audit_log", 404, "'audit_log' cannot be exported; there are requests, spans,"),
        ("cursors", 404, "'cursors' cannot be exported"),
        ("spans?columns=commit_seq", 400, "spans has no column 'commit_seq'; there are start_time,"),
        ("spans?columns=1;DROP TABLE spans", 400, "spans has no column '1;DROP TABLE spans'"),
        ("spans?from=yesterday", 400, "'yesterday' is no time"),
        ("engine_state?tenant=acme", 400, "'tenant' is no filter here"),
        ("spans?form=csv", 400, "'form' is no parameter here; did you mean 'from'?"),
    ],
    ids=["table", "internal table", "internal column", "injection", "time", "filter", "parameter"],
)
async def test_what_cannot_be_exported_is_named(running: Running, path: str, status: int, says: str) -> None:
    answer = await running.get(f"/api/v1/export/{path}")
    assert (answer.status_code, says in answer.json()["detail"]) == (status, True), answer.text


async def test_snapshot_and_room_are_given_back_when_a_reader_goes(running: Running) -> None:
    rows = [span(f"s{index}", trace=f"x{index}", input_messages="x" * 2_000) for index in range(20_000)]
    await asyncio.wrap_future(running.service.writer.submit(Batch({"spans": as_table("spans", rows)})))
    url = f"{running.service.config.url()}/api/v1/export/spans"
    for _ in range(3 * exports.MAX_EXPORTS):
        while True:
            async with httpx.AsyncClient() as client, client.stream("GET", url) as answer:
                if answer.status_code == 200:
                    await anext(answer.aiter_bytes(1_000))
                    break
            await asyncio.sleep(0.05)  # the one before is not gone yet
    assert len(await running.rows("/api/v1/export/spans?columns=span_id")) == 20_004


async def test_command_writes_each_format_through_the_service(running: Running, tmp_path: Path) -> None:
    for form in ("parquet", "csv", "jsonl", "arrow"):
        words = ["--format", form, "--since", "1h", "--columns", "span_id,start_time", "--tenant", "acme"]
        code, text = await running.command(
            "export", "spans", "--out", str(tmp_path / form), "--data", str(running.directory), *words
        )
        assert (code, text.startswith("1 rows of spans")) == (0, True), text
    assert pyarrow.parquet.read_table(tmp_path / "parquet").column("span_id").to_pylist() == ["a1"]
    assert [row["span_id"] for row in csv.DictReader((tmp_path / "csv").open())] == ["a1"]
    assert json.loads((tmp_path / "jsonl").read_text())["span_id"] == "a1"
    assert pa.ipc.open_file(tmp_path / "arrow").read_all().column("span_id").to_pylist() == ["a1"]


async def test_command_exports_from_a_directory_that_nobody_has_open(running: Running, tmp_path: Path) -> None:
    await running.service.stop()
    words = ("--out", str(tmp_path / "out"), "--data", str(running.directory), "--json")
    code, text = await running.command("export", "spans", *words)
    assert (code, json.loads(text)["rows"]) == (0, 4), text
    code, text = await running.command("export", "spams", *words)
    assert (code, "'spams' cannot be exported" in text) == (2, True), text


async def test_backup_through_the_running_service_comes_back(running: Running, tmp_path: Path) -> None:
    backup, restored = str(tmp_path / "backup"), str(tmp_path / "restored")
    code, text = await running.command("backup", "--out", backup, "--data", str(running.directory), "--json")
    assert (code, json.loads(text)["rows"]["spans"]) == (0, 4), text
    metrics = (await running.get("/metrics")).text
    assert "tidegauge_store_backup_timestamp_seconds 0.0" not in metrics
    code, text = await running.command("restore", backup, "--data", restored)
    assert (code, text.startswith("restored to")) == (0, True), text
    code, text = await running.command("restore", backup, "--data", restored)
    assert (code, "nothing is overwritten" in text.replace("\n", " ")) == (2, True), text
    code, text = await running.command("export", "spans", "--out", f"{restored}.parquet", "--data", restored, "--json")
    assert (code, json.loads(text)["rows"]) == (0, 4), text


async def test_backup_is_for_this_machine_alone(running: Running, tmp_path: Path) -> None:
    key = running.service.keys.create(Role.ADMIN, name="admin")[1]
    async with httpx.AsyncClient(base_url=running.service.config.url()) as client:
        answer = await client.post(
            "/api/v1/admin/backup", json={"out": str(tmp_path / "b")}, headers={"authorization": f"Bearer {key}"}
        )
    assert (answer.status_code, (tmp_path / "b").exists()) == (403, False)


async def test_user_is_erased_by_the_id_that_applications_send(running: Running) -> None:
    key = (running.directory / "user-id.key").read_bytes()
    mine = span("mine", trace="t9", user_id=hashed("4711", key))
    await asyncio.wrap_future(running.service.writer.submit(Batch({"spans": as_table("spans", [mine])})))
    code, text = await running.command("erase", "--user", "4711", "--data", str(running.directory), "--json")
    assert (code, json.loads(text)["removed"]["spans"]) == (0, 1), text
    assert len(await running.rows("/api/v1/export/spans")) == 4
