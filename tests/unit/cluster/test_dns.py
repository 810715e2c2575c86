"""How the cluster's DNS is found: its Service, and the domain of its names."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from vmproxy.cluster import dns
from vmproxy.errors import Forbidden
from vmproxy.model.seen import DnsSeen, Unobservable
from vmproxy.site.model import Dns

KUBEADM = """.:53 {
    errors
    health {
       lameduck 5s
    }
    kubernetes %s in-addr.arpa ip6.arpa {
       pods insecure
    }
    forward . /etc/resolv.conf
}
"""


class Api:
    """Services with the label, and CoreDNS's configuration; None: it may not be read."""

    def __init__(self, *services: dict[str, Any], corefile: str | None = "") -> None:
        self._services = services
        self._corefile = corefile

    def items(self, path: str, **query: str) -> list[dict[str, Any]]:
        assert (path, query) == ("/api/v1/services", {"labelSelector": "k8s-app=kube-dns"})
        return list(self._services)

    def find(self, _path: str) -> dict[str, Any] | None:
        if self._corefile is None:
            raise Forbidden("may not read it")
        return {"data": {"Corefile": self._corefile}} if self._corefile else None


def service(address: str, name: str = "kube-dns", namespace: str = "kube-system") -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace}
    return {"metadata": metadata, "spec": {"clusterIP": address, "clusterIPs": [address]}}


def found(api: Api, **wanted: str) -> DnsSeen | Unobservable | None:
    return dns.found(api, Dns.model_validate(wanted))  # type: ignore[arg-type]


def test_nobody_is_asked_when_nobody_asks() -> None:
    assert dns.found(Api(), None) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("corefile", "domain"),
    [
        (KUBEADM % "cluster.local", "cluster.local"),
        (KUBEADM % "corp.k8s.", "corp.k8s"),
        (KUBEADM % "k8s", "k8s"),
        ("", "cluster.local"),
        (None, "cluster.local"),
        (".:53 {\n forward . 9.9.9.9\n}", "cluster.local"),
        (
            "example.org {\n # kubernetes wrong.example\n kubernetes {$DOMAIN} in-addr.arpa {\n }\n}",
            "cluster.local",
        ),
        ("example.org {\n kubernetes in-addr.arpa {\n }\n}", "cluster.local"),
        ("example.org {\n kubernetes {\n pods insecure\n }\n}", "cluster.local"),
    ],
)
def test_the_domain_is_that_of_coredns_or_the_usual_one(corefile: str | None, domain: str) -> None:
    assert found(Api(service("10.96.0.10"), corefile=corefile)) == DnsSeen(domain, ip_address("10.96.0.10"))


def test_kubeadms_service_comes_before_others_with_its_label() -> None:
    api = Api(service("10.96.9.9", "kube-dns-upstream"), service("10.96.0.10"))
    assert found(api) == DnsSeen("cluster.local", ip_address("10.96.0.10"))


def test_another_name_is_taken_where_it_is_the_only_one() -> None:
    seen = found(Api(service("10.43.0.10", "rke2-coredns-rke2-coredns"), service("None", "headless")))
    assert seen == DnsSeen("cluster.local", ip_address("10.43.0.10"))


def test_several_or_none_are_named_with_the_key_to_set() -> None:
    several = found(Api(service("10.96.0.10", "a"), service("10.96.0.11", "b")))
    assert isinstance(several, Unobservable)
    assert "kube-system/a, kube-system/b; set dns.server" in several.because
    none = found(Api(service("fd00::10")))
    assert isinstance(none, Unobservable)
    assert "set dns.server in the site file" in none.because


def test_what_the_site_file_says_is_not_looked_for() -> None:
    seen = found(Api(), domain="k8s.example", server="10.0.0.53")
    assert seen == DnsSeen("k8s.example", ip_address("10.0.0.53"))
