"""API keys: who may call, in which role, for which tenants.  Only hashes of keys are kept."""

import base64
import binascii
import hashlib
import hmac
import json
import os
import secrets
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from fastapi import Request

from catalog.clock import Clock
from collector.otlp.sender import Sender
from service.api.problems import Problem
from store.scope import EVERYTHING, Scope

FILE = "keys.json"
PREFIX = "tg"
# Before the id of a key, in the name of an actor.
KEY = "key:"


class Role(StrEnum):
    """What a key may do: send, look, or both and manage."""

    INGEST = "ingest"
    READ = "read"
    ADMIN = "admin"


class KeyFileBroken(Exception):
    """The file of keys cannot be read; nobody is let in until it is mended."""


class UnknownKey(Exception):
    """There is no key of that id."""


@dataclass(frozen=True)
class Key:
    """A key as it is kept; `tenants` is None for one that is not bound.  Times are unix seconds."""

    key_id: str
    sha256: str
    role: Role
    tenants: tuple[str, ...] | None
    name: str
    created_at: float
    revoked_at: float | None = None

    def scope(self) -> Scope:
        """The rows that the key's holder may see."""
        return EVERYTHING if self.tenants is None else Scope(frozenset(self.tenants))

    def public(self) -> dict[str, Any]:
        """What may be shown of the key."""
        shown = asdict(self)
        del shown["sha256"]
        return shown


@dataclass(frozen=True)
class Caller:
    """Who calls: a key's holder, or anybody where no keys are needed."""

    scope: Scope
    role: Role
    actor: str

    def key_id(self) -> str:
        """The id of the key; `local` for a command on this machine, empty where no key is needed."""
        return "" if self is ANYBODY else self.actor.removeprefix(KEY)


ANYBODY = Caller(EVERYTHING, Role.ADMIN, "anonymous")


class KeyStore:
    """The keys of a data directory; safe to call from any thread, and sees what another process changes."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        self.path = directory / FILE
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._keys: tuple[Key, ...] = ()

    def create(self, role: Role, *, name: str = "", tenants: Iterable[str] | None = None) -> tuple[Key, str]:
        """A new key and the one time that its text can be seen.  Raises ValueError for an empty list of tenants."""
        bound = None if tenants is None else tuple(sorted(set(tenants)))
        if bound is not None and not all(bound or ("",)):
            raise ValueError("a key bound to tenants names at least one, none of them empty")
        key_id = secrets.token_hex(4)
        text = f"{PREFIX}_{key_id}_{secrets.token_urlsafe(32)}"
        key = Key(key_id, _digest(text), Role(role), bound, name, self._clock.now())
        with self._lock:
            self._write((*self._load(), key))
        return key, text

    def list(self) -> tuple[Key, ...]:
        """All keys, the revoked ones too.  Raises KeyFileBroken."""
        with self._lock:
            return self._load()

    def revoke(self, key_id: str) -> Key:
        """Ends a key at once.  Raises UnknownKey."""
        with self._lock:
            keys = self._load()
            found = next((key for key in keys if key.key_id == key_id), None)
            if found is None:
                raise UnknownKey(f"there is no key {key_id!r}; `tidegauge keys list` shows those there are")
            ended = Key(**{**asdict(found), "role": found.role, "revoked_at": self._clock.now()})
            self._write(tuple(ended if key is found else key for key in keys))
            return ended

    def any(self) -> bool:
        """Whether a key was ever made: a revoked last key must not open the door."""
        return bool(self.list())

    def find(self, text: str) -> Key | None:
        """The valid key with this text.  Takes the same time whichever of them matches, or none."""
        digest, found = _digest(text), None
        for key in self.list():
            if hmac.compare_digest(key.sha256, digest) and key.revoked_at is None:
                found = key
        return found

    def _load(self) -> tuple[Key, ...]:
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            self._seen, self._keys = None, ()
            return ()
        seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if seen != self._seen:
            self._keys = _parsed(self.path)
            self._seen = seen
        return self._keys

    def _write(self, keys: tuple[Key, ...]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=FILE)
        try:
            with os.fdopen(handle, "w") as file:
                json.dump({"form": 1, "keys": [asdict(key) for key in keys]}, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self.path)  # mkstemp's mode is 0600
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def _digest(text: str) -> str:
    # A key is 256 random bits, so that a slow hash would protect nothing.
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _parsed(path: Path) -> tuple[Key, ...]:
    try:
        document = json.loads(path.read_text())
        return tuple(
            Key(
                **{
                    **entry,
                    "role": Role(entry["role"]),
                    "tenants": None if entry["tenants"] is None else tuple(entry["tenants"]),
                }
            )
            for entry in document["keys"]
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise KeyFileBroken(f"{path.name} cannot be read: {error}") from error


# Where clients put a key that is no bearer token; Phoenix's has an underscore.
KEY_HEADERS = ("x-api-key", "api-key", "api_key")
SCHEMES = ("bearer", "basic")


@dataclass(frozen=True)
class Presented:
    """The key that a request carries, and the user's name beside it, if it came as Basic."""

    text: str
    user: str = ""


