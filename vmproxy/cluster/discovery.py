"""The cluster's Service ranges: from the site file, else discovered, most reliable source first."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from vmproxy.cluster.client import Client, Object
from vmproxy.errors import Forbidden, UsageError, VmproxyError
from vmproxy.model.net import Network, networks
from vmproxy.model.seen import NodeSeen
from vmproxy.site import model

_PORTS = 1 << 16
_FLANNEL = (
    "kube-flannel/configmaps/kube-flannel-cfg",
    "kube-system/configmaps/kube-flannel-cfg",
    "kube-system/configmaps/canal-config",
)
_NETWORKING = "/apis/networking.k8s.io"
_RANGE_ERROR = re.compile(r"range of valid IPs is ([0-9a-fA-F:./]+)")
_ARGUMENT = re.compile(r"--service-cluster-ip-range[= ][\"']?([0-9a-fA-F:./,]+)")


def service_cidrs(client: Client, wanted: model.Cluster) -> tuple[Network, ...]:
    """IPv4 first. Raises VmproxyError when nothing tells them."""
    if wanted.service_cidrs:
        return wanted.service_cidrs
    for look in (_from_objects, _from_kubeadm, _from_arguments, _from_openshift, _from_refusal):
        found = _ipv4_first(networks(look(client)))
        if found:
            return _with_ipv4(found)
    raise VmproxyError(
        "cannot discover the cluster's Service ranges: it has no ServiceCIDR objects and no kubeadm-config, "
        "and neither its API server's arguments nor its errors contain them",
        hint="set cluster.serviceCIDRs in the site file",
    )


def flannel_port(client: Client, wanted: model.Cluster, nodes: Iterable[NodeSeen]) -> int | None:
    """Of its VXLAN: from the site file, else from the ConfigMap of its manifest, or of Canal's. None: no Node
    has one, or it is not written there, as with k3s, or may not be read."""
    if wanted.flannel_port or not any(node.flannel == "vxlan" for node in nodes):
        return wanted.flannel_port
    for path in _FLANNEL:
        try:
            data = (client.find(f"/api/v1/namespaces/{path}") or {}).get("data") or {}
            port = json.loads(data["net-conf.json"])["Backend"]["Port"]
        except (Forbidden, ValueError, TypeError, KeyError):
            continue
        if isinstance(port, int) and 0 < port < _PORTS:
            return port
    return None


def _with_ipv4(found: tuple[Network, ...]) -> tuple[Network, ...]:
    """Raises UsageError for a cluster whose Services have IPv6 addresses only."""
    if found[0].version != 4:
        raise UsageError(
            f"cannot route the cluster's Services: it has no IPv4 Service range, only {_listed(found)}",
            hint="vmproxy routes IPv4: give the cluster an IPv4 Service range (dual stack)",
        )
    return found


def _listed(ranges: Iterable[Network]) -> str:
    return ", ".join(map(str, ranges))


def _ipv4_first(networks: Iterable[Network]) -> tuple[Network, ...]:
    return tuple(sorted(dict.fromkeys(networks), key=lambda network: network.version))


def _from_objects(client: Client) -> list[str]:
    """ServiceCIDR: v1 since 1.33, v1beta1 since 1.31. One that is being deleted is routed until it is gone:
    Kubernetes keeps it as long as a Service uses it."""
    for version in ("v1", "v1beta1"):
        listed = _allowed(client, f"{_NETWORKING}/{version}/servicecidrs")
        found = [cidr for item in listed for cidr in item["spec"].get("cidrs") or ()]
        if found:
            return found
    return []


def _from_kubeadm(client: Client) -> list[str]:
    try:
        config = client.find("/api/v1/namespaces/kube-system/configmaps/kubeadm-config")
    except Forbidden:
        return []
    text = ((config or {}).get("data") or {}).get("ClusterConfiguration", "")
    try:
        subnet = YAML(typ="safe").load(io.StringIO(text))["networking"]["serviceSubnet"]
    except (YAMLError, TypeError, KeyError):  # not what kubeadm writes: try the other sources
        return []
    if not isinstance(subnet, str):
        return []
    return [cidr for cidr in subnet.split(",") if cidr]


def _from_arguments(client: Client) -> list[str]:
    """From the arguments of an API server that runs as a static pod."""
    pods = _allowed(client, "/api/v1/namespaces/kube-system/pods", labelSelector="component=kube-apiserver")
    for pod in pods:
        for container in pod["spec"]["containers"]:
            words = " ".join([*(container.get("command") or []), *(container.get("args") or [])])
            match = _ARGUMENT.search(words)
            if match:
                return match[1].split(",")
    return []


def _from_openshift(client: Client) -> list[str]:
    """From OpenShift's cluster-wide network configuration."""
    try:
        network = client.find("/apis/config.openshift.io/v1/networks/cluster") or {}
    except Forbidden:
        return []
    return list((network.get("status") or {}).get("serviceNetwork") or ())


def _from_refusal(client: Client) -> list[str]:
    """Request an invalid ClusterIP in a dry run: the error contains the range."""
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"generateName": "vmproxy-range-"},
        "spec": {"clusterIP": "1.1.1.1", "ports": [{"port": 443}]},
    }
    try:
        client.create("/api/v1/namespaces/default/services", service, dryRun="All")
    except VmproxyError as exc:
        match = _RANGE_ERROR.search(exc.message)
        return match[1].split(",") if match else []
    return []


def _allowed(client: Client, path: str, **query: str) -> list[Object]:
    """The objects; none if the API does not exist or may not be read."""
    try:
        return list((client.find(path, **query) or {}).get("items") or ())
    except Forbidden:
        return []
