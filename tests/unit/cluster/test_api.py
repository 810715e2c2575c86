from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.resources.test_guest import VM
from vmproxy.cluster import renewal, rights
from vmproxy.cluster.api import Cluster
from vmproxy.cluster.rights import OPTIONAL, Right
from vmproxy.errors import Conflict, Forbidden, NotReady, VmproxyError
from vmproxy.model.seen import Grant
from vmproxy.model.steps import CreateObject, DeleteObject, UpdateObject
from vmproxy.resources import identity
from vmproxy.site import model

NAMESPACE = {"kind": "Namespace", "metadata": {"name": "vmproxy"}}
ROLE = {"kind": "ClusterRole", "metadata": {"name": "vmproxy-a-win-01"}}
LIVE = {"metadata": {"uid": "1"}}
ACCOUNTS = "/api/v1/namespaces/vmproxy/serviceaccounts"


@dataclass
class Api:
    """`there` is what exists by path; `late` appears just before it would be created. `tokens` are those that
    the cluster puts one after the other into a new Secret, `taken` those that it takes."""

    there: dict[str, Any] = field(default_factory=dict)
    late: str | None = None
    tokens: list[str] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)
    deleted: list[str] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)

    def get(self, path: str, **query: str) -> Any:
        return self.find(path, **query) or {}

    def find(self, path: str, **_query: str) -> Any:
        found = self.there.get(path)
        if isinstance(found, VmproxyError):
            raise found
        return found

    def items(self, path: str, **_query: str) -> Iterator[Any]:
        yield from self.find(path) or []

    def create(self, path: str, body: Any, **_query: str) -> Any:
        if self.late:
            self.there[self.late] = LIVE
            raise Conflict("it exists")
        filled = {"data": {"token": encoded(self.tokens.pop(0))}} if self.tokens else {}
        self.there[f"{path}/{body['metadata']['name']}"] = {**body, **filled}

    def delete(self, path: str, *, uid: str) -> None:
        self.deleted.append(path)

    def takes(self, token: str) -> bool:
        return token in self.taken


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def done(api: Api, verb: str, item: dict[str, Any]) -> list[str]:
    cluster = Cluster(api, wanted=model.Cluster(), server="", ca="")  # type: ignore[arg-type]
    step = CreateObject(item) if verb == "create" else DeleteObject(item, LIVE)
    return [verb] if cluster.do(step, api.warned.append) else []


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
    assert [str(cidr) for cidr in seen.nodes[0].pod_cidrs] == ["10.244.1.0/24"]
    assert (str(seen.canary[0]), seen.canary[1]) == ("10.96.0.1", 443)


def cluster_of(api: Api, **wanted: Any) -> Cluster:
    return Cluster(api, wanted=model.Cluster.model_validate(wanted), server="", ca="")  # type: ignore[arg-type]


CONFIGMAPS = "/api/v1/namespaces/vmproxy/configmaps"
KINDS = {
    "/api/v1": {
        "resources": [
            {"name": "configmaps", "namespaced": True, "verbs": ["list", "delete"]},
            {"name": "serviceaccounts", "namespaced": True, "verbs": ["list", "delete"]},
            {"name": "serviceaccounts/token", "namespaced": True, "verbs": ["create"]},
            {"name": "nodes", "namespaced": False, "verbs": ["list", "delete"]},
            {"name": "events", "namespaced": True, "verbs": ["list", "delete"]},
        ]
    },
    "/apis": {"groups": [{"preferredVersion": {"groupVersion": "corp.example/v1"}}]},
    "/apis/corp.example/v1": {
        "resources": [{"name": "things", "namespaced": True, "verbs": ["list", "delete"]}]
    },
}


def named(*names: str, **metadata: Any) -> list[dict[str, Any]]:
    return [{"metadata": {"name": name, **metadata}} for name in names]


