"""The Kubernetes API: discovery, the VM's identity and its tokens."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import assert_never

from vmproxy.cluster import discovery, dns, grants, login, renewal, rights, tenants
from vmproxy.cluster.client import Client, Object
from vmproxy.cluster.paths import collection, path_of
from vmproxy.errors import Conflict, Forbidden, NotReady, UsageError, VmproxyError
from vmproxy.model import names
from vmproxy.model.names import MANAGED_BY, NAMESPACE
from vmproxy.model.net import Address, addresses, networks
from vmproxy.model.seen import ClusterSeen, EndpointSeen, Grant, NodeSeen, ServiceSeen
from vmproxy.model.steps import (
    ClusterStep,
    CreateObject,
    DeleteObject,
    UpdateObject,
    object_key,
    object_name,
)
from vmproxy.site import model
from vmproxy.util import wait

_GOING_SECONDS = 120.0
_DNS = "kube-system/kube-dns"
_API_PORT = 443
_BACKEND = "flannel.alpha.coreos.com/backend-type"
_ACCOUNTS = collection("ServiceAccount", NAMESPACE)


class Cluster:
    """The cluster, accessed with the operator's own credentials."""

    def __init__(
        self,
        client: Client,
        *,
        wanted: model.Cluster,
        server: str,
        ca: str,
        tls_server_name: str | None = None,
        dns: model.Dns | None = None,
        flannel: bool = False,
    ) -> None:
        self._client = client
        self._wanted = wanted
        self._dns = dns
        self._flannel = flannel
        self.server = server
        self.ca = ca
        self.tls_server_name = tls_server_name

    @classmethod
    def connect(
        cls, wanted: model.Cluster, dns: model.Dns | None = None, *, flannel: bool = False
    ) -> Cluster:
        """`dns` None: nobody asks for the cluster's DNS. `flannel`: somebody asks for the port of its VXLAN.
        Raises UsageError for an invalid kubeconfig, or one whose server a VM cannot reach."""
        session = login.load(wanted)
        return cls._of(session, wanted, login.server_for_vm(wanted, session), dns, flannel=flannel)

    @classmethod
    def connect_without_vms(cls, wanted: model.Cluster) -> tuple[Cluster, UsageError | None]:
        """As `connect`, and why a VM cannot reach the server, if so."""
        session = login.load(wanted)
        try:
            return cls._of(session, wanted, login.server_for_vm(wanted, session)), None
        except UsageError as exc:
            return cls._of(session, wanted, session.server), exc

    @classmethod
    def _of(
        cls,
        session: login.Session,
        wanted: model.Cluster,
        server: str,
        dns: model.Dns | None = None,
        *,
        flannel: bool = False,
    ) -> Cluster:
        name = login.tls_server_name_for_vm(wanted, session)
        client, ca = Client(session), session.ca
        return cls(
            client, wanted=wanted, server=server, ca=ca, tls_server_name=name, dns=dns, flannel=flannel
        )

    def observe(self) -> ClusterSeen:
        """Without anybody's identity. The requests go out side by side. Raises VmproxyError when something
        needed is not found."""
        with ThreadPoolExecutor(8) as pool:
            version = pool.submit(self._client.get, "/version")
            ranges = pool.submit(discovery.service_cidrs, self._client, self._wanted)
            nodes = pool.submit(lambda: [_node(item) for item in self._client.items("/api/v1/nodes")])
            canary = pool.submit(self._canary)
            accounts = pool.submit(self._accounts)
            own_ca = pool.submit(self._own_ca)
            own_dns = pool.submit(dns.found, self._client, self._dns)
        seen = tuple(nodes.result())  # first: a right that is missing here is the one to name
        port = discovery.flannel_port(self._client, self._wanted, seen) if self._flannel else None
        return ClusterSeen(
            version=_version(str(version.result().get("gitVersion"))),
            server=self.server,
            ca=self.ca,
            service_cidrs=ranges.result(),
            pod_cidrs=self._wanted.pod_cidrs,
            nodes=seen,
            canary=canary.result(),
            accounts=tuple(accounts.result()),
            tls_server_name=self.tls_server_name,
            cluster_ca=own_ca.result(),
            dns=own_dns.result(),
            flannel_port=port,
        )

    def identity(self, account: str) -> dict[str, Object]:
        """The live objects of the account's identity by "kind/name", without those that do not exist. The
        Secret's content is what ClusterSeen.identity says."""
        wanted = names.identity(account)
        with ThreadPoolExecutor(8) as pool:
            live = list(pool.map(lambda name: self._client.find(path_of(name)), wanted))
        found = zip(wanted, live, strict=True)
        there = {name.key: item for name, item in found if item and not _is_being_deleted(item)}
        return renewal.sealed(there, account)

    def do(self, step: ClusterStep, warn: Callable[[str], None]) -> bool:
        """Create, update or delete an object. A new Secret is waited for until it holds a token. False:
        nothing is left to do, or not yet, as other hosts' runs share the namespace; or not at all, and `warn`
        gets the reason. An error names the missing right."""
        path = path_of(object_name(step.object))
        match step:
            case CreateObject():
                self._wait_until_gone(step.target, path)
                return self._create(step.object, path)
            case UpdateObject():
                self._update(path, step)
                return True
            case DeleteObject():
                if step.object["kind"] == "Namespace" and not self._empty(warn):
                    return False
                self._client.delete(path, uid=step.live["metadata"]["uid"])
                return True
            case _:
                assert_never(step)

    def mint(self, account: str, *, seconds: int) -> str:
        """A token for that ServiceAccount, of that life, or as long as the server allows."""
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": seconds},
        }
        path = f"{_ACCOUNTS}/{account}/token"
        token: str = self._client.create(path, body)["status"]["token"]
        return token

    def renewal(self, secret: Object) -> str:
        """The token in that Secret of ours, which renews the VM's own. One that the API server refuses is
        replaced: its signing key is another one now. Raises NotReady when Kubernetes gives none."""
        name, path = object_key(secret), path_of(object_name(secret))
        token = renewal.filled(self._client, name, path)
        if self._client.takes(token):
            return token
        self._replace(secret, self._client.get(path), path)
        return renewal.filled(self._client, name, path)

    def services(self) -> list[ServiceSeen]:
        """Every Service with an IPv4 ClusterIP, and its endpoints. Of each page only this is kept."""
        found = {}
        for item in self._client.items("/api/v1/services"):
            spec = item["spec"]
            if spec.get("type") != "ExternalName" and (address := _ipv4(spec)):
                service = _service(_name(item["metadata"]), address, spec)
                found[service.name] = (service, _ports(spec), list[EndpointSeen]())
        for item in self._client.items("/apis/discovery.k8s.io/v1/endpointslices"):
            labels = item["metadata"].get("labels") or {}
            of = f"{item['metadata']['namespace']}/{labels.get('kubernetes.io/service-name')}"
            if of in found:
                found[of][2].extend(_endpoints(item, found[of][1]))
        return [replace(service, endpoints=tuple(behind)) for service, _, behind in found.values()]

    def missing_rights(self, account: str) -> tuple[str, ...]:
        """What apply and destroy of that account's VM need and these credentials do not have, as "create
        clusterroles"."""
        return rights.missing(self._client, account)

    def grants(self) -> tuple[Grant, ...]:
        """What gives rights or tokens of accounts in vmproxy's namespace, whoever made it; of what may not be
        listed nothing."""
        return grants.found(self._client)

    def _empty(self, warn: Callable[[str], None]) -> bool:
        """Whether the namespace may go: it has no account of another host, and nothing of anybody else."""
        if self._accounts():
            return False
        others = tenants.found(self._client, NAMESPACE)
        if others:
            warn(f"namespace {NAMESPACE} stays: others have something in it: {', '.join(others)}")
        return not others

    def _update(self, path: str, step: UpdateObject) -> None:
        item, live = step.object, step.live
        # The API lets nobody change a roleRef, and a Secret gets a new token only when it is new.
        if item["kind"] == "Secret" and renewal.is_being_filled(item, self._client.find(path)):
            renewal.filled(self._client, object_key(item), path)
        elif item["kind"] == "Secret" or item.get("roleRef", live.get("roleRef")) != live.get("roleRef"):
            self._replace(item, live, path)
        else:
            self._client.merge(path, {name: value for name, value in item.items() if name != "kind"})

    def _replace(self, item: Object, live: Object, path: str) -> None:
        self._client.delete(path, uid=live["metadata"]["uid"])
        self._create(item, path)

    def _create(self, item: Object, path: str) -> bool:
        try:
            self._client.create(path.rpartition("/")[0], item)
        except Conflict:
            if item["kind"] == "Namespace" and self._client.find(path):
                return False
            raise
        if item["kind"] == "Secret":
            renewal.filled(self._client, object_key(item), path)
        return True

    def _wait_until_gone(self, name: str, path: str) -> None:
        """A deleted object, above all a namespace, exists until its content is deleted too."""

        def probe() -> bool | str:
            live = self._client.find(path)
            return not (live and _is_being_deleted(live)) or "it is being deleted"

        wait.until(f"deletion of {name}", probe, timeout=_GOING_SECONDS, every=0.5)

    def _canary(self) -> tuple[Address, int]:
        """default/kubernetes; where it has no IPv4 address, the cluster's DNS or any other Service that
        answers TCP."""
        spec = self._client.get("/api/v1/namespaces/default/services/kubernetes")["spec"]
        if address := _ipv4(spec):
            return address, int(spec["ports"][0]["port"])
        answering = sorted(_answering(self.services()), key=lambda service: service.name != _DNS)
        for service in answering:
            return service.cluster_ip, _tcp(service)[0]
        raise NotReady(
            "cannot test the VM: default/kubernetes has no IPv4 ClusterIP, and no other Service that has one "
            "has ready TCP endpoints",
            hint="start a Service with an IPv4 ClusterIP, such as the cluster's DNS",
        )

    def _own_ca(self) -> str:
        """The CA of the API server itself, as every Pod gets it; "": it is not there or may not be read."""
        try:
            found = self._client.find("/api/v1/namespaces/default/configmaps/kube-root-ca.crt")
        except Forbidden:
            return ""
        return str(((found or {}).get("data") or {}).get("ca.crt") or "")

    def _accounts(self) -> list[str]:
        items = self._client.items(_ACCOUNTS, labelSelector="=".join(MANAGED_BY))
        return [item["metadata"]["name"] for item in items]