def presented(headers: Mapping[str, str]) -> Presented | None:
    """The key in a request's headers (or a call's metadata), whose names are in lower case.

    A bearer token, the bare token that Logfire sends, the password of Basic as Langfuse sends its secret key, or one
    of KEY_HEADERS.
    """
    for name in KEY_HEADERS:
        if headers.get(name):
            return Presented(headers[name].strip())
    scheme, _, value = headers.get("authorization", "").strip().partition(" ")
    if not value:
        return Presented(scheme) if scheme and scheme.lower() not in SCHEMES else None
    if scheme.lower() == "bearer":
        return Presented(value.strip())
    if scheme.lower() != "basic":
        return None
    try:
        user, _, password = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return Presented(password, user) if password else None


class Gate:
    """Decides who may call.  `required` asks for a key even if none was ever made.

    `local_token` is what commands on this machine send, who have read it in the data directory.
    """

    def __init__(self, keys: KeyStore | None, *, required: bool = False, local_token: str | None = None) -> None:
        self._local = local_token
        self._keys = keys
        self._required = required

    def open(self) -> bool:
        """Whether everything is allowed to everybody."""
        return not self._required and (self._keys is None or not self._keys.any())

    def caller(self, headers: Mapping[str, str], role: Role) -> Caller:
        """Who calls, if they may act in `role`; names of headers are in lower case.  Raises Problem 401 or 403."""
        if self.open():
            return ANYBODY
        given = presented(headers)
        if given is None:
            raise Problem(401, "Send an API key: Authorization: Bearer …, x-api-key, or as the password of Basic.")
        if self._is_local(given.text):
            return Caller(EVERYTHING, Role.ADMIN, "local")
        key = self._keys.find(given.text) if self._keys is not None else None
        if key is None:
            raise Problem(401, "The API key is not valid; it may have been revoked.")
        if key.role not in (role, Role.ADMIN):
            raise Problem(403, f"This takes a key of role {role}; key {key.key_id} has role {key.role}.")
        return Caller(_narrowed(key.scope(), given.user), key.role, f"{KEY}{key.key_id}")

    def sender(self, sender: Sender, headers: Mapping[str, str]) -> Sender:
        """The sender of telemetry with the key's id and tenants.  Raises Problem 401 or 403."""
        caller = self.caller(headers, Role.INGEST)
        return replace(sender, key=caller.key_id(), tenants=caller.scope.tenants)

    def dependency(self, role: Role) -> Callable[[Request], Caller]:
        """A FastAPI dependency that gives the caller."""

        def caller(request: Request) -> Caller:
            return self.caller(request.headers, role)

        return caller

    def local(self) -> Callable[[Request], Caller]:
        """For what reads or writes this machine's files: who calls has read the token in the data directory."""

        def caller(request: Request) -> Caller:
            given = presented(request.headers)
            if given is None or not self._is_local(given.text):
                raise Problem(403, "Only a command on the service's own machine, over its data directory, may do this.")
            return Caller(EVERYTHING, Role.ADMIN, "local")

        return caller

    def shown_keys(self) -> tuple[dict[str, Any], ...]:
        """What may be shown of the keys."""
        return () if self._keys is None else tuple(key.public() for key in self._keys.list())

    def _is_local(self, text: str) -> bool:
        return self._local is not None and hmac.compare_digest(text.encode("utf-8", "replace"), self._local.encode())

    def unbound(self, role: Role) -> Callable[[Request], Caller]:
        """Like `dependency`, for what shows all tenants together."""
        given = self.dependency(role)

        def caller(request: Request) -> Caller:
            found = given(request)
            if found.scope.tenants is not None:
                raise Problem(403, "This shows all tenants together; the key is bound to some of them.")
            return found

        return caller


def _narrowed(scope: Scope, user: str) -> Scope:
    """A user's name that is one of the key's tenants chooses it; any other name means nothing."""
    return Scope(frozenset({user})) if scope.tenants is not None and user in scope.tenants else scope
