from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from vmproxy.cluster.api import Cluster
from vmproxy.errors import Conflict
from vmproxy.model.steps import CreateObject, DeleteObject
from vmproxy.site import model

NAMESPACE = {"kind": "Namespace", "metadata": {"name": "vmproxy"}}
ROLE = {"kind": "ClusterRole", "metadata": {"name": "vmproxy-a-win-01"}}
LIVE = {"metadata": {"uid": "1"}}
ACCOUNTS = "/api/v1/namespaces/vmproxy/serviceaccounts"


@dataclass
class Api:
    """`there` is what exists by path; `late` appears just before it would be created."""

    there: dict[str, Any] = field(default_factory=dict)
    late: str | None = None
    deleted: list[str] = field(default_factory=list)

    def get(self, path: str, **query: str) -> Any:
        return self.find(path, **query)

    def find(self, path: str, **_query: str) -> Any:
        return self.there.get(path)

    def items(self, path: str, **_query: str) -> Iterator[Any]:
        yield from self.there.get(path, [])

    def create(self, path: str, body: Any) -> None:
        if self.late:
            self.there[self.late] = LIVE
            raise Conflict("it exists")
        self.there[f"{path}/{body['metadata']['name']}"] = body

    def delete(self, path: str, *, uid: str) -> None:
        self.deleted.append(path)


def done(api: Api, verb: str, item: dict[str, Any]) -> list[str]:
    cluster = Cluster(api, wanted=model.Cluster(), server="", ca="")  # type: ignore[arg-type]
    step = CreateObject(item) if verb == "create" else DeleteObject(item, LIVE)
    return [verb] if cluster.do(step) else []


def test_a_namespace_that_another_hosts_run_has_just_made_will_do() -> None:
    assert done(Api(), "create", NAMESPACE) == ["create"]
    assert done(Api(late="/api/v1/namespaces/vmproxy"), "create", NAMESPACE) == []


def test_anything_else_that_is_suddenly_there_is_a_conflict() -> None:
    with pytest.raises(Conflict):
        done(Api(late="/apis/rbac.authorization.k8s.io/v1/clusterroles/vmproxy-a-win-01"), "create", ROLE)


def test_the_namespace_is_deleted_by_the_last_of_the_runs() -> None:
    shared = Api({ACCOUNTS: [{"metadata": {"name": "a-win-02"}}]})
    assert done(shared, "delete", NAMESPACE) == []
    assert shared.deleted == []
    last = Api()
    assert done(last, "delete", NAMESPACE) == ["delete"]
    assert last.deleted == ["/api/v1/namespaces/vmproxy"]


def test_a_service_of_both_families_is_known_by_its_ipv4_address() -> None:
    def service(name: str, **addresses: Any) -> dict[str, Any]:
        ports = [{"port": 80, "protocol": "TCP"}]
        return {"metadata": {"namespace": "n", "name": name}, "spec": {"ports": ports, **addresses}}

    services = [
        service("both", clusterIP="fd00::1", clusterIPs=["fd00::1", "10.96.0.9"]),
        service("old", clusterIP="10.96.0.8"),
        service("headless", clusterIP="None", clusterIPs=["None"]),
        service("six", clusterIP="fd00::2", clusterIPs=["fd00::2"]),
    ]
    api = Api({"/api/v1/services": services})
    cluster = Cluster(api, wanted=model.Cluster(), server="", ca="")  # type: ignore[arg-type]
    found = {seen.name: str(seen.cluster_ip) for seen in cluster.services()}
    assert found == {"n/both": "10.96.0.9", "n/old": "10.96.0.8"}


def test_a_node_s_address_that_is_none_is_left_out() -> None:
    """kubelet writes what a cloud provider tells it; leading zeros were once allowed."""
    listed = [{"type": "InternalIP", "address": text} for text in ("10.0.0.4", "010.0.0.4", "ip-10-0-0-4")]
    node = {
        "metadata": {"name": "win-01"},
        "spec": {"podCIDRs": ["10.244.1.7/24", ""]},
        "status": {"addresses": listed},
    }
    service = {"spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 443}]}}
    api = Api(
        {
            "/version": {"gitVersion": "v1.36.3"},
            "/api/v1/nodes": [node],
            "/api/v1/namespaces/default/services/kubernetes": service,
        }
    )
    wanted = model.Cluster.model_validate({"serviceCIDRs": ["10.96.0.0/16"]})
    seen = Cluster(api, wanted=wanted, server="", ca="").observe()  # type: ignore[arg-type]
    assert [str(address) for address in seen.nodes[0].internal_ips] == ["10.0.0.4"]
    assert [str(cidr) for cidr in seen.pod_cidrs] == ["10.244.1.0/24"]
    assert (str(seen.canary[0]), seen.canary[1]) == ("10.96.0.1", 443)