def _is_being_deleted(live: Object) -> bool:
    """Whether it was deleted but still exists."""
    return bool(live["metadata"].get("deletionTimestamp"))


def _version(git_version: str) -> str:
    """v1.33.4 from v1.33.4+k3s1 or v1.33.4-eks-99."""
    match = re.match(r"v\d+\.\d+\.\d+", git_version)
    if match is None:
        raise VmproxyError(
            f"cannot parse the cluster's version {git_version!r}",
            hint="check that server in the kubeconfig is a Kubernetes API server",
        )
    return match[0]


def _node(item: Object) -> NodeSeen:
    listed = (item.get("status") or {}).get("addresses") or []
    spec = item.get("spec") or {}
    pods = spec.get("podCIDRs") or ([spec["podCIDR"]] if spec.get("podCIDR") else [])
    internal = (entry["address"] for entry in listed if entry["type"] == "InternalIP")
    return NodeSeen(
        item["metadata"]["name"],
        tuple(addresses(internal)),
        tuple(networks(pods)),
        system=((item.get("status") or {}).get("nodeInfo") or {}).get("osImage", ""),
        flannel=(item["metadata"].get("annotations") or {}).get(_BACKEND, ""),
    )


def _ipv4(spec: Object) -> Address | None:
    """The Service's IPv4 address: in a cluster of both families it may be the second. None: it has none."""
    listed = spec.get("clusterIPs") or [spec.get("clusterIP") or ""]
    return next((address for address in addresses(listed) if address.version == 4), None)