@pytest.mark.parametrize(
    ("path", "name"),
    [(CONFIGMAPS, "configmaps/theirs"), ("/apis/corp.example/v1/namespaces/vmproxy/things", "things/theirs")],
)
def test_a_namespace_in_which_others_have_something_stays_and_is_named(path: str, name: str) -> None:
    api = Api({**KINDS, path: named("theirs")})
    assert done(api, "delete", NAMESPACE) == []
    assert api.deleted == []
    assert api.warned == [f"namespace vmproxy stays: others have something in it: {name}"]


def test_what_kubernetes_puts_into_each_namespace_does_not_keep_it() -> None:
    ours = named("a", labels={"app.kubernetes.io/managed-by": "vmproxy"})
    secret = named("default-dockercfg", annotations={"kubernetes.io/service-account.name": "default"})
    secret += [RENEWAL]
    events = {"/api/v1/namespaces/vmproxy/events": named("it-started")}
    api = Api({**KINDS, **events, CONFIGMAPS: [*named("kube-root-ca.crt"), *ours, *secret]})
    assert done(api, "delete", NAMESPACE) == ["delete"]
    assert api.warned == []


def test_a_kind_that_may_not_be_listed_keeps_the_namespace() -> None:
    api = Api({**KINDS, CONFIGMAPS: Forbidden("no")})
    assert done(api, "delete", NAMESPACE) == []
    assert "configmaps (these cannot be listed)" in api.warned[0]


def test_many_things_of_others_are_not_all_named() -> None:
    api = Api({**KINDS, CONFIGMAPS: named(*map(str, range(1000)))})
    done(api, "delete", NAMESPACE)
    assert api.warned[0].endswith("and 995 more")


KUBERNETES = "/api/v1/namespaces/default/services/kubernetes"
SLICES = "/apis/discovery.k8s.io/v1/endpointslices"


def service(name: str, *addresses: str, **spec: Any) -> dict[str, Any]:
    ports = [
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
    ]
    namespace, _, own = name.partition("/")
    return {
        "metadata": {"namespace": namespace, "name": own},
        "spec": {"clusterIP": addresses[0], "clusterIPs": list(addresses), "ports": ports, **spec},
    }


def slice_of(name: str, *addresses: str, **endpoint: Any) -> dict[str, Any]:
    namespace, _, own = name.partition("/")
    labels = {"kubernetes.io/service-name": own}
    return {
        "metadata": {"namespace": namespace, "name": f"{own}-1", "labels": labels},
        "addressType": "IPv4",
        "ports": [{"name": "dns-tcp", "port": 5353}, {"name": "dns", "port": 5353}],
        "endpoints": [{"addresses": list(addresses), **endpoint}],
    }


def looked(api: Api) -> Any:
    api.there |= {"/version": {"gitVersion": "v1.36.3"}}
    return cluster_of(api, serviceCIDRs=["10.96.0.0/16"]).observe()


def test_the_canary_is_default_kubernetes_where_it_has_an_ipv4_address() -> None:
    api = Api({KUBERNETES: service("default/kubernetes", "fd00::1", "10.96.0.1")})
    assert str(looked(api).canary[0]) == "10.96.0.1"


def test_the_canary_is_another_ipv4_service_where_default_kubernetes_is_ipv6() -> None:
    services = [
        service("a/silent", "10.96.0.7"),
        service("a/local", "10.96.0.6", internalTrafficPolicy="Local"),
        service("b/other", "10.96.0.8"),
        service("kube-system/kube-dns", "10.96.0.10"),
    ]
    slices = [slice_of(f"{name}", "10.244.1.9") for name in ("a/local", "b/other", "kube-system/kube-dns")]
    six = service("default/kubernetes", "fd00::1")
    api = Api({KUBERNETES: six, "/api/v1/services": services, SLICES: slices})
    assert [str(part) for part in looked(api).canary] == ["10.96.0.10", "53"]
    api = Api({KUBERNETES: six, "/api/v1/services": services[:3], SLICES: slices})
    assert str(looked(api).canary[0]) == "10.96.0.8"


def test_without_any_ipv4_service_that_answers_there_is_no_canary() -> None:
    api = Api({KUBERNETES: service("default/kubernetes", "fd00::1")})
    with pytest.raises(NotReady, match="no IPv4 ClusterIP"):
        looked(api)


