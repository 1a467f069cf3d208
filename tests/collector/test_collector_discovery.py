"""HTTP and DNS discovery against local servers; shards; what is left out, and why."""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import aiodns
import pytest
from aiohttp import web
from discovery_support import Listed, serving
from pydantic import ValidationError

from collector.discovery.dns import DnsDiscovery
from collector.discovery.http import HttpDiscovery
from collector.discovery.relabel import RelabelSettings
from collector.discovery.settings import DnsDiscoverySettings, HttpDiscoverySettings, ShardSettings
from collector.settings import ScrapeSettings

GROUPS = [{"targets": ["a:1", "b:2"], "labels": {"environment": "prod", "__meta_rack": "7"}}]


class Inventory:
    """A server of http_sd."""

    def __init__(self) -> None:
        self.body = json.dumps(GROUPS)
        self.status = 200
        self.seen: dict[str, str] = {}
        self.hangs = False

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.seen = dict(request.headers)
        if self.hangs:
            await asyncio.sleep(60)
        return web.Response(text=self.body, status=self.status, content_type="application/json")


@pytest.fixture
async def inventory() -> AsyncIterator[tuple[Inventory, str]]:
    inventory = Inventory()
    async with serving(inventory.answer) as url:
        yield inventory, url


def over_http(url: str, **given: object) -> HttpDiscovery:
    settings = HttpDiscoverySettings.model_validate({"url": f"{url}/engines?token=x", "timeout": 0.3, **given})
    return HttpDiscovery(settings, checking=True)


async def test_http_sd_lists_prometheus_s_groups(inventory: tuple[Inventory, str], tmp_path: Path) -> None:
    (tmp_path / "key").write_text("key\n")
    headers = {"X-Team": "inference"}
    source = over_http(inventory[1], bearer_token_file=str(tmp_path / "key"), headers=headers)
    listed = Listed(source)
    assert await listed.look() == {"a:1": "http://a:1/metrics", "b:2": "http://b:2/metrics"}
    sent = inventory[0].seen
    assert (sent["Authorization"], sent["X-Team"], sent["X-Prometheus-Refresh-Interval-Seconds"]) == (
        "Bearer key",
        "inference",
        "60",
    )
    assert dict(source.found()[0].labels)["__meta_url"] == f"{inventory[1]}/engines"
    assert listed.count("tidegauge_targets", source="http_sd") == 2
    await listed.close()


FAILS = {
    "status": ({"status": 500}, "answered 500 Internal Server Error"),
    "not JSON": ({"body": "<html>"}, "answered with what is not JSON: line 1: Expecting value"),
    "no list": ({"body": '{"a": 1}'}, "holds a dict; write a list of"),
    "typo": ({"body": '[{"target": ["a:1"]}]'}, "[0]: neither 'targets' nor 'url'"),
    "bad target": ({"body": '[{"targets": ["a:port"]}]'}, "[0]: 'http://a:port/metrics' is no URL"),
    "hanging": ({"hangs": True}, "did not answer within 0.3 s"),
    "deep": ({"body": "[" * 100_000}, ""),
}


@pytest.mark.parametrize(("change", "message"), FAILS.values(), ids=FAILS.keys())
async def test_http_sd_that_fails_keeps_its_last_answer_counts_and_says_why(
    inventory: tuple[Inventory, str], change: dict[str, object], message: str
) -> None:
    listed = Listed(over_http(inventory[1]))
    good = await listed.look()
    for name, value in change.items():
        setattr(inventory[0], name, value)
    bad = await listed.look()
    (error,) = listed.list.errors
    assert (good, bad) == (good, good)
    assert error.startswith(f"http_sd {inventory[1]}/engines: {message}")
    assert error.endswith("; its last answer (2 targets) stays in use")
    assert listed.count("tidegauge_discovery_errors_total", source="http_sd") == 1
    inventory[0].status, inventory[0].body, inventory[0].hangs = 200, "[]", False
    assert (await listed.look(), listed.list.errors) == ({}, [])
    await listed.close()


