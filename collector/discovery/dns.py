"""Targets that a name's records list: A, AAAA or SRV."""

import asyncio
from collections.abc import Callable, Sequence

import aiodns
import pycares

from collector.discovery.found import DiscoveryError, Found, of_address
from collector.discovery.settings import DnsDiscoverySettings

# A name without records is an answer, and not a failure of the resolver.
_NO_RECORDS = (pycares.errno.ARES_ENODATA, pycares.errno.ARES_ENOTFOUND)


class DnsDiscovery:
    """Some names, looked up every `refresh`."""

    kind = "dns_sd"

    def __init__(self, settings: DnsDiscoverySettings, resolver: aiodns.DNSResolver | None = None) -> None:
        self.name = f"dns_sd {settings.type} {', '.join(settings.names)}"
        self._settings = settings
        self._resolver = resolver
        self._found: Sequence[Found] = ()

    def found(self) -> Sequence[Found]:
        """The last good answer's targets."""
        return self._found

    async def step(self, good: Callable[[], None]) -> None:
        """Looks all names up; one that cannot be looked up fails the whole, so that its targets stay."""
        resolver = self._resolver = self._resolver or aiodns.DNSResolver()
        answers = await asyncio.gather(*(self._records(resolver, name) for name in self._settings.names))
        self._found = [found for answer in answers for found in answer]
        good()

    async def _records(self, resolver: aiodns.DNSResolver, name: str) -> list[Found]:
        try:
            async with asyncio.timeout(self._settings.timeout):
                answer = await resolver.query_dns(name, self._settings.type)
        except TimeoutError:
            raise DiscoveryError(f"{name}: no answer within {self._settings.timeout:g} s") from None
        except aiodns.error.DNSError as error:
            number, text = (*error.args, "")[:2]
            if number in _NO_RECORDS:
                return []
            raise DiscoveryError(f"{name}: {text}") from None
        return [found for record in answer.answer if (found := self._of(name, record.data)) is not None]

    def _of(self, name: str, record: object) -> Found | None:
        """The target of one record; None of the CNAMEs on the way."""
        meta = {"__meta_dns_name": name}
        if isinstance(record, pycares.SRVRecordData):
            host = record.target.rstrip(".")
            srv = {"__meta_dns_srv_record_target": record.target, "__meta_dns_srv_record_port": str(record.port)}
            return of_address(_joined(host, record.port), {**meta, **srv}, self.name)
        if isinstance(record, pycares.ARecordData | pycares.AAAARecordData):
            return of_address(_joined(record.addr, self._settings.port or 80), meta, self.name)
        return None

    def pause(self, failures: int) -> float:
        """The interval, whether it went well or not."""
        return self._settings.refresh

    async def close(self) -> None:
        """Ends the resolver."""
        if self._resolver is not None:
            await self._resolver.close()
            self._resolver = None


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
