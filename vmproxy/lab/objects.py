"""The objects in the lab's cluster: two Nodes, and Services with their EndpointSlices."""

from __future__ import annotations

from typing import Any

from vmproxy.lab.network import ADDRESSES, POD_CIDR, PODS, STRAY_POD_CIDR, STRAY_PODS

NAMESPACE = "demo"
WINDOWS_NODE = "win-01"
LINUX_NODE = "node-01"
STRAY_NODE = "node-02"
STRAY_SERVICE = "web-stray"
HTTP_PORT = 8080
UDP_PORT = 9000
Object = dict[str, Any]

ON_THE_BRIDGE = {ADDRESSES[role]: role for role in ("web-1", "web-2")}
IN_PODS = {address: role for role, address in PODS.items()}
STRAYS = {address: role for role, address in STRAY_PODS.items()}


def namespace() -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}


def nodes() -> list[tuple[Object, Object]]:
    """Each Node with its status, which is a subresource of its own."""
    return [
        node(WINDOWS_NODE, "windows", ADDRESSES["host"], "10.244.9.0/24"),
        node(LINUX_NODE, "linux", ADDRESSES["node"], POD_CIDR),
    ]


def stray_node() -> tuple[Object, Object]:
    """A Node whose podCIDR does not hold its pods, as with a network plugin that gives addresses itself."""
    return node(STRAY_NODE, "linux", ADDRESSES["node-02"], STRAY_POD_CIDR)


def stray_service(node: str = STRAY_NODE) -> list[Object]:
    """With that Node's pod, as long as it is on that Node."""
    return service_with_slice(STRAY_SERVICE, [("http", 80, HTTP_PORT, "TCP")], STRAYS, node)


def services() -> list[Object]:
    """TCP and UDP, with backends on the bridge and in the pod network, and one without backends."""
    web = [("http", 80, HTTP_PORT, "TCP")]
    echo = [("echo", 7, UDP_PORT, "UDP")]
    return [
        *service_with_slice("web", web, ON_THE_BRIDGE),
        *service_with_slice("web-pods", web, IN_PODS),
        *service_with_slice("echo", echo, ON_THE_BRIDGE),
        *service_with_slice("echo-pods", echo, IN_PODS),
        *service_with_slice("empty", web, {}),
    ]


DNS_SERVICE = "10.96.0.10"
DNS_PORT = 5353
DOMAIN = "cluster.local"
COREFILE = f"""{DOMAIN}:{DNS_PORT} in-addr.arpa:{DNS_PORT} {{
    errors
    log
    kubernetes {DOMAIN} in-addr.arpa {{
        kubeconfig coredns.kubeconfig
    }}
}}
.:{DNS_PORT} {{
    log
    template ANY ANY {{
        rcode REFUSED
    }}
}}
"""
"""As in a cluster, but that it knows nobody to ask for other names."""


def dns() -> list[Object]:
    """CoreDNS behind Service kube-system/kube-dns, its configuration, and what it may read."""
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "lab-coredns"},
        "rules": [
            {"apiGroups": [""], "resources": ["services", "namespaces"], "verbs": ["list", "watch"]},
            {
                "apiGroups": ["discovery.k8s.io"],
                "resources": ["endpointslices"],
                "verbs": ["list", "watch"],
            },
        ],
    }
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "lab-coredns"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "lab-coredns"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "lab:coredns"}],
    }
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "coredns", "namespace": "kube-system"},
        "data": {"Corefile": COREFILE},
    }
    ports = [("dns", 53, DNS_PORT, "UDP"), ("dns-tcp", 53, DNS_PORT, "TCP")]
    service, behind = service_with_slice("kube-dns", ports, {ADDRESSES["dns"]: "dns"})
    service["spec"]["clusterIP"] = DNS_SERVICE
    for item in (service, behind):
        item["metadata"]["namespace"] = "kube-system"
    service["metadata"]["labels"] = {"k8s-app": "kube-dns"}
    return [role, binding, config, service, behind]


def node(name: str, system: str, address: str, pod_cidr: str) -> tuple[Object, Object]:
    head = {"apiVersion": "v1", "kind": "Node"}
    labels = {"kubernetes.io/os": system, "kubernetes.io/hostname": name}
    node = {
        **head,
        "metadata": {"name": name, "labels": labels},
        "spec": {"podCIDR": pod_cidr, "podCIDRs": [pod_cidr]},
    }
    addresses = [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}]
    ready = {"type": "Ready", "status": "True", "reason": "Lab", "message": "", "lastHeartbeatTime": None}
    status = {**head, "metadata": {"name": name}, "status": {"addresses": addresses, "conditions": [ready]}}
    return node, status


def service_with_slice(
    name: str, ports: list[tuple[str, int, int, str]], endpoints: dict[str, str], node: str = LINUX_NODE
) -> list[Object]:
    """A Service without a selector, so that the control plane does not manage its slice."""
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "ports": [
                {"name": label, "port": port, "targetPort": target, "protocol": protocol}
                for label, port, target, protocol in ports
            ]
        },
    }
    labels = {
        "kubernetes.io/service-name": name,
        "endpointslice.kubernetes.io/managed-by": "lab.vmproxy",
    }
    endpoint_slice = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": f"{name}-lab", "namespace": NAMESPACE, "labels": labels},
        "addressType": "IPv4",
        "ports": [
            {"name": label, "port": target, "protocol": protocol} for label, _, target, protocol in ports
        ],
        "endpoints": [
            {"addresses": [address], "conditions": {"ready": True}, "nodeName": node} for address in endpoints
        ],
    }
    return [service, endpoint_slice]
