"""The cluster's DNS: the Service that knows the cluster's names, and their domain."""

from __future__ import annotations

import re

from vmproxy.cluster.client import Client, Object
from vmproxy.errors import Forbidden, VmproxyError
from vmproxy.model.net import Address, addresses
from vmproxy.model.seen import DnsSeen, Unobservable
from vmproxy.site import model

DEFAULT_DOMAIN = "cluster.local"
_SERVICE = "kube-system/kube-dns"
"""kubeadm's, k3s's and kind's; all others by the label that it has in common with them."""
_LABEL = "k8s-app=kube-dns"
_COREFILE = "/api/v1/namespaces/kube-system/configmaps/coredns"
_PLUGIN = re.compile(r"^\s*kubernetes[ \t]+([^\s{#]+)", re.MULTILINE)
"""The plugin's first zone; https://coredns.io/plugins/kubernetes/."""
_SET_IT = "set dns.server in the site file"


def found(client: Client, wanted: model.Dns | None) -> DnsSeen | Unobservable | None:
    """What the site file leaves open is looked for. None: nobody asked."""
    if wanted is None:
        return None
    try:
        return DnsSeen(wanted.domain or _domain(client), wanted.server or _server(client))
    except VmproxyError as exc:
        return Unobservable(f"{exc.message}; {_SET_IT}")


def _server(client: Client) -> Address:
    """Raises VmproxyError when there is none, or more than one that may be meant."""
    listed = client.items("/api/v1/services", labelSelector=_LABEL)
    known = {_name(item): address for item in listed if (address := _address(item))}
    if _SERVICE in known:
        return known[_SERVICE]
    if len(set(known.values())) == 1:
        return next(iter(known.values()))
    if known:
        raise VmproxyError(f"several Services may be the cluster's DNS: {', '.join(sorted(known))}")
    raise VmproxyError(f"no Service with an IPv4 address has the label {_LABEL}")


def _domain(client: Client) -> str:
    """Where the configuration may not be read, or is not CoreDNS's own, the usual one."""
    try:
        config = client.find(_COREFILE) or {}
    except Forbidden:
        return DEFAULT_DOMAIN
    zone = _PLUGIN.search((config.get("data") or {}).get("Corefile", ""))
    domain = zone[1].strip(".").lower() if zone else ""
    return domain if domain and not domain.endswith(".arpa") else DEFAULT_DOMAIN


def _name(item: Object) -> str:
    return f"{item['metadata']['namespace']}/{item['metadata']['name']}"


def _address(item: Object) -> Address | None:
    spec = item["spec"]
    texts = [*(spec.get("clusterIPs") or ()), str(spec.get("clusterIP") or "")]
    return next((address for address in addresses(texts) if address.version == 4), None)
