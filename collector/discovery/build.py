"""The sources that a configuration names."""

from collections.abc import Iterable, Sequence

from collector.discovery.dns import DnsDiscovery
from collector.discovery.http import HttpDiscovery
from collector.discovery.kubernetes import KubernetesDiscovery
from collector.discovery.settings import DnsDiscoverySettings, HttpDiscoverySettings, KubernetesDiscoverySettings
from collector.discovery.source import Source


def sources(
    http: Iterable[HttpDiscoverySettings],
    dns: Iterable[DnsDiscoverySettings],
    kubernetes: Iterable[KubernetesDiscoverySettings],
    *,
    checking: bool,
) -> Sequence[Source]:
    """One for each, and for each namespace; `checking` as in `founds_in`."""
    return [
        *(HttpDiscovery(one, checking=checking) for one in http),
        *(DnsDiscovery(one) for one in dns),
        *(KubernetesDiscovery(one, namespace) for one in kubernetes for namespace in one.namespaces or ("",)),
    ]
