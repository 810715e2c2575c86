from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from vmproxy.cluster import discovery
from vmproxy.errors import Forbidden, UsageError, VmproxyError
from vmproxy.model.seen import NodeSeen
from vmproxy.site.model import Cluster


class Api:
    """Answers by path; an error is raised, a missing path is None."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self._answers = answers

    def find(self, path: str, **query: str) -> Any:
        answer = self._answers.get(path)
        if isinstance(answer, VmproxyError):
            raise answer
        return answer

    def create(self, path: str, body: object, **query: str) -> Any:
        assert query == {"dryRun": "All"}
        raise VmproxyError(str(self._answers.get(path, "refused")))


RANGES = "/apis/networking.k8s.io/v1/servicecidrs"
OLDER = "/apis/networking.k8s.io/v1beta1/servicecidrs"
KUBEADM = "/api/v1/namespaces/kube-system/configmaps/kubeadm-config"
PODS = "/api/v1/namespaces/kube-system/pods"
DRY_RUN = "/api/v1/namespaces/default/services"


def cidr(*ranges: str, ready: str = "True") -> dict[str, Any]:
    return {"spec": {"cidrs": list(ranges)}, "status": {"conditions": [{"type": "Ready", "status": ready}]}}


def found(answers: dict[str, Any], wanted: Cluster | None = None) -> tuple[str, ...]:
    ranges = discovery.service_cidrs(Api(answers), wanted or Cluster())  # type: ignore[arg-type]
    return tuple(map(str, ranges))


def test_the_site_file_s_word_is_final() -> None:
    wanted = Cluster.model_validate({"serviceCIDRs": ["10.1.0.0/16"]})
    assert found({RANGES: {"items": [cidr("10.96.0.0/16")]}}, wanted) == ("10.1.0.0/16",)


def test_every_range_ipv4_first() -> None:
    items = [cidr("fd00::/112", "10.96.0.0/16"), cidr("10.97.0.0/24")]
    assert found({RANGES: {"items": items}}) == ("10.96.0.0/16", "10.97.0.0/24", "fd00::/112")


def test_a_range_that_is_being_deleted_is_routed_until_its_object_is_gone() -> None:
    """Kubernetes keeps it, with Ready False, because Services still have addresses of it."""
    going = cidr("10.98.0.0/24", ready="False")
    going["metadata"] = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
    going["status"]["conditions"][0] |= {
        "reason": "Terminating",
        "message": "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a "
        "new ServiceCIDR",
    }
    assert found({RANGES: {"items": [cidr("10.96.0.0/16"), going]}}) == ("10.96.0.0/16", "10.98.0.0/24")
    assert found({RANGES: {"items": [going]}}) == ("10.98.0.0/24",)


@pytest.mark.parametrize("written", ["fd00::/108", "fd00::/108,fd01::/108"])
def test_a_cluster_without_an_ipv4_range_is_refused_early(written: str) -> None:
    with pytest.raises(UsageError, match="no IPv4 Service range"):
        found({RANGES: {"items": [cidr(*written.split(","))]}})


OPENSHIFT = "/apis/config.openshift.io/v1/networks/cluster"
STATIC_POD = {
    "spec": {
        "containers": [
            {
                "command": ["kube-apiserver"],
                "args": ["--secure-port=6443", "--service-cluster-ip-range=10.43.0.0/16,fd00:43::/112"],
            }
        ]
    }
}
REFUSED = (
    'Service "vmproxy-range-x7k2p" is invalid: spec.clusterIPs: Invalid value: ["1.1.1.1"]: failed to '
    "allocate IP 1.1.1.1: the provided IP (1.1.1.1) is not in the valid range. The range of valid IPs is {}"
)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({RANGES: {"items": [cidr("10.96.0.0/12")]}}, "10.96.0.0/12"),
        (
            {
                KUBEADM: {
                    "data": {
                        "ClusterConfiguration": "apiVersion: kubeadm.k8s.io/v1beta4\n"
                        "networking:\n  dnsDomain: cluster.local\n  podSubnet: 10.244.0.0/16\n"
                        "  serviceSubnet: 10.100.0.0/12\n"
                    }
                }
            },
            "10.96.0.0/12",
        ),
        ({PODS: {"items": [STATIC_POD]}}, "10.43.0.0/16"),
        ({DRY_RUN: REFUSED.format("10.43.0.0/16")}, "10.43.0.0/16"),
        ({RANGES: Forbidden("no"), DRY_RUN: REFUSED.format("172.20.0.0/16")}, "172.20.0.0/16"),
        (
            {
                OPENSHIFT: {
                    "status": {
                        "clusterNetwork": [{"cidr": "10.128.0.0/14", "hostPrefix": 23}],
                        "networkType": "OVNKubernetes",
                        "serviceNetwork": ["172.30.0.0/16"],
                    }
                }
            },
            "172.30.0.0/16",
        ),
    ],
    ids=["kubeadm 1.33", "kubeadm 1.30", "RKE2", "k3s 1.30", "EKS", "OpenShift"],
)
def test_each_distribution_tells_its_service_range(answers: dict[str, Any], expected: str) -> None:
    assert found(answers)[0] == expected


@pytest.mark.parametrize(
    "answers",
    [
        {OLDER: {"items": [cidr("10.96.0.0/12")]}},
        {
            RANGES: Forbidden("no"),
            KUBEADM: {"data": {"ClusterConfiguration": "networking:\n  serviceSubnet: 10.96.0.0/12\n"}},
        },
        {
            KUBEADM: Forbidden("no"),
            PODS: {
                "items": [
                    {
                        "spec": {
                            "containers": [
                                {"command": ["kube-apiserver", "--service-cluster-ip-range=10.96.0.0/12"]}
                            ]
                        }
                    }
                ]
            },
        },
        {
            DRY_RUN: "failed to allocate IP 1.1.1.1: the provided IP (1.1.1.1) is not in the valid range. "
            "The range of valid IPs is 10.96.0.0/12"
        },
    ],
    ids=["v1beta1", "kubeadm", "static pod", "refusal"],
)
def test_older_clusters_tell_it_in_other_ways(answers: dict[str, Any]) -> None:
    assert found(answers) == ("10.96.0.0/12",)


@pytest.mark.parametrize("written", ["hello", "networking: 3", "networking: {serviceSubnet: 3}", "a: [", ""])
def test_what_kubeadm_did_not_write_is_passed_over(written: str) -> None:
    others = {DRY_RUN: "The range of valid IPs is 10.96.0.0/12"}
    assert found({KUBEADM: {"data": {"ClusterConfiguration": written}}, **others}) == ("10.96.0.0/12",)


def test_what_is_no_range_is_passed_over() -> None:
    container = {"command": ["kube-apiserver", "--service-cluster-ip-range=$(RANGE)"]}
    others = {PODS: {"items": [{"spec": {"containers": [container]}}]}}
    kubeadm = {"data": {"ClusterConfiguration": "networking:\n  serviceSubnet: 10.96.0.1/12, fd00::/112\n"}}
    assert found({RANGES: {"items": [cidr("ten")]}, KUBEADM: kubeadm}) == ("10.96.0.0/12", "fd00::/112")
    assert found({**others, DRY_RUN: "The range of valid IPs is 10.96.0.0/12"}) == ("10.96.0.0/12",)


def test_a_cluster_that_tells_nothing_is_an_error_with_a_way_out() -> None:
    with pytest.raises(VmproxyError, match="Service ranges") as caught:
        found({})
    assert "cluster.serviceCIDRs" in str(caught.value.hint)


@pytest.mark.parametrize(
    "written", ["10.96.0.0", "10.96.0.0/255.240.0.0", "10.96.0.0/0.15.255.255", "10.96/12", "x/12"]
)
def test_what_go_does_not_read_as_a_range_leads_to_the_next_source(written: str) -> None:
    others = {DRY_RUN: "The range of valid IPs is 10.97.0.0/16"}
    assert found({RANGES: {"items": [cidr(written)]}, **others}) == ("10.97.0.0/16",)


@pytest.mark.parametrize(
    "words",
    [
        ["--service-cluster-ip-range", "10.43.0.0/16"],
        ["sh", "-c", "exec kube-apiserver --service-cluster-ip-range='10.43.0.0/16' --v=2"],
        ["--service-cluster-ip-range=10.43.0.0/16", "--service-node-port-range=30000-32767"],
    ],
)
def test_the_range_is_found_however_the_argument_is_written(words: list[str]) -> None:
    pods = {"items": [{"spec": {"containers": [{"command": None, "args": words}]}}]}
    assert found({PODS: pods}) == ("10.43.0.0/16",)


MANIFEST = "/api/v1/namespaces/kube-flannel/configmaps/kube-flannel-cfg"
CANAL = "/api/v1/namespaces/kube-system/configmaps/canal-config"
PEER = NodeSeen("node-01", (), (), flannel="vxlan")


def port(answers: dict[str, Any], *nodes: NodeSeen, **wanted: object) -> int | None:
    site = Cluster.model_validate(wanted)
    return discovery.flannel_port(Api(answers), site, nodes)  # type: ignore[arg-type]


def conf(text: str) -> dict[str, Any]:
    return {"data": {"net-conf.json": text}}


WHOLE = conf('{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan", "Port": 4789}}')


@pytest.mark.parametrize("path", [MANIFEST, MANIFEST.replace("kube-flannel/", "kube-system/", 1), CANAL])
def test_flannels_port_is_the_site_files_or_its_own_configmaps(path: str) -> None:
    assert port({path: WHOLE}, PEER) == 4789
    assert port({path: WHOLE}, PEER, flannelPort=8472) == 8472
    assert port({}, flannelPort=8472) == 8472


def test_nobody_asks_for_the_port_where_no_node_has_flannels_vxlan() -> None:
    others = [replace(PEER, flannel=backend) for backend in ("", "host-gw")]
    assert port({MANIFEST: VmproxyError("it was asked")}, *others) is None


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"Backend": {}}', '{"Backend": {"Port": "x"}}', '{"Backend": {"Port": 0}}'],
)
def test_without_a_port_there_nobody_knows_it(text: str) -> None:
    assert port({MANIFEST: conf(text)}, PEER) is None
    assert port({MANIFEST: conf(text), CANAL: WHOLE}, PEER) == 4789


def test_a_configmap_of_flannels_that_may_not_be_read_is_none() -> None:
    assert port({MANIFEST: Forbidden("no"), CANAL: WHOLE}, PEER) == 4789
    assert port({MANIFEST: Forbidden("no")}, PEER) is None