def test_the_clusters_own_ca_is_that_of_every_pod_and_may_be_unknown() -> None:
    path = "/api/v1/namespaces/default/configmaps/kube-root-ca.crt"
    known = {KUBERNETES: service("default/kubernetes", "10.96.0.1")}
    assert looked(Api({**known, path: {"data": {"ca.crt": "PEM"}}})).cluster_ca == "PEM"
    assert looked(Api(dict(known))).cluster_ca == ""
    assert looked(Api({**known, path: Forbidden("no")})).cluster_ca == ""


def test_a_node_tells_its_system_and_its_flannels_back_end() -> None:
    notes = {"annotations": {"flannel.alpha.coreos.com/backend-type": "vxlan"}}
    info = {"nodeInfo": {"osImage": "Rocky Linux 9.4"}}
    nodes = [
        {"metadata": {"name": "a", **notes}, "spec": {}, "status": info},
        {"metadata": {"name": "b", "annotations": None}, "spec": {}, "status": {"nodeInfo": None}},
    ]
    api = Api({KUBERNETES: service("default/kubernetes", "10.96.0.1"), "/api/v1/nodes": nodes})
    assert [(node.name, node.system, node.flannel) for node in looked(api).nodes] == [
        ("a", "Rocky Linux 9.4", "vxlan"),
        ("b", "", ""),
    ]


def test_flannels_port_is_read_only_for_a_vm_that_sends_by_its_vxlan() -> None:
    node = {"metadata": {"name": "a", "annotations": {"flannel.alpha.coreos.com/backend-type": "vxlan"}}}
    path = "/api/v1/namespaces/kube-flannel/configmaps/kube-flannel-cfg"
    api = Api({KUBERNETES: service("default/kubernetes", "10.96.0.1"), "/api/v1/nodes": [node]})
    api.there[path] = VmproxyError("it was asked")
    assert looked(api).flannel_port is None
    api.there[path] = {"data": {"net-conf.json": '{"Backend": {"Port": 4789}}'}}
    wanted = model.Cluster.model_validate({"serviceCIDRs": ["10.96.0.0/16"]})
    sends = Cluster(api, wanted=wanted, server="", ca="", flannel=True)  # type: ignore[arg-type]
    assert sends.observe().flannel_port == 4789


def test_a_service_knows_its_endpoints_nodes_and_its_policy() -> None:
    services = [service("a/b", "10.96.0.7", internalTrafficPolicy="Local")]
    slices = [slice_of("a/b", "10.244.1.9", nodeName="n1"), slice_of("a/gone", "10.244.1.8")]
    (seen,) = cluster_of(Api({"/api/v1/services": services, SLICES: slices})).services()
    assert seen.local
    assert [(str(item.ip), item.node, dict(item.ports)) for item in seen.endpoints] == [
        ("10.244.1.9", "n1", {(53, "udp"): 5353, (53, "tcp"): 5353})
    ]
    assert (seen.usable("n1"), seen.usable("n2"), seen.usable(None)) == (True, False, False)


@dataclass
class Recording(Api):
    """What is asked."""

    asked: set[Right] = field(default_factory=set)

    def note(self, verb: str, path: str) -> None:
        if match := re.match(
            r"/(?:api|apis/([^/]+))/[^/]+/(?:namespaces/([^/]+)/(?=[^/]))?([^/]+)(?:/([^/]+))?(?:/([^/]+))?",
            path,
        ):
            group, namespace, plural, name, sub = (part or "" for part in match.groups())
            verb = "list" if verb == "get" and not name else verb
            self.asked.add(Right(verb, group, plural + (f"/{sub}" if sub else ""), namespace, name))

    def find(self, path: str, **query: str) -> Any:
        self.note("get", path)
        return super().find(path, **query)

    def items(self, path: str, **query: str) -> Iterator[Any]:
        self.note("list", path)
        return super().items(path, **query)

    def create(self, path: str, body: Any, **query: str) -> Any:
        self.note("create", path)
        if body["kind"] in {"Service", "TokenRequest"}:
            return {"status": {"token": "t"}}
        self.tokens = ["t"] if body["kind"] == "Secret" else []
        return super().create(path, body)

    def delete(self, path: str, *, uid: str) -> None:
        self.note("delete", path)

    def merge(self, path: str, body: Any) -> None:
        self.note("patch", path)