def _answering(services: list[ServiceSeen]) -> Iterator[ServiceSeen]:
    """Those that should answer TCP from any Node."""
    return (
        service for service in services if _tcp(service) and not service.local and service.usable(node=None)
    )


def _tcp(service: ServiceSeen) -> list[int]:
    """The ports on which a ready endpoint listens, but for the API server's: that one is asked over TLS."""
    listening = {key for item in service.endpoints if item.ready for key in item.ports}
    tcp = (port for port, protocol in service.ports if protocol == "tcp" and port != _API_PORT)
    return [port for port in tcp if (port, "tcp") in listening]


def _name(metadata: Object) -> str:
    return f"{metadata['namespace']}/{metadata['name']}"


def _service(name: str, address: Address, spec: Object) -> ServiceSeen:
    local = spec.get("internalTrafficPolicy") == "Local"
    return ServiceSeen(name, address, tuple(_ports(spec).values()), (), local)


def _ports(spec: Object) -> dict[str, tuple[int, str]]:
    return {
        port.get("name", ""): (int(port["port"]), port.get("protocol", "TCP").lower())
        for port in spec.get("ports") or ()
    }


def _endpoints(item: Object, ports: dict[str, tuple[int, str]]) -> Iterator[EndpointSeen]:
    """Of one EndpointSlice."""
    if item.get("addressType") != "IPv4":
        return
    listening = _listening(ports, item.get("ports") or [])
    for endpoint in item.get("endpoints") or []:
        ready = (endpoint.get("conditions") or {}).get("ready") is not False
        for address in addresses(endpoint["addresses"]):
            yield EndpointSeen(address, ready, listening, endpoint.get("nodeName"))


def _listening(ports: dict[str, tuple[int, str]], slice_ports: list[Object]) -> dict[tuple[int, str], int]:
    """Match the ports of a slice and its Service by name."""
    named = {port.get("name") or "": port.get("port") for port in slice_ports}
    return {service: int(named[name] or 0) for name, service in ports.items() if named.get(name)}
