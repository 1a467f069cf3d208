"""Kubernetes discovery against a local API server that pages, ends watches, forgets versions and breaks off."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from discovery_support import Listed, serving

from collector.discovery.kubernetes import KubernetesDiscovery
from collector.discovery.kubernetes_objects import endpoints_targets, pod_targets
from collector.discovery.settings import KubernetesDiscoverySettings

Event = dict[str, Any]


def pod(name: str, version: int = 1, ip: str = "10.0.0.1", **annotations: str) -> dict[str, Any]:
    said = {f"prometheus.io/{key}": value for key, value in {"scrape": "true", **annotations}.items()}
    return {
        "metadata": {
            "name": name,
            "namespace": "inference",
            "uid": f"uid-{name}",
            "resourceVersion": str(version),
            "labels": {"app.kubernetes.io/name": "vllm"},
            "annotations": said,
            "ownerReferences": [{"kind": "ReplicaSet", "name": "vllm-5d", "controller": True}],
        },
        "spec": {
            "nodeName": "gpu-7",
            "containers": [
                {"name": "vllm", "image": "vllm:0.32.0", "ports": [{"name": "http", "containerPort": 8000}]},
                {"name": "sidecar", "image": "proxy"},
            ],
        },
        "status": {
            "phase": "Running",
            "podIP": ip,
            "hostIP": "192.168.0.7",
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def changed(kind: str, item: dict[str, Any]) -> Event:
    return {"type": kind, "object": item}


def bookmark(version: int) -> Event:
    return changed("BOOKMARK", {"metadata": {"resourceVersion": str(version)}})


class Api:
    """Lists `pods` by pages of two, and plays one script of events per watch; None breaks the connection."""

    def __init__(self) -> None:
        self.pods: list[dict[str, Any]] = []
        self.version = 10
        self.scripts: list[list[Event | None]] = []
        self.status = 200
        self.lists = 0
        self.watched: list[dict[str, str]] = []
        self.headers: dict[str, str] = {}
        self.paths: set[str] = set()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.headers, query = dict(request.headers), dict(request.query)
        self.paths.add(request.path)
        if self.status != 200:
            return web.json_response({"kind": "Status", "message": "pods is forbidden"}, status=self.status)
        if "watch" in query:
            self.watched.append(query)
            return await self._watch(request)
        start = int(query.get("continue") or 0)
        self.lists += start == 0
        metadata = {"resourceVersion": str(self.version)}
        if start + 2 < len(self.pods):
            metadata["continue"] = str(start + 2)
        return web.json_response({"kind": "PodList", "metadata": metadata, "items": self.pods[start : start + 2]})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        if not self.scripts:
            await asyncio.sleep(30)
            return response
        for event in self.scripts.pop(0):
            if event is None:
                assert request.transport is not None
                request.transport.abort()
                break
            text = json.dumps(event).encode() + b"\n"
            # Events come in pieces that know nothing of lines.
            await response.write(text[:40])
            await asyncio.sleep(0)
            await response.write(text[40:])
        return response


@pytest.fixture
async def api() -> AsyncIterator[tuple[Api, str]]:
    api = Api()
    async with serving(api.answer) as url:
        yield api, url


def discovery(url: str, namespace: str = "", **given: object) -> KubernetesDiscovery:
    settings = KubernetesDiscoverySettings.model_validate({"api_server": url, **given})
    return KubernetesDiscovery(settings, namespace, {})


async def steps(listed: Listed, number: int) -> dict[str, str]:
    """What is listed after so many lists and watches."""
    for _ in range(number):
        found = await listed.look()
    return found


async def test_annotated_pods_are_listed_over_all_pages(api: tuple[Api, str]) -> None:
    api[0].pods = [
        pod("plain", ip="10.0.0.1", port="8000"),
        pod("other", ip="10.0.0.2", port="9000", path="/prometheus/metrics", scheme="https"),
        pod("not asked for", ip="10.0.0.3", scrape="false"),
        pod("by its ports", ip="10.0.0.4"),
        pod("no address yet", ip=""),
    ]
    listed = Listed(discovery(api[1]))
    assert await steps(listed, 1) == {
        "10.0.0.1:8000": "http://10.0.0.1:8000/metrics",
        "10.0.0.2:9000": "https://10.0.0.2:9000/prometheus/metrics",
        "10.0.0.4:8000": "http://10.0.0.4:8000/metrics",
    }
    labels = dict(listed.list.refresh()[0].labels)
    assert labels == {"namespace": "inference", "pod": "plain", "node": "gpu-7"}
    await listed.close()


async def test_a_watch_is_followed_from_version_to_version_bookmarks_included(api: tuple[Api, str]) -> None:
    server, url = api
    server.pods = [pod("a", ip="10.0.0.1", port="1")]
    server.scripts = [
        [changed("ADDED", pod("b", 11, "10.0.0.2", port="1")), bookmark(20), None],
        [
            changed("DELETED", pod("a", 21, "10.0.0.1", port="1")),
            changed("MODIFIED", pod("b", 22, "10.0.0.3", port="1")),
        ],
    ]
    listed = Listed(discovery(url, label_selector="app=vllm"))
    seen = [sorted(await steps(listed, 1)) for _ in range(3)]
    assert seen == [["10.0.0.1:1"], ["10.0.0.1:1", "10.0.0.2:1"], ["10.0.0.3:1"]]
    assert [query["resourceVersion"] for query in server.watched] == ["10", "20"]
    assert {query["labelSelector"] for query in server.watched} == {"app=vllm"}
    assert {query["allowWatchBookmarks"] for query in server.watched} == {"true"}
    assert (server.lists, listed.list.errors) == (1, [])
    await listed.close()


GONE = {"kind": "Status", "code": 410, "message": "too old resource version: 10 (20)"}


@pytest.mark.parametrize("how", ["event", "status"])
async def test_a_forgotten_version_is_listed_anew_and_nothing_is_lost_meanwhile(api: tuple[Api, str], how: str) -> None:
    server, url = api
    server.pods = [pod("a", port="1")]
    listed = Listed(discovery(url))
    seen = [await steps(listed, 1)]
    server.pods, server.version = [pod("b", ip="10.0.0.2", port="1")], 30
    if how == "event":
        server.scripts = [[changed("ERROR", GONE)]]
    else:
        server.status = 410
    seen.append(await steps(listed, 1))
    server.status = 200
    seen.append(await steps(listed, 1))
    assert [sorted(one) for one in seen] == [["10.0.0.1:1"], ["10.0.0.1:1"], ["10.0.0.2:1"]]
    assert (server.lists, listed.list.errors) == (2, [])
    await listed.close()


FAILS: dict[str, tuple[Callable[[Api], None], str]] = {
    "forbidden": (lambda api: setattr(api, "status", 403), "/api/v1/pods answered 403 Forbidden: pods is forbidden"),
    "error event": (
        lambda api: api.scripts.append([changed("ERROR", {"code": 500, "message": "etcd is away"})]),
        "/api/v1/pods: etcd is away",
    ),
    "no event": (lambda api: api.scripts.append([["no event"]]), "/api/v1/pods: "),  # type: ignore[list-item]
}


@pytest.mark.parametrize(("change", "message"), FAILS.values(), ids=FAILS.keys())
async def test_an_api_that_fails_keeps_the_targets_counts_and_says_why(
    api: tuple[Api, str], change: Callable[[Api], None], message: str
) -> None:
    server, url = api
    server.pods = [pod("a", port="1")]
    listed = Listed(discovery(url))
    good = await steps(listed, 1)
    change(server)
    assert await steps(listed, 1) == good
    (error,) = listed.list.errors
    assert error.startswith(f"kubernetes_sd pod: {message}")
    assert error.endswith("; its last answer (1 targets) stays in use")
    assert listed.count("tidegauge_discovery_errors_total", source="kubernetes_sd") == 1
    await listed.close()


async def test_pauses_grow_with_failures_up_to_a_minute() -> None:
    pauses = [discovery("http://a").pause(failures) for failures in (0, 1, 2, 20)]
    assert pauses == [1.0, 2.0, 4.0, 60.0]


async def test_a_token_is_read_for_each_request_and_a_namespace_is_in_the_path(
    api: tuple[Api, str], tmp_path: Path
) -> None:
    server, url = api
    token = tmp_path / "token"
    token.write_text("first\n")
    listed = Listed(discovery(url, "inference", bearer_token_file=str(token)))
    await listed.look()
    token.write_text("renewed\n")
    server.scripts = [[bookmark(11)]]
    await listed.look()
    assert server.headers["Authorization"] == "Bearer renewed"
    assert server.paths == {"/api/v1/namespaces/inference/pods"}
    await listed.close()


async def test_outside_of_a_pod_the_api_has_to_be_named() -> None:
    listed = Listed(KubernetesDiscovery(KubernetesDiscoverySettings(), "", {}))
    await listed.look()
    assert listed.list.errors == ["kubernetes_sd pod: this is no pod; set kubernetes_sd.api_server"]


def test_a_pod_has_the_labels_that_prometheus_gives_it() -> None:
    first, second = pod_targets(pod("a"))
    container = {
        "__meta_kubernetes_pod_container_name": "vllm",
        "__meta_kubernetes_pod_container_image": "vllm:0.32.0",
        "__meta_kubernetes_pod_container_init": "false",
        "__meta_kubernetes_pod_container_port_name": "http",
        "__meta_kubernetes_pod_container_port_number": "8000",
        "__meta_kubernetes_pod_container_port_protocol": "TCP",
    }
    assert first == {
        "__address__": "10.0.0.1:8000",
        "__meta_kubernetes_namespace": "inference",
        "__meta_kubernetes_pod_name": "a",
        "__meta_kubernetes_pod_uid": "uid-a",
        "__meta_kubernetes_pod_ip": "10.0.0.1",
        "__meta_kubernetes_pod_host_ip": "192.168.0.7",
        "__meta_kubernetes_pod_node_name": "gpu-7",
        "__meta_kubernetes_pod_phase": "Running",
        "__meta_kubernetes_pod_ready": "true",
        "__meta_kubernetes_pod_controller_kind": "ReplicaSet",
        "__meta_kubernetes_pod_controller_name": "vllm-5d",
        "__meta_kubernetes_pod_label_app_kubernetes_io_name": "vllm",
        "__meta_kubernetes_pod_labelpresent_app_kubernetes_io_name": "true",
        "__meta_kubernetes_pod_annotation_prometheus_io_scrape": "true",
        "__meta_kubernetes_pod_annotationpresent_prometheus_io_scrape": "true",
        **container,
    }
    assert (second["__address__"], second["__meta_kubernetes_pod_container_name"]) == ("10.0.0.1", "sidecar")


def test_endpoints_have_one_target_for_each_address_and_port() -> None:
    item = {
        "metadata": {"name": "vllm", "namespace": "inference"},
        "subsets": [
            {
                "addresses": [{"ip": "10.0.0.1", "nodeName": "gpu-7", "targetRef": {"kind": "Pod", "name": "a"}}],
                "notReadyAddresses": [{"ip": "fd00::2"}],
                "ports": [{"name": "http", "port": 8000, "protocol": "TCP"}],
            }
        ],
    }
    ready, waiting = endpoints_targets(item)
    assert ready == {
        "__address__": "10.0.0.1:8000",
        "__meta_kubernetes_namespace": "inference",
        "__meta_kubernetes_endpoints_name": "vllm",
        "__meta_kubernetes_endpoint_port_name": "http",
        "__meta_kubernetes_endpoint_port_protocol": "TCP",
        "__meta_kubernetes_endpoint_ready": "true",
        "__meta_kubernetes_endpoint_node_name": "gpu-7",
        "__meta_kubernetes_endpoint_address_target_kind": "Pod",
        "__meta_kubernetes_endpoint_address_target_name": "a",
    }
    assert (waiting["__address__"], waiting["__meta_kubernetes_endpoint_ready"]) == ("[fd00::2]:8000", "false")
