from __future__ import annotations

from typing import Any

import pytest

from tests.values import node
from vmproxy.cluster import discovery
from vmproxy.errors import Forbidden, VmproxyError
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


def test_every_range_that_is_not_going_away_ipv4_first() -> None:
    items = [cidr("fd00::/112", "10.96.0.0/16"), cidr("10.97.0.0/24"), cidr("10.98.0.0/24", ready="False")]
    assert found({RANGES: {"items": items}}) == ("10.96.0.0/16", "10.97.0.0/24", "fd00::/112")


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


def test_pod_ranges_come_from_the_nodes() -> None:
    nodes = [
        node("a", "10.0.0.1", "10.244.1.0/24", "fd00::/64"),
        node("b", "10.0.0.2", "10.244.2.0/24"),
    ]
    ranges = discovery.pod_cidrs(Cluster(), nodes)
    assert [str(cidr) for cidr in ranges] == ["10.244.1.0/24", "10.244.2.0/24", "fd00::/64"]
