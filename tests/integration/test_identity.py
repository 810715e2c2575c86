"""From inside the VM, with the VM's own token: what kube-proxy needs works, everything else is refused."""

from __future__ import annotations

import json
import shlex

import pytest

from tests.integration.world import World
from vmproxy.util import wait

pytestmark = pytest.mark.lab
PLACES = ("qemu", "hyperv")

API = "https://192.168.100.2:6443"


ASK = """
import json, ssl, sys, urllib.error, urllib.request
method, url, body = sys.argv[1:]
token = open("/etc/vmproxy/token").read()
headers = {"Authorization": "Bearer " + token, "Content-Type": "application/json"}
request = urllib.request.Request(url, method=method, data=body.encode() or None, headers=headers)
try:
    context = ssl.create_default_context(cafile="/etc/vmproxy/ca.crt")
    print(urllib.request.urlopen(request, context=context).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""


def ask(world: World, method: str, path: str, body: dict[str, object] | None = None) -> int:
    """The HTTP status that the API server answers to the VM."""
    words = (method, API + path, json.dumps(body) if body else "")
    return int(world.guest(f"python3 - {shlex.join(words)}", stdin=ASK))


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


def test_it_makes_tokens_for_itself_and_for_nobody_else(world: World) -> None:
    assert ask(world, "POST", f"{TOKENS}/it-win-01/token", TOKEN_REQUEST) == 201
    assert ask(world, "POST", f"{TOKENS}/default/token", TOKEN_REQUEST) == 403
    other = "/api/v1/namespaces/kube-system/serviceaccounts/default/token"
    assert ask(world, "POST", other, TOKEN_REQUEST) == 403


def test_it_writes_nothing_but_events(world: World) -> None:
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
        "involvedObject": {"kind": "Node", "name": "win-01", "namespace": "demo"},
    }
    assert ask(world, "POST", "/api/v1/namespaces/demo/events", event) == 201


def test_the_rules_that_the_api_server_knows_are_just_these(world: World) -> None:
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": "demo"},
    }
    with world.api() as api:
        answer = api.post(
            "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews",
            json=review,
            headers={
                "Impersonate-User": "system:serviceaccount:vmproxy:it-win-01",
                "Impersonate-Group": "system:serviceaccounts",
            },
        ).raise_for_status()
    rules = answer.json()["status"]["resourceRules"]
    resources = {resource for rule in rules for resource in rule["resources"]}
    everybody = {"selfsubjectreviews", "selfsubjectaccessreviews", "selfsubjectrulesreviews"}
    assert resources - everybody == {"services", "endpointslices", "servicecidrs", "nodes", "events"}


def test_deleting_the_account_revokes_its_token(world: World) -> None:
    """The API server remembers a token that it has checked for ten seconds."""
    world.delete(f"{TOKENS}/it-win-01")

    def refused() -> bool | str:
        status = ask(world, "GET", "/api/v1/services")
        return status == 401 or f"HTTP {status}"

    wait.until("the token to be refused", refused, timeout=30)
    world.apply()
    assert ask(world, "GET", "/api/v1/services") == 200


def test_no_secret_is_readable_by_others_in_the_guest(world: World) -> None:
    assert world.guest("stat -c %a /etc/vmproxy/token").strip() == "600"
    assert "PRIVATE KEY" not in world.guest("cat /etc/vmproxy/* | grep -v BEGIN.CERT || true")
