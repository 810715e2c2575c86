"""From inside the VM, with its own tokens: what the VM needs works, everything else is refused."""

from __future__ import annotations

import json
import shlex
from functools import partial

import pytest

from tests.integration.world import World
from vmproxy.util import wait

pytestmark = pytest.mark.lab
PLACES = ("qemu", "hyperv")

API = "https://192.168.100.2:6443"


ASK = """
import json, ssl, sys, urllib.error, urllib.request
method, url, body, file = sys.argv[1:]
token = open(file).read()
headers = {"Authorization": "Bearer " + token, "Content-Type": "application/json"}
request = urllib.request.Request(url, method=method, data=body.encode() or None, headers=headers)
try:
    context = ssl.create_default_context(cafile="/etc/vmproxy/ca.crt")
    print(urllib.request.urlopen(request, context=context).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""


KUBE_PROXYS, RENEWAL = "/etc/vmproxy/token", "/etc/vmproxy/renewal-token"


def ask(
    world: World, method: str, path: str, body: dict[str, object] | None = None, *, token: str = KUBE_PROXYS
) -> int:
    """The HTTP status that the API server answers to the VM; `token` is a file in it."""
    words = (method, API + path, json.dumps(body) if body else "", token)
    return int(world.look(f"python3 - {shlex.join(words)}", stdin=ASK))


TOKENS = "/api/v1/namespaces/vmproxy/serviceaccounts"
ALLOWED = [
    ("GET", "/api/v1/services"),
    ("GET", "/apis/discovery.k8s.io/v1/endpointslices"),
    ("GET", "/apis/networking.k8s.io/v1/servicecidrs"),
    ("GET", "/api/v1/nodes/win-01"),
    ("GET", "/api/v1/nodes?fieldSelector=metadata.name%3Dwin-01"),
]
REFUSED = [
    ("GET", "/api/v1/secrets"),
    ("GET", "/api/v1/namespaces/vmproxy/secrets"),
    ("GET", "/api/v1/namespaces/vmproxy/secrets/it-win-01-renewal"),
    ("GET", "/api/v1/configmaps"),
    ("GET", "/api/v1/pods"),
    ("GET", "/api/v1/nodes"),
    ("GET", "/api/v1/nodes/node-01"),
    ("GET", "/api/v1/namespaces/default/services/kubernetes"),
    ("GET", "/api/v1/endpoints"),
    ("GET", "/api/v1/events"),
    ("GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles"),
    ("GET", f"{TOKENS}/it-win-01"),
    ("DELETE", "/api/v1/nodes/win-01"),
    ("DELETE", "/api/v1/namespaces/demo/services/web"),
    ("DELETE", f"{TOKENS}/it-win-01"),
]


@pytest.mark.parametrize(("method", "path"), ALLOWED)
def test_what_kube_proxy_reads_is_allowed(world: World, method: str, path: str) -> None:
    assert ask(world, method, path) == 200


@pytest.mark.parametrize(("method", "path"), REFUSED)
def test_everything_else_is_refused(world: World, method: str, path: str) -> None:
    assert ask(world, method, path) == 403


TOKEN_REQUEST: dict[str, object] = {
    "apiVersion": "authentication.k8s.io/v1",
    "kind": "TokenRequest",
    "spec": {"expirationSeconds": 600},
}


def test_kube_proxys_token_makes_no_tokens(world: World) -> None:
    assert ask(world, "POST", f"{TOKENS}/it-win-01/token", TOKEN_REQUEST) == 403
    assert ask(world, "POST", f"{TOKENS}/it-win-01-renewal/token", TOKEN_REQUEST) == 403


def test_the_renewal_token_makes_tokens_for_kube_proxy_and_for_nobody_else(world: World) -> None:
    def made(path: str) -> int:
        return ask(world, "POST", f"{path}/token", TOKEN_REQUEST, token=RENEWAL)

    assert made(f"{TOKENS}/it-win-01") == 201
    assert made(f"{TOKENS}/it-win-01-renewal") == 403
    assert made(f"{TOKENS}/default") == 403
    assert made("/api/v1/namespaces/kube-system/serviceaccounts/default") == 403


@pytest.mark.parametrize(("method", "path"), [*ALLOWED, *REFUSED])
def test_the_renewal_token_does_nothing_else(world: World, method: str, path: str) -> None:
    assert ask(world, method, path, token=RENEWAL) == 403


def test_it_writes_nothing_but_events_in_default(world: World) -> None:
    service: dict[str, object] = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "x"},
        "spec": {"ports": [{"port": 1}]},
    }
    assert ask(world, "POST", "/api/v1/namespaces/demo/services", service) == 403
    event: dict[str, object] = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": "x-"},
        "reason": "Test",
        "involvedObject": {"kind": "Node", "name": "win-01"},
    }
    for namespace, status in (("default", 201), ("demo", 403), ("vmproxy", 403), ("kube-system", 403)):
        assert ask(world, "POST", f"/api/v1/namespaces/{namespace}/events", event) == status
        assert ask(world, "POST", f"/api/v1/namespaces/{namespace}/events", event, token=RENEWAL) == 403


def test_kube_proxys_own_event_arrives(world: World) -> None:
    """It reports its start as an event of its Node."""

    def events() -> int:
        with world.api() as api:
            answer = api.get("/apis/events.k8s.io/v1/namespaces/default/events").raise_for_status()
        return sum(item["regarding"]["name"] == "win-01" for item in answer.json()["items"])

    before = events()
    world.guest("systemctl restart vmproxy-kube-proxy.service")
    wait.until("kube-proxy's event", lambda: events() > before or "none yet", timeout=60)


READS = {"services", "endpointslices", "servicecidrs", "nodes"}


@pytest.mark.parametrize(
    ("account", "namespace", "wanted"),
    [
        ("it-win-01", "demo", READS),
        ("it-win-01", "default", READS | {"events"}),
        ("it-win-01", "vmproxy", READS),
        ("it-win-01-renewal", "demo", set()),
        ("it-win-01-renewal", "default", set()),
        ("it-win-01-renewal", "vmproxy", {"serviceaccounts/token"}),
    ],
)
def test_the_rules_that_the_api_server_knows_are_just_these(
    world: World, account: str, namespace: str, wanted: set[str]
) -> None:
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    with world.api() as api:
        answer = api.post(
            "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews",
            json=review,
            headers={
                "Impersonate-User": f"system:serviceaccount:vmproxy:{account}",
                "Impersonate-Group": "system:serviceaccounts",
            },
        ).raise_for_status()
    rules = answer.json()["status"]["resourceRules"]
    resources = {resource for rule in rules for resource in rule["resources"]}
    everybody = {"selfsubjectreviews", "selfsubjectaccessreviews", "selfsubjectrulesreviews"}
    assert resources - everybody == wanted


def test_deleting_the_accounts_revokes_their_tokens(world: World) -> None:
    """The API server remembers a token that it has checked for ten seconds."""
    world.guest(f"cp -p {RENEWAL} /root/stolen")
    world.delete(f"{TOKENS}/it-win-01")
    world.delete(f"{TOKENS}/it-win-01-renewal")

    def refused(token: str) -> bool | str:
        status = ask(world, "GET", "/api/v1/services", token=token)
        return status == 401 or f"HTTP {status}"

    for token in (KUBE_PROXYS, RENEWAL):
        wait.until("the token to be refused", partial(refused, token), timeout=30)
    world.apply()
    assert world.drift() == []
    assert ask(world, "GET", "/api/v1/services") == 200
    assert ask(world, "POST", f"{TOKENS}/it-win-01/token", TOKEN_REQUEST, token=RENEWAL) == 201
    assert refused("/root/stolen") is True
    world.guest("rm /root/stolen")


def test_no_secret_is_readable_by_others_in_the_guest(world: World) -> None:
    assert world.look(f"stat -c %a {KUBE_PROXYS} {RENEWAL}").split() == ["600", "600"]
    assert "PRIVATE KEY" not in world.look("cat /etc/vmproxy/* | grep -v BEGIN.CERT || true")