def test_the_listed_rights_are_all_that_a_run_asks_for() -> None:
    api = Recording(
        {"/version": {"gitVersion": "v1.36.3"}, KUBERNETES: service("default/kubernetes", "10.96.0.1")},
        taken={"t"},
    )
    with pytest.raises(VmproxyError, match="Service ranges"):
        cluster_of(api).observe()
    cluster = cluster_of(api)
    cluster.services()
    cluster.grants()
    cluster.mint("a-win-01", seconds=600)
    cluster.identity("a-win-01")
    for item in identity.wanted(VM).values():
        live = {**item, "metadata": {**item["metadata"], "uid": "1"}}
        changed = {**item, "rules": []} if "rules" in item else item
        if item["kind"] == "Secret":
            cluster.do(CreateObject(item), api.warned.append)
            cluster.renewal(item)
        for step in (CreateObject(item), UpdateObject(changed, live), DeleteObject(item, live)):
            cluster.do(step, api.warned.append)
    listed = {*rights.needed("a-win-01"), *OPTIONAL}
    assert [asked for asked in api.asked if not any(covers(right, asked) for right in listed)] == []
    assert [right for right in listed if not any(covers(right, asked) for asked in api.asked)] == []


def covers(right: Right, asked: Right) -> bool:
    """A right without a namespace or a name is one to all of them."""
    place, name = right.namespace or asked.namespace, right.name or asked.name
    return replace(right, namespace=place, name=name) == asked


def test_of_secrets_only_the_own_one_is_asked_for_by_name_and_none_is_changed() -> None:
    secrets = [right for right in rights.needed("a-win-01") if right.resource == "secrets"]
    assert [(right.verb, right.namespace, right.name) for right in secrets] == [
        ("create", "vmproxy", ""),
        ("get", "vmproxy", "a-win-01-renewal"),
        ("delete", "vmproxy", "a-win-01-renewal"),
    ]


def test_the_documented_rights_are_those_that_doctor_asks_for() -> None:
    page = Path("docs/identity.md").read_text()
    listed = page.partition("## What the operator needs")[2]
    rows = re.findall(r"^\| (.+?) \| (.+?) \|", listed, re.MULTILINE)
    documented = {
        (verb, resource)
        for verbs, resources in rows
        for verb in verbs.split(", ")
        for resource in resources.split(", ")
    }
    wanted = {(right.verb, right.resource) for right in (*rights.needed("a-win-01"), *OPTIONAL)}
    assert wanted <= documented


def test_doctor_names_each_right_that_the_api_server_denies() -> None:
    class Reviews(Api):
        def create(self, path: str, body: Any, **_query: str) -> Any:
            asked = body["spec"]["resourceAttributes"]
            denied = (asked["verb"], asked["resource"], asked["subresource"]) in {
                ("list", "serviceaccounts", ""),
                ("get", "services", ""),
                ("create", "serviceaccounts", "token"),
            }
            return {"status": {"allowed": not denied}}

    missing = cluster_of(Reviews()).missing_rights("a-win-01")
    assert set(missing) == {
        "list serviceaccounts in vmproxy",
        "get services in default",
        "create serviceaccounts/token in vmproxy",
    }


ACCOUNT, OWNER = "a-win-01", "serviceaccount/a-win-01-renewal"
SECRET = "/api/v1/namespaces/vmproxy/secrets/a-win-01-renewal"
RENEWAL = identity.secret(VM)


def jwt(uid: str, *, number: int = 1) -> str:
    """As Kubernetes puts it into a Secret."""
    claims = {
        "iss": "kubernetes/serviceaccount",
        "kubernetes.io/serviceaccount/namespace": "vmproxy",
        "kubernetes.io/serviceaccount/secret.name": "a-win-01-renewal",
        "kubernetes.io/serviceaccount/service-account.name": "a-win-01-renewal",
        "kubernetes.io/serviceaccount/service-account.uid": uid,
        "sub": "system:serviceaccount:vmproxy:a-win-01-renewal",
    }
    part = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"eyJhbGciOiJSUzI1NiJ9.{part}.signature-{number}"


