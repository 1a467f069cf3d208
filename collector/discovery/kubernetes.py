"""Targets in a Kubernetes cluster: a list, then a watch of what changes, as `client-go` does it."""

import asyncio
import json
import os
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp

from collector.discovery.found import ADDRESS, PATH, SCHEME, DiscoveryError, Found
from collector.discovery.groups import MAX_TARGETS
from collector.discovery.kubernetes_objects import annotated, endpoints_targets, pod_targets
from collector.discovery.settings import KubernetesDiscoverySettings, secret

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
PAGE = 500
# The API ends a watch after this; a watch that says nothing for longer is dead.
WATCH_SECONDS = 300
SILENCE_SECONDS = 1.5 * WATCH_SECONDS
LIST_SECONDS = 60
MAX_LINE = 8 * 1024 * 1024
MAX_LIST_BYTES = 256 * 1024 * 1024
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
GONE = 410
_OBJECTS = {"pod": ("pods", pod_targets), "endpoints": ("endpoints", endpoints_targets)}
Key = tuple[str, str]  # namespace, name


class ExpiredWatch(Exception):
    """The API has forgotten the moment from which changes were asked for: everything has to be listed anew."""


class KubernetesApi:
    """The few requests that are needed.  Raises DiscoveryError, or ExpiredWatch for a 410."""

    def __init__(self, settings: KubernetesDiscoverySettings, environment: Mapping[str, str]) -> None:
        inside = environment.get("KUBERNETES_SERVICE_HOST", "")
        host = f"[{inside}]" if ":" in inside else inside
        within = f"https://{host}:{environment.get('KUBERNETES_SERVICE_PORT', '443')}" if inside else ""
        self.url = (settings.api_server or within).rstrip("/")
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None

    async def listed(self, path: str, query: Mapping[str, str]) -> Mapping[str, Any]:
        """One page of a list."""
        async with asyncio.timeout(LIST_SECONDS), await self._get(path, query) as answer:
            body = bytearray()
            async for chunk in answer.content.iter_chunked(256 * 1024):
                body += chunk
                if len(body) > MAX_LIST_BYTES:
                    raise DiscoveryError(f"a page of {path} has more than {MAX_LIST_BYTES} bytes")
            document = json.loads(body)
            if not isinstance(document, dict):
                raise DiscoveryError(f"{path}: answered with what is no list")
            return document

    async def watched(self, path: str, query: Mapping[str, str]) -> AsyncIterator[Mapping[str, Any]]:
        """The events of a watch, until the API ends it; first an empty one, when it has begun."""
        rest = b""
        async with await self._get(path, {**query, "watch": "1"}) as answer:
            yield {}
            async for chunk in answer.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                if len(rest) > MAX_LINE:
                    raise DiscoveryError(f"an event of {path} has more than {MAX_LINE} bytes")
                for line in lines:
                    if line.strip():
                        yield json.loads(line)

    async def _get(self, path: str, query: Mapping[str, str]) -> aiohttp.ClientResponse:
        if not self.url:
            raise DiscoveryError("this is no pod; set kubernetes_sd.api_server")
        if self._session is None:
            limits = aiohttp.ClientTimeout(total=None, sock_connect=LIST_SECONDS, sock_read=SILENCE_SECONDS)
            connector = aiohttp.TCPConnector(ssl=self._trust())
            self._session = aiohttp.ClientSession(connector=connector, timeout=limits)
        token = secret(self._settings.bearer_token, self._token_file())
        headers = {"Accept": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
        answer = await self._session.get(self.url + path, params=query, headers=headers, allow_redirects=False)
        if answer.status == 200:
            return answer
        said = (await answer.content.read(2_000)).decode(errors="replace")
        answer.close()
        if answer.status == GONE:
            raise ExpiredWatch
        raise DiscoveryError(f"{path} answered {answer.status} {answer.reason or ''}: {_message(said)}")

    def _token_file(self) -> Path | None:
        given = self._settings.bearer_token_file
        mounted = ACCOUNT / "token"
        own = given is None and self._settings.bearer_token is None and self._settings.api_server is None
        return mounted if own and mounted.exists() else given

    def _trust(self) -> ssl.SSLContext | bool:
        mounted = ACCOUNT / "ca.crt"
        file = self._settings.ca_file or (mounted if self._settings.api_server is None and mounted.exists() else None)
        return ssl.create_default_context(cafile=str(file)) if file else True

    async def close(self) -> None:
        """Ends the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None


class KubernetesDiscovery:
    """The objects of one namespace, or of all, as targets.

    Follows the watch from version to version; when the API has forgotten a version (410) everything is listed anew.
    """

    kind = "kubernetes_sd"

    def __init__(
        self, settings: KubernetesDiscoverySettings, namespace: str, environment: Mapping[str, str] = os.environ
    ) -> None:
        plural, self._targets = _OBJECTS[settings.role]
        within = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
        self.name = f"kubernetes_sd {settings.role}" + (f" in {namespace}" if namespace else "")
        self._path = f"/api/v1{within}/{plural}"
        self._query = {"labelSelector": settings.label_selector} if settings.label_selector else {}
        self._annotated = settings.annotations and settings.role == "pod"
        self._api = KubernetesApi(settings, environment)
        self._version = ""
        self._objects: dict[Key, Sequence[Found]] = {}
        self._all: Sequence[Found] | None = ()

    def found(self) -> Sequence[Found]:
        """The targets of now."""
        found = self._all
        if found is None:
            found = [one for each in list(self._objects.values()) for one in each]
            self._all = found
        return found

    async def step(self, good: Callable[[], None]) -> None:
        """Lists everything where that is due, else follows one watch to its end."""
        try:
            if self._version:
                await self._watch(good)
            else:
                await self._list()
                good()
        except ExpiredWatch:
            self._version = ""
        except TimeoutError:
            raise DiscoveryError(f"{self._path}: no answer") from None
        except (aiohttp.ClientError, OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise DiscoveryError(f"{self._path}: {str(error)[:300] or type(error).__name__}") from None

    def pause(self, failures: int) -> float:
        """A second, longer after failures, so that an API which is down is not run over when it comes up."""
        return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures, 10))

    async def close(self) -> None:
        """Ends the connections."""
        await self._api.close()

    async def _list(self) -> None:
        """What was known stays until all pages are there."""
        found: dict[Key, Sequence[Found]] = {}
        page: dict[str, str] = {"limit": str(PAGE)}
        metadata: Mapping[str, Any] = {"continue": "first"}
        while metadata.get("continue"):
            document = await self._api.listed(self._path, {**self._query, **page})
            for item in document.get("items") or []:
                found[_key(item)] = self._of(item)
            if len(found) > MAX_TARGETS:
                raise DiscoveryError(f"{self._path}: more than {MAX_TARGETS}; narrow label_selector or namespaces")
            metadata = document.get("metadata") or {}
            page["continue"] = str(metadata.get("continue") or "")
        self._objects, self._all, self._version = found, None, str(metadata.get("resourceVersion") or "")

    async def _watch(self, good: Callable[[], None]) -> None:
        query = {
            **self._query,
            "resourceVersion": self._version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        begun = False
        try:
            async for event in self._api.watched(self._path, query):
                begun = True
                if event:
                    self._take(event)
                good()
        except (aiohttp.ClientError, TimeoutError, ConnectionError):
            if not begun:
                raise
            # Proxies end long answers as they like; the next watch goes on from the same version.

    def _take(self, event: Mapping[str, Any]) -> None:
        kind, item = event.get("type"), event.get("object") or {}
        if kind == "ERROR":
            if item.get("code") == GONE:
                raise ExpiredWatch
            raise DiscoveryError(f"{self._path}: {item.get('message') or 'the watch failed'}")
        if kind in ("ADDED", "MODIFIED"):
            self._objects[_key(item)] = self._of(item)
            self._all = None
        elif kind == "DELETED":
            self._objects.pop(_key(item), None)
            self._all = None
        # A bookmark carries nothing but this: how far we are.
        self._version = str((item.get("metadata") or {}).get("resourceVersion") or self._version)
        if len(self._objects) > MAX_TARGETS:
            raise ExpiredWatch  # the list says what is wrong

    def _of(self, item: Mapping[str, Any]) -> Sequence[Found]:
        found = self._targets(item)
        if self._annotated:
            chosen = (labels for one in found if (labels := annotated(one)) is not None)
            # A port that an annotation names is the same for each container.
            return [Found(labels, self.name) for labels in {one[ADDRESS]: one for one in chosen}.values()]
        return [Found({SCHEME: "http", PATH: "/metrics", **labels}, self.name) for labels in found]


def _key(item: Mapping[str, Any]) -> Key:
    metadata = item.get("metadata") or {}
    return str(metadata.get("namespace", "")), str(metadata.get("name", ""))


def _message(text: str) -> str:
    """What a Kubernetes `Status` says, else the text's beginning."""
    try:
        return str(json.loads(text)["message"])[:300]
    except (ValueError, TypeError, KeyError):
        return text[:100]
