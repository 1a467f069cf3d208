"""Kubernetes objects as targets, with the labels that Prometheus gives them."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from collector.discovery.found import ADDRESS, PATH, SCHEME

_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_]")
_PREFIX = "__meta_kubernetes_"
_ANNOTATION = "prometheus.io/"
Labels = dict[str, str]


def pod_targets(pod: Mapping[str, Any]) -> Iterator[Labels]:
    """One target for each declared port of each container, and one for a container without ports."""
    status, spec = pod.get("status") or {}, pod.get("spec") or {}
    address = status.get("podIP")
    if not address:
        return  # not scheduled, or without a network yet
    common = {**_of_object(pod, "pod"), **_of_pod(pod)}
    for init, containers in ((False, spec.get("containers")), (True, spec.get("initContainers"))):
        for container in containers or []:
            about = {
                f"{_PREFIX}pod_container_name": _text(container.get("name")),
                f"{_PREFIX}pod_container_image": _text(container.get("image")),
                f"{_PREFIX}pod_container_init": _word(init),
            }
            for port in container.get("ports") or [{}]:
                yield {**common, **about, **_of_port(port), ADDRESS: joined(address, port.get("containerPort"))}


def endpoints_targets(endpoints: Mapping[str, Any]) -> Iterator[Labels]:
    """One target for each address and port."""
    common = {
        **_of_object(endpoints, "endpoints"),
        f"{_PREFIX}namespace": _text((endpoints.get("metadata") or {}).get("namespace")),
    }
    for subset in endpoints.get("subsets") or []:
        for key, ready in (("addresses", True), ("notReadyAddresses", False)):
            for address in subset.get(key) or []:
                for port in subset.get("ports") or []:
                    yield {**common, **_of_endpoint(address, port, ready), ADDRESS: joined(address["ip"], port["port"])}


def annotated(labels: Labels) -> Labels | None:
    """A pod's target as its `prometheus.io/` annotations say; None where they do not ask for it.

    With the annotation `port` it is the same for each container.
    """
    said = {
        word: labels.get(f"{_PREFIX}pod_annotation_{_cleaned(_ANNOTATION + word)}", "")
        for word in ("scrape", "port", "path", "scheme")
    }
    if said["scrape"].lower() != "true" or labels.get(f"{_PREFIX}pod_phase") in ("Succeeded", "Failed"):
        return None
    if labels.get(f"{_PREFIX}pod_container_init") == "true":
        return None
    if not said["port"] and f"{_PREFIX}pod_container_port_number" not in labels:
        return None
    address = joined(labels[f"{_PREFIX}pod_ip"], said["port"]) if said["port"] else labels[ADDRESS]
    shown = {name: labels.get(_PREFIX + meta, "") for name, meta in _SHOWN.items()}
    return {
        **labels,
        **{name: value for name, value in shown.items() if value},
        ADDRESS: address,
        SCHEME: said["scheme"] or "http",
        PATH: said["path"] or "/metrics",
    }


_SHOWN = {"namespace": "namespace", "pod": "pod_name", "node": "pod_node_name"}


def joined(host: str, port: object) -> str:
    """Host and port of a URL."""
    host = f"[{host}]" if ":" in host else host
    return f"{host}:{port}" if port else host


def _of_object(item: Mapping[str, Any], kind: str) -> Labels:
    """Name, labels and annotations."""
    metadata = item.get("metadata") or {}
    found = {f"{_PREFIX}{kind}_name": _text(metadata.get("name"))}
    for word, given in (("label", metadata.get("labels")), ("annotation", metadata.get("annotations"))):
        for name, value in (given or {}).items():
            cleaned = _cleaned(name)
            found[f"{_PREFIX}{kind}_{word}_{cleaned}"] = _text(value)
            found[f"{_PREFIX}{kind}_{word}present_{cleaned}"] = "true"
    return found


def _of_pod(pod: Mapping[str, Any]) -> Labels:
    metadata, status = pod.get("metadata") or {}, pod.get("status") or {}
    owner: Mapping[str, Any] = next((one for one in metadata.get("ownerReferences") or [] if one.get("controller")), {})
    conditions = {one.get("type"): one.get("status") for one in status.get("conditions") or []}
    found = {
        "namespace": metadata.get("namespace"),
        "pod_uid": metadata.get("uid"),
        "pod_ip": status.get("podIP"),
        "pod_host_ip": status.get("hostIP"),
        "pod_node_name": (pod.get("spec") or {}).get("nodeName"),
        "pod_phase": status.get("phase"),
        "pod_ready": _text(conditions.get("Ready", "unknown")).lower(),
        "pod_controller_kind": owner.get("kind"),
        "pod_controller_name": owner.get("name"),
    }
    return {_PREFIX + name: _text(value) for name, value in found.items() if value}


def _of_port(port: Mapping[str, Any]) -> Labels:
    if not port:
        return {}
    return {
        f"{_PREFIX}pod_container_port_name": _text(port.get("name")),
        f"{_PREFIX}pod_container_port_number": _text(port.get("containerPort")),
        f"{_PREFIX}pod_container_port_protocol": _text(port.get("protocol") or "TCP"),
    }


def _of_endpoint(address: Mapping[str, Any], port: Mapping[str, Any], ready: bool) -> Labels:
    about = address.get("targetRef") or {}
    found = {
        "endpoint_port_name": port.get("name"),
        "endpoint_port_protocol": port.get("protocol"),
        "endpoint_ready": _word(ready),
        "endpoint_hostname": address.get("hostname"),
        "endpoint_node_name": address.get("nodeName"),
        "endpoint_address_target_kind": about.get("kind"),
        "endpoint_address_target_name": about.get("name"),
    }
    return {_PREFIX + name: _text(value) for name, value in found.items() if value}


def _cleaned(name: str) -> str:
    return _NOT_IN_NAMES.sub("_", name)


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _word(value: bool) -> str:
    return "true" if value else "false"