def with_secret(token: object, *, uid: str | None = "uid-1") -> Api:
    """`uid` is the account's; None: there is none."""
    account = {"metadata": {"name": "a-win-01-renewal", "uid": uid}}
    data = {"token": token, "ca.crt": "x", "namespace": "x"}
    there = {SECRET: {**RENEWAL, "metadata": {**RENEWAL["metadata"], "uid": "9"}, "data": data}}
    return Api({**there, **({f"{ACCOUNTS}/a-win-01-renewal": account} if uid else {})})


def test_what_is_in_the_secret_stays_at_the_door() -> None:
    seen = cluster_of(with_secret(encoded(jwt("uid-1")))).identity(ACCOUNT)
    hashed = hashlib.sha256(jwt("uid-1").encode()).hexdigest()
    assert seen["secret/a-win-01-renewal"]["data"] == {"token": hashed}
    assert "signature" not in repr(seen)


@pytest.mark.parametrize("uid", ["uid-1", None])
@pytest.mark.parametrize(
    "token",
    ["", None, encoded(""), encoded("x"), encoded("a.b.c"), encoded("a.MQ.c"), "no base64!", "/w==",
     encoded(jwt("uid-0"))],
)  # fmt: skip
def test_a_secret_without_a_token_of_the_account_as_it_is_now_holds_none(
    token: object, uid: str | None
) -> None:
    seen = cluster_of(with_secret(token, uid=uid)).identity(ACCOUNT)
    assert seen["secret/a-win-01-renewal"]["data"] == {}


def test_a_token_of_an_account_that_is_gone_is_none() -> None:
    seen = cluster_of(with_secret(encoded(jwt("uid-1")), uid=None)).identity(ACCOUNT)
    assert OWNER not in seen
    assert seen["secret/a-win-01-renewal"]["data"] == {}


def test_a_new_secret_is_waited_for_until_kubernetes_has_filled_it() -> None:
    class Slow(Api):
        looks = 0

        def find(self, path: str, **query: str) -> Any:
            found = super().find(path, **query)
            self.looks += path == SECRET
            if self.looks > 3 and found:
                found["data"] = {"token": encoded("t")}
            return found

    slow = Slow()
    assert cluster_of(slow).do(CreateObject(RENEWAL), slow.warned.append)
    assert slow.looks > 3


def test_a_secret_that_kubernetes_has_not_filled_yet_is_waited_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(renewal, "_FILL_SECONDS", 0.0)
    api = with_secret("")
    step = UpdateObject(RENEWAL, {**api.there[SECRET], "data": {}})
    with pytest.raises(NotReady, match="it has none yet"):
        cluster_of(api).do(step, api.warned.append)
    assert api.deleted == []


def test_a_secret_that_is_never_filled_is_an_error_that_says_who_fills_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(renewal, "_FILL_SECONDS", 0.0)
    api = Api()
    with pytest.raises(NotReady, match=r"a token in secret/a-win-01-renewal: .*it has none yet") as caught:
        cluster_of(api).do(CreateObject(RENEWAL), api.warned.append)
    assert "kube-controller-manager" in str(caught.value.hint)


def test_a_secret_is_made_anew_where_another_object_is_changed() -> None:
    api = with_secret(encoded(jwt("uid-0")))
    api.tokens = [jwt("uid-1")]
    step = UpdateObject(RENEWAL, {**api.there[SECRET], "data": {}})
    assert cluster_of(api).do(step, api.warned.append)
    assert api.deleted == [SECRET]
    assert api.there[SECRET]["data"]["token"] == encoded(jwt("uid-1"))


def test_the_token_that_renews_is_that_of_the_secret_while_the_api_server_takes_it() -> None:
    api = with_secret(encoded("old"))
    api.taken = {"old", "new"}
    api.tokens = ["new"]
    assert cluster_of(api).renewal(RENEWAL) == "old"
    api.taken = {"new"}
    assert cluster_of(api).renewal(RENEWAL) == "new"
    assert api.deleted == [SECRET]