class NameServer(asyncio.DatagramProtocol):
    """Answers from a table of name and type to records; what is not there does not exist."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, int], list[bytes]] = {}
        self.refuses = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        end = data.index(b"\0", 12) + 5
        labels, place = [], 12
        while data[place]:
            labels.append(data[place + 1 : place + 1 + data[place]].decode())
            place += 1 + data[place]
        kind = struct.unpack(">H", data[end - 4 : end - 2])[0]
        found = self.records.get((".".join(labels), kind), [])
        code = 5 if self.refuses else 0 if found else 3
        head = data[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, len(found), 0, 0)
        body = b"".join(b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 0, len(one)) + one for one in found)
        self.transport.sendto(head + data[12:end] + body, address)


def srv(port: int, host: str) -> bytes:
    return struct.pack(">HHH", 0, 0, port) + b"".join(
        bytes([len(part)]) + part.encode() for part in [*host.split("."), ""]
    )


@pytest.fixture
async def names() -> AsyncIterator[tuple[NameServer, aiodns.DNSResolver]]:
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(NameServer, local_addr=("127.0.0.1", 0))
    port = transport.get_extra_info("sockname")[1]
    resolver = aiodns.DNSResolver(nameservers=[f"127.0.0.1:{port}"], timeout=0.5, tries=1)
    yield server, resolver
    await resolver.close()
    transport.close()


def over_dns(resolver: aiodns.DNSResolver, **given: object) -> DnsDiscovery:
    return DnsDiscovery(DnsDiscoverySettings.model_validate({"names": ["engines.test"], **given}), resolver)


async def test_srv_records_have_host_and_port(names: tuple[NameServer, aiodns.DNSResolver]) -> None:
    server, resolver = names
    server.records["engines.test", 33] = [srv(8000, "a.test"), srv(8001, "b.test")]
    source = over_dns(resolver)
    listed = Listed(source)
    assert sorted(await listed.look()) == ["a.test:8000", "b.test:8001"]
    meta = dict(source.found()[0].labels)
    assert {name: value for name, value in meta.items() if name.startswith("__meta")} == {
        "__meta_dns_name": "engines.test",
        "__meta_dns_srv_record_target": meta["__meta_dns_srv_record_target"],
        "__meta_dns_srv_record_port": meta["__address__"].rpartition(":")[2],
    }


@pytest.mark.parametrize(
    ("kind", "number", "record", "url"),
    [
        ("A", 1, socket.inet_pton(socket.AF_INET, "10.0.0.7"), "http://10.0.0.7:8000/metrics"),
        ("AAAA", 28, socket.inet_pton(socket.AF_INET6, "fd00::7"), "http://[fd00::7]:8000/metrics"),
    ],
    ids=["A", "AAAA"],
)
async def test_addresses_get_the_port_of_the_setting(
    names: tuple[NameServer, aiodns.DNSResolver], kind: str, number: int, record: bytes, url: str
) -> None:
    server, resolver = names
    server.records["engines.test", number] = [record]
    assert list((await Listed(over_dns(resolver, type=kind, port=8000)).look()).values()) == [url]


async def test_a_name_without_records_has_no_targets_and_a_resolver_that_fails_keeps_them(
    names: tuple[NameServer, aiodns.DNSResolver],
) -> None:
    server, resolver = names
    server.records["engines.test", 33] = [srv(8000, "a.test")]
    listed = Listed(over_dns(resolver))
    seen = [await listed.look()]
    server.refuses = True
    seen.append(await listed.look())
    (error,) = listed.list.errors
    server.refuses, server.records = False, {}
    seen.append(await listed.look())
    assert seen == [{"a.test:8000": "http://a.test:8000/metrics"}] * 2 + [{}]
    assert error.startswith("dns_sd SRV engines.test: engines.test: ")
    assert error.endswith("; its last answer (1 targets) stays in use")


async def test_shards_take_each_target_exactly_once_whatever_the_order() -> None:
    urls = tuple(f"http://gpu-{number}:8000" for number in range(60))
    shards = [
        Listed(static=order, shard=ShardSettings(index=index, count=3)).targets()
        for index, order in enumerate((urls, urls[::-1], urls))
    ]
    assert sorted(name for shard in shards for name in shard) == sorted(url.removeprefix("http://") for url in urls)
    assert all(shards)


async def test_shard_and_hashmod_split_alike() -> None:
    urls = tuple(f"http://gpu-{number}:8000" for number in range(20))
    step = {"source_labels": ["__address__"], "modulus": 4, "target_label": "__tmp_hash", "action": "hashmod"}
    keep = {"source_labels": ["__tmp_hash"], "regex": "2", "action": "keep"}
    steps = tuple(RelabelSettings.model_validate(one) for one in (step, keep))
    by_shard = Listed(static=urls, shard=ShardSettings(index=2, count=4))
    assert Listed(static=urls, relabel=steps).targets() == by_shard.targets()
    assert by_shard.count("tidegauge_targets_dropped", reason="sharded") == 20 - len(by_shard.targets())


def relabelled(*steps: dict[str, object]) -> Listed:
    urls = ("http://user:secret@a:1/m?model=x", "http://b:1")
    return Listed(static=urls, relabel=tuple(RelabelSettings.model_validate(step) for step in steps))


def test_relabelling_writes_where_and_how_to_scrape() -> None:
    listed = relabelled(
        {"source_labels": ["__address__"], "regex": "(.*):1", "replacement": "$1:9", "target_label": "__address__"},
        {"target_label": "__scheme__", "replacement": "https"},
        {"source_labels": ["__address__"], "target_label": "instance", "regex": "(.).*"},
    )
    assert listed.targets() == {"a": "https://user:secret@a:9/m?model=x", "b": "https://b:9/metrics"}
    assert "secret" not in repr(listed.list.chosen)


def test_a_query_stays_as_it_was_given_unless_a_parameter_is_relabelled() -> None:
    step = {"source_labels": ["__param_model"], "replacement": "y z", "target_label": "__param_model", "regex": "x"}
    urls = ("http://a:1/m?all&model=x", "http://b:1/m?all&model=v&model=w")
    steps = (RelabelSettings.model_validate(step),)
    assert list(Listed(static=urls).targets().values()) == list(urls)
    assert list(Listed(static=urls, relabel=steps).targets().values()) == ["http://a:1/m?model=y%20z", urls[1]]


def test_what_is_left_out_says_why() -> None:
    listed = relabelled(
        {"source_labels": ["__address__"], "regex": "a:1", "action": "drop"},
        {"source_labels": ["__address__"], "target_label": "le"},
    )
    assert listed.targets() == {}
    assert [(one.reason, one.labels["__address__"]) for one in listed.list.chosen.examples] == [
        ("relabelled", "a:1"),
        ("invalid", "b:1"),
    ]
    assert listed.list.errors == ["static: left out: the label 'le' is Tidegauge's own; choose another name"]


WRONG = {
    "shard": ({"shard": {"index": 3, "count": 3}}, ("shard",), "index 3 is not below count 3"),
    "dns port": ({"dns_sd": [{"names": ["a"], "type": "A"}]}, ("dns_sd", 0), "port is missing; A records have none"),
    "dns names": ({"dns_sd": [{"names": []}]}, ("dns_sd", 0, "names"), "at least 1 item"),
    "http url": ({"http_sd": [{"url": "inventory:80"}]}, ("http_sd", 0, "url"), "'inventory:80' is no URL"),
    "role": ({"kubernetes_sd": [{"role": "node"}]}, ("kubernetes_sd", 0, "role"), "Input should be 'pod'"),
    "endpoints": (
        {"kubernetes_sd": [{"role": "endpoints", "annotations": True}]},
        ("kubernetes_sd", 0),
        "annotations are those of pods",
    ),
    "relabel": ({"relabel_configs": [{}]}, ("relabel_configs", 0), "target_label is missing"),
}


@pytest.mark.parametrize(("given", "where", "message"), WRONG.values(), ids=WRONG.keys())
def test_wrong_settings_say_where_and_what(given: dict[str, object], where: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValidationError, match="1 validation error") as caught:
        ScrapeSettings.model_validate(given)
    (error,) = caught.value.errors()
    assert error["loc"] == where
    assert message in error["msg"]