RBAC = "/apis/rbac.authorization.k8s.io/v1"


def binding(name: str, *subjects: tuple[str, str, str], namespace: str = "") -> dict[str, Any]:
    return {
        "metadata": {"name": name, **({"namespace": namespace} if namespace else {})},
        "roleRef": {"kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": kind, "namespace": space, "name": own} for kind, space, own in subjects],
    }


def test_grants_are_found_by_whom_they_name() -> None:
    ours, user = ("ServiceAccount", "vmproxy", "a"), ("User", "", "system:serviceaccount:vmproxy:b")
    others = [("ServiceAccount", "demo", "a"), ("User", "", "a"), ("Group", "", "system:authenticated")]
    annotated = {"kubernetes.io/service-account.name": "a"}
    api = Api(
        {
            f"{RBAC}/clusterrolebindings": [
                binding("x", ours, user, *others),
                binding("none"),
                {**binding("y"), "subjects": None},
            ],
            f"{RBAC}/rolebindings": [
                binding("z", ours, ours, namespace="demo"),
                binding("z", user, namespace="vmproxy"),
            ],
            "/api/v1/namespaces/vmproxy/secrets": [*named("s", annotations=annotated), *named("t")],
        }
    )
    rights = "gives the rights of ClusterRole cluster-admin to"
    assert cluster_of(api).grants() == (
        Grant("a", "clusterrolebinding/x", rights),
        Grant("b", "clusterrolebinding/x", rights),
        Grant("a", "rolebinding/demo/z", rights),
        Grant("b", "rolebinding/z", rights),
        Grant("a", "secret/s", "holds a token, which does not expire, of"),
    )


def test_a_secret_that_kubernetes_makes_for_each_account_is_no_grant() -> None:
    annotated = {"kubernetes.io/service-account.name": "a"}
    api = Api(
        {
            f"{RBAC}/clusterrolebindings": [],
            f"{RBAC}/rolebindings": [],
            ACCOUNTS: [{**named("a")[0], "secrets": [{"name": "a-token-x7k2p"}]}],
            "/api/v1/namespaces/vmproxy/secrets": named("a-token-x7k2p", annotations=annotated),
        }
    )
    assert cluster_of(api).grants() == ()


def test_grants_that_may_not_be_listed_are_none() -> None:
    paths = (f"{RBAC}/clusterrolebindings", f"{RBAC}/rolebindings", "/api/v1/namespaces/vmproxy/secrets")
    assert cluster_of(Api({path: Forbidden("no") for path in paths})).grants() == ()


@pytest.mark.parametrize(
    ("told", "version"),
    [
        ("v1.36.3", "v1.36.3"),
        ("v1.33.4+k3s1", "v1.33.4"),
        ("v1.32.9+rke2r1", "v1.32.9"),
        ("v1.31.5-eks-8cce635", "v1.31.5"),
        ("v1.29.6+aadf22e", "v1.29.6"),
        ("v1.34.1-gke.1829001", "v1.34.1"),
    ],
    ids=["kubeadm", "k3s", "RKE2", "EKS", "OpenShift", "GKE"],
)
def test_each_distribution_tells_its_version(told: str, version: str) -> None:
    api = Api({"/version": {"gitVersion": told}, KUBERNETES: service("default/kubernetes", "10.96.0.1")})
    assert cluster_of(api, serviceCIDRs=["10.96.0.0/16"]).observe().version == version


@pytest.mark.parametrize("told", [{"gitVersion": "unknown"}, {}])
def test_a_version_that_cannot_be_read_is_an_error_with_a_way_on(told: dict[str, str]) -> None:
    api = Api({"/version": told, KUBERNETES: service("default/kubernetes", "10.96.0.1")})
    with pytest.raises(VmproxyError, match="version") as caught:
        cluster_of(api, serviceCIDRs=["10.96.0.0/16"]).observe()
    assert "is a Kubernetes API server" in str(caught.value.hint)
