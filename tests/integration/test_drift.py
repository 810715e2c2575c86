"""Every drift is named exactly and alone, repaired, and then nothing is left to do."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.integration.world import World
from vmproxy.util import wait

pytestmark = pytest.mark.lab
PLACES = ("qemu", "hyperv")

UNIT = "vmproxy-kube-proxy.service"
CONFIG = "/etc/vmproxy/kube-proxy.yaml"
PROGRAM = "/usr/local/lib/vmproxy/kube-proxy"
RENEWAL = "/etc/vmproxy/renewal-token"
RANGE = "10.96.0.0/16"
VM = "192.168.100.5"


@dataclass(frozen=True)
class Case:
    """`break_` makes the drift, `fields` are what the plan must name."""

    break_: Callable[[World], object]
    fields: tuple[str, ...]


def in_guest(command: str) -> Callable[[World], object]:
    return lambda world: world.guest(command)


KEEPER = "vmproxy-keeper.service: active"


def unattended(command: str) -> Callable[[World], object]:
    """What the guest's keeper would repair by itself within seconds."""
    return in_guest(f"systemctl stop vmproxy-keeper.service && {command}")


def on_host(*words: str) -> Callable[[World], object]:
    return lambda world: world.in_namespace("host", "ip", "route", *words)


def account_deleted(world: World) -> None:
    world.delete("/api/v1/namespaces/vmproxy/serviceaccounts/it-win-01")


def another_audience(world: World) -> None:
    path = "/api/v1/namespaces/vmproxy/serviceaccounts/it-win-01/token"
    spec = {"audiences": ["somebody-else"], "expirationSeconds": 86400}
    with world.api() as api:
        answer = api.post(path, json={"spec": spec}).raise_for_status()
    world.guest("cat > /etc/vmproxy/token", stdin=answer.json()["status"]["token"])


RBAC = "/apis/rbac.authorization.k8s.io/v1"
SECRET = "/api/v1/namespaces/vmproxy/secrets/it-win-01-renewal"


def patched(path: str, **parts: object) -> Callable[[World], object]:
    """An object in the cluster of which somebody changed a part."""

    def change(world: World) -> None:
        world.clean = False
        with world.api() as api:
            kind = {"Content-Type": "application/merge-patch+json"}
            api.patch(path, json=parts, headers=kind).raise_for_status()

    return change


def deleted(path: str) -> Callable[[World], object]:
    return lambda world: world.delete(path)


def renewal_account_deleted(world: World) -> None:
    """Kubernetes removes the Secret with its token then."""
    world.delete("/api/v1/namespaces/vmproxy/serviceaccounts/it-win-01-renewal")

    def gone() -> bool | str:
        with world.api() as api:
            return api.get(SECRET).status_code == 404 or "it is there"

    wait.until("the removal of the account's Secret", gone, timeout=30)


WIDENED = {
    "apiGroups": [""],
    "resources": ["serviceaccounts/token"],
    "verbs": ["create", "get"],
    "resourceNames": ["it-win-01"],
}
THEMSELVES = [{"kind": "ServiceAccount", "name": "it-win-01", "namespace": "vmproxy"}]
SELECTED = {"clusterRoleSelectors": [{"matchLabels": {"vmproxy.io/test": "theirs"}}]}
TIMER = "vmproxy-token.timer: active"


def unrenewed(command: str) -> Callable[[World], object]:
    """What the guest's timer would repair by itself within a minute."""
    return in_guest(f"systemctl stop vmproxy-token.timer vmproxy-token.service && {command}")


CASES = {
    "kube-proxy stopped": Case(unattended(f"systemctl stop {UNIT}"), (f"{UNIT}: active", KEEPER)),
    "keeper stopped": Case(in_guest("systemctl stop vmproxy-keeper.service"), (KEEPER,)),
    "kube-proxy disabled": Case(in_guest(f"systemctl disable -q {UNIT}"), (f"{UNIT}: enabled",)),
    "config edited": Case(in_guest(f"echo '# mine' >> {CONFIG}"), (f"{CONFIG}: sha256",)),
    "config readable by nobody": Case(in_guest(f"chmod 0600 {CONFIG}"), (f"{CONFIG}: mode",)),
    "config of another group": Case(in_guest(f"chgrp adm {CONFIG}"), (f"{CONFIG}: group",)),
    "a link in the config's place": Case(
        in_guest(f"mv {CONFIG} /root/elsewhere && ln -s /root/elsewhere {CONFIG}"), (f"{CONFIG}: kind",)
    ),
    "a pipe in the kubeconfig's place": Case(
        in_guest("rm /etc/vmproxy/kubeconfig && mkfifo /etc/vmproxy/kubeconfig"),
        ("/etc/vmproxy/kubeconfig: kind",),
    ),
    "a folder that others may change": Case(
        in_guest("chmod 0777 /etc/vmproxy && chown nobody /usr/local/lib/vmproxy"),
        ("/etc/vmproxy: mode", "/usr/local/lib/vmproxy: owner"),
    ),
    "somebody else may log in": Case(
        in_guest("echo ssh-ed25519 AAAA >> /root/.ssh/authorized_keys"),
        ("/root/.ssh/authorized_keys: sha256",),
    ),
    "log-in by password": Case(
        in_guest("echo PasswordAuthentication yes > /etc/ssh/sshd_config.d/10-vmproxy.conf"),
        ("/etc/ssh/sshd_config.d/10-vmproxy.conf: sha256",),
    ),
    "a unit overridden": Case(
        in_guest(
            f"mkdir -p /etc/systemd/system/{UNIT}.d && systemctl daemon-reload && "
            f"printf '[Service]\\nRestart=no\\n' > /etc/systemd/system/{UNIT}.d/override.conf && "
            "systemctl daemon-reload"
        ),
        (f"{UNIT}: drop-ins",),
    ),
    "units overridden until the next boot": Case(
        in_guest(
            "mkdir -p /run/systemd/system/vmproxy-token.service.d && "
            "printf '[Service]\\nExecStart=\\nExecStart=/bin/true\\n' "
            "> /run/systemd/system/vmproxy-token.service.d/a.conf"
        ),
        ("vmproxy-token.service: drop-ins",),
    ),
    "binary replaced": Case(
        in_guest(f"cp /bin/true {PROGRAM}.x && chmod 0755 {PROGRAM}.x && mv {PROGRAM}.x {PROGRAM}"),
        (f"{PROGRAM}: sha256",),
    ),
    "binary removed": Case(in_guest(f"rm {PROGRAM}"), (PROGRAM,)),
    "unit changed": Case(
        in_guest(
            f"sed -i s/RestartSec=2/RestartSec=3/ /etc/systemd/system/{UNIT} && systemctl daemon-reload"
        ),
        (f"/etc/systemd/system/{UNIT}: sha256",),
    ),
    "kubeconfig edited": Case(
        in_guest("echo >> /etc/vmproxy/kubeconfig"), ("/etc/vmproxy/kubeconfig: sha256",)
    ),
    "cluster's CA damaged": Case(
        in_guest("echo x > /etc/vmproxy/cluster-ca.crt"),
        ("/etc/vmproxy/cluster-ca.crt: sha256",),
    ),
    "token removed": Case(unrenewed("rm /etc/vmproxy/token"), ("token", TIMER)),
    "token damaged": Case(unrenewed("echo x > /etc/vmproxy/token"), ("token", TIMER)),
    "token of another audience": Case(another_audience, ("token",)),
    "token readable by others": Case(
        in_guest("chmod 0644 /etc/vmproxy/token"), ("/etc/vmproxy/token: mode",)
    ),
    "a link in the token's place": Case(
        unrenewed("mv /etc/vmproxy/token /root/token && ln -s /root/token /etc/vmproxy/token"),
        ("token", TIMER),
    ),
    "token revoked": Case(account_deleted, ("serviceaccount/it-win-01", "token")),
    "renewal token removed": Case(in_guest(f"rm {RENEWAL}"), ("renewal token",)),
    "renewal token damaged": Case(in_guest(f"echo x > {RENEWAL}"), ("renewal token",)),
    "renewal token readable by everybody": Case(in_guest(f"chmod 0644 {RENEWAL}"), ("renewal token",)),
    "renewal account deleted": Case(
        renewal_account_deleted,
        ("serviceaccount/it-win-01-renewal", "secret/it-win-01-renewal"),
    ),
    "renewal Secret deleted": Case(deleted(SECRET), ("secret/it-win-01-renewal",)),
    "renewal Secret's token damaged": Case(
        patched(SECRET, data={"token": "eA=="}), ("secret/it-win-01-renewal: token",)
    ),
    "role widened": Case(
        patched(f"{RBAC}/namespaces/vmproxy/roles/it-win-01", rules=[WIDENED]),
        ("role/it-win-01: rules[0].verbs",),
    ),
    "tokens created by kube-proxy's account": Case(
        patched(f"{RBAC}/namespaces/vmproxy/rolebindings/it-win-01", subjects=THEMSELVES),
        ("rolebinding/it-win-01: subjects[0].name",),
    ),
    "events in default not allowed": Case(
        deleted(f"{RBAC}/namespaces/default/rolebindings/vmproxy-it-win-01"),
        ("rolebinding/default/vmproxy-it-win-01",),
    ),
    "renewal timer stopped": Case(
        in_guest("systemctl stop vmproxy-token.timer"), ("vmproxy-token.timer: active",)
    ),
    # The kernel itself turns this redirect setting on when forwarding is turned off.
    "forwarding off": Case(
        unattended("sysctl -qw net.ipv4.ip_forward=0"),
        (
            "net.ipv4.ip_forward",
            "net.ipv4.conf.eth0.forwarding",
            "net.ipv4.conf.all.accept_redirects",
            KEEPER,
        ),
    ),
    "forwarding off on the interface": Case(
        unattended("sysctl -qw net.ipv4.conf.eth0.forwarding=0"),
        ("net.ipv4.conf.eth0.forwarding", KEEPER),
    ),
    "redirects on": Case(
        unattended("sysctl -qw net.ipv4.conf.eth0.send_redirects=1"),
        ("net.ipv4.conf.eth0.send_redirects", KEEPER),
    ),
    "guard table flushed": Case(unattended("nft flush table inet vmproxy"), ("guard table", KEEPER)),
    "guard table deleted": Case(unattended("nft delete table inet vmproxy"), ("guard table", KEEPER)),
    "kube-proxy's rules deleted": Case(
        unattended("nft delete table ip kube-proxy"),
        (KEEPER, "kube-proxy: rule for default/kubernetes"),
    ),
    "default route lost": Case(unattended("ip route del default"), ("route 0.0.0.0/0", KEEPER)),
    "default route elsewhere": Case(
        unattended("ip route replace default via 192.168.100.20"), ("route 0.0.0.0/0", KEEPER)
    ),
    "pod route lost": Case(
        unattended("ip route del 10.244.1.0/24 proto 250"), ("route 10.244.1.0/24", KEEPER)
    ),
    "a route of an earlier version": Case(
        unattended("ip route change 10.244.1.0/24 via 192.168.100.20 proto 186"),
        ("route 10.244.1.0/24", KEEPER),
    ),
    "an address of ours without use": Case(
        in_guest("ip address add 10.9.9.2/24 dev eth0 label eth0:vmproxy"), ("address 10.9.9.2/24",)
    ),
    "host route removed": Case(on_host("del", RANGE), (f"route {RANGE}",)),
    "host route elsewhere": Case(on_host("replace", RANGE, "via", "192.168.100.20"), (f"route {RANGE}",)),
}


@pytest.mark.parametrize("name", CASES)
def test_drift_is_named_alone_and_repaired(world: World, name: str) -> None:
    case = CASES[name]
    case.break_(world)
    assert world.drift() == list(case.fields)
    world.apply()
    assert world.drift() == []
    assert world.curl("web-pods") in {"pod-1", "pod-2"}


def test_an_aggregation_rule_is_drift_and_goes(world: World) -> None:
    """Kubernetes itself replaces the rules by those of the selected ClusterRoles."""
    role, pods = f"{RBAC}/clusterroles/vmproxy-it-win-01", ["pods"]
    selected = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "theirs", "labels": {"vmproxy.io/test": "theirs"}},
        "rules": [{"apiGroups": [""], "resources": pods, "verbs": ["get"]}],
    }
    with world.api() as api:
        api.post(f"{RBAC}/clusterroles", json=selected).raise_for_status()
    patched(role, aggregationRule=SELECTED)(world)

    def replaced() -> bool | str:
        with world.api() as api:
            rules = api.get(role).json()["rules"]
            return [rule["resources"] for rule in rules] == [pods] or f"its rules are {rules}"

    wait.until("the aggregation", replaced, timeout=30)
    assert world.drift() == [
        "clusterrole/vmproxy-it-win-01: rules",
        "clusterrole/vmproxy-it-win-01: aggregationRule",
    ]
    world.apply()
    assert world.drift() == []
    with world.api() as api:
        assert "aggregationRule" not in api.get(role).json()
    world.delete(f"{RBAC}/clusterroles/theirs")
    assert world.curl("web-pods") in {"pod-1", "pod-2"}


def test_what_others_give_to_the_accounts_is_named_and_stays(world: World) -> None:
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "theirs"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": THEMSELVES,
    }
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/service-account-token",
        "metadata": {
            "name": "theirs",
            "annotations": {"kubernetes.io/service-account.name": "it-win-01"},
        },
    }
    paths = (f"{RBAC}/clusterrolebindings", "/api/v1/namespaces/vmproxy/secrets")
    with world.api() as api:
        for path, item in zip(paths, (binding, secret), strict=True):
            api.post(path, json=item).raise_for_status()
    try:
        (host,) = world.vmproxy("plan", "-o", "json").json["hosts"]
        assert host["inSync"]
        for name, gives in (
            ("clusterrolebinding/theirs", "the rights of ClusterRole view"),
            ("secret/theirs", "holds a token"),
        ):
            (warning,) = [text for text in host["warnings"] if name in text]
            assert gives in warning
        world.apply()
        with world.api() as api:
            assert all(api.get(f"{path}/theirs").status_code == 200 for path in paths)
    finally:
        for path in paths:
            world.delete(f"{path}/theirs")


LATER = """import runpy, time
now = time.time
time.time = lambda: now() + 13 * 3600
runpy.run_path("/usr/local/lib/vmproxy/renew.py", run_name="__main__")
"""
"""Renew the token as in 13 hours, when half of its life is over."""
REPAIRED = {
    "the link went down and up": (
        "ip link set eth0 down && ip link set eth0 up",
        lambda world: "via" in world.look("ip route show 10.244.1.0/24"),
        "routes",
    ),
    "the guard table is gone": (
        "nft delete table inet vmproxy",
        lambda world: "transit" in world.look("nft list table inet vmproxy || true"),
        "the guard table",
    ),
    "forwarding is off": (
        "sysctl -qw net.ipv4.ip_forward=0",
        lambda world: world.look("sysctl -n net.ipv4.ip_forward").strip() == "1",
        "kernel settings",
    ),
    "the default route is gone": (
        "ip route del default",
        lambda world: "via" in world.look("ip route show default"),
        "routes",
    ),
    "kube-proxy was stopped": (
        f"systemctl stop {UNIT}",
        lambda world: "active" in world.look(f"systemctl is-active {UNIT} || true").split(),
        "kube-proxy",
    ),
    "kube-proxy hangs": (
        f"systemctl kill -s STOP {UNIT}",
        lambda world: (
            "stopped"
            not in world.look(f"grep State /proc/$(systemctl show -P MainPID {UNIT})/status || echo stopped")
        ),
        "kube-proxy",
    ),
    "kube-proxy's rules are gone": (
        "nft delete table ip kube-proxy",
        lambda world: "service-ips" in world.look("nft list table ip kube-proxy || true"),
        "kube-proxy's rules",
    ),
}


@pytest.mark.parametrize("what", REPAIRED)
def test_the_guest_repairs_itself_without_a_controller(world: World, what: str) -> None:
    command, repaired, name = REPAIRED[what]
    before = _repairs(world, name)
    world.guest(f"nohup sh -c {shlex.quote(command)} > /dev/null 2>&1 &")
    began = time.monotonic()

    def probe() -> bool | str:
        done = _repairs(world, name) > before and repaired(world)
        return done or f"{what}, for {time.monotonic() - began:.0f} s"

    wait.until("the guest to repair itself", probe, timeout=60, every=0.5)
    wait.until("everything to work", lambda: world.drift() == [] or "it does not yet", timeout=60)
    status = world.vmproxy("status", "-o", "json").json["hosts"][0]
    assert status["repairs"][name] > before
    assert status["converged"], status["problems"]
    assert f"repaired {name}" in world.look("journalctl -u vmproxy-keeper.service --no-pager -o cat")
    assert world.curl("web-pods") in {"pod-1", "pod-2"}


WARNED = {
    "rules of others": (
        "nft add table inet other && "
        "nft 'add chain inet other way { type filter hook forward priority 0; policy drop; }'",
        "nft delete table inet other",
        "inet other way has the policy drop",
    ),
    "a second address": (
        "ip address add 10.1.2.3/32 dev eth0",
        "ip address del 10.1.2.3/32 dev eth0",
        "eth0 of the VM has 192.168.100.5/24, 10.1.2.3/32",
    ),
    "the token's service failed": (
        "mv /etc/vmproxy/credential.json /root/; systemctl start vmproxy-token.service; "
        "mv /root/credential.json /etc/vmproxy/",
        "systemctl reset-failed vmproxy-token.service",
        "vmproxy-token.service failed",
    ),
}


@pytest.mark.parametrize("what", WARNED)
def test_what_is_not_repaired_is_a_warning_that_names_it(world: World, what: str) -> None:
    command, undo, said = WARNED[what]
    world.guest(f"{command} || true")
    try:
        (host,) = world.vmproxy("plan", "-o", "json").json["hosts"]
        assert host["actions"] == []
        assert any(said in text for text in host["warnings"]), host["warnings"]
        if "address" not in what:
            (shown,) = world.vmproxy("status", "-o", "json").json["hosts"]
            assert any(said in text for text in shown["warnings"])
    finally:
        world.guest(f"{undo} || true")


def _repairs(world: World, name: str) -> int:
    counts: dict[str, int] = json.loads(world.look("cat /run/vmproxy/keeper.json 2>/dev/null || echo {}"))
    return counts.get(name, 0)


def test_a_killed_kube_proxy_comes_back_by_itself(world: World) -> None:
    before = world.look(f"systemctl show -P MainPID {UNIT}").strip()
    world.guest(f"systemctl kill -s KILL {UNIT}")

    def probe() -> bool | str:
        now = world.look(f"systemctl show -P MainPID {UNIT}").strip()
        return now not in {"0", before} or f"MainPID is {now}"

    wait.until("a new kube-proxy", probe, timeout=60)
    assert world.drift() == []


def test_a_config_changed_and_changed_back_is_seen_by_the_unit_that_runs(world: World) -> None:
    world.guest(
        f"systemctl stop {UNIT} && cp -p {CONFIG} /tmp/good && echo '# other' >> {CONFIG} "
        f"&& systemctl start {UNIT} && sleep 1.1 && mv /tmp/good {CONFIG}; sync"
    )

    def settled() -> bool | str:
        """kube-proxy notices a change itself, ends, and is started again."""
        found = world.drift()
        return found in ([f"{UNIT}: started with"], []) or f"the plan names {found}"

    wait.until("kube-proxy to run again", settled, timeout=60)
    world.apply()
    assert world.drift() == []


def test_a_token_is_renewed_in_the_guest(world: World) -> None:
    before = world.look("cat /etc/vmproxy/token")
    world.guest("systemctl start vmproxy-token.service")
    assert world.look("cat /etc/vmproxy/token") == before  # half of its life is not over
    world.guest(f"python3 -I -c {shlex.quote(LATER)}")
    after = world.look("cat /etc/vmproxy/token")
    assert before != after
    assert "600 root" in world.look("stat -c '%a %U' /etc/vmproxy/token")
    assert world.drift() == []
    assert world.curl("web") in {"web-1", "web-2"}


def test_an_expired_token_is_replaced_within_two_minutes_and_kube_proxy_uses_the_new_one(
    world: World,
) -> None:
    world.expire_token()
    world.guest(f"systemctl restart {UNIT} vmproxy-token.timer")
    before = world.look(f"systemctl show -P MainPID {UNIT}").strip()

    def works() -> bool | str:
        status = world.vmproxy("status", "-o", "json").json["hosts"][0]
        done = status["credential"]["state"] == "valid" and status["converged"]
        return done or f"{status['credential']['state']}, {status['problems']}"

    wait.until("kube-proxy to work with a new token", works, timeout=120)
    assert world.look(f"systemctl show -P MainPID {UNIT}").strip() != before
    assert world.drift() == []
    assert world.curl("web") in {"web-1", "web-2"}


def test_a_node_that_is_added_or_gone_changes_the_pod_routes(world: World) -> None:
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "node-02"},
        "spec": {"podCIDR": "10.244.2.0/24", "podCIDRs": ["10.244.2.0/24"]},
    }
    world.create(node)
    with world.api() as api:
        status = {"status": {"addresses": [{"type": "InternalIP", "address": "192.168.100.21"}]}}
        kind = {"Content-Type": "application/merge-patch+json"}
        api.patch("/api/v1/nodes/node-02/status", json=status, headers=kind).raise_for_status()
    try:
        assert world.drift() == ["/etc/vmproxy/routes.json: sha256"]
        world.apply()
        assert "10.244.2.0/24 via 192.168.100.21" in world.look("ip route")
        assert world.drift() == []
    finally:
        world.delete("/api/v1/nodes/node-02")
    assert world.drift() == ["/etc/vmproxy/routes.json: sha256"]
    world.apply()
    assert "10.244.2.0/24" not in world.look("ip route")


def test_a_service_range_added_to_the_cluster_is_routed_and_answered(world: World) -> None:
    world.create(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "ServiceCIDR",
            "metadata": {"name": "second"},
            "spec": {"cidrs": ["10.97.0.0/24"]},
        }
    )
    try:
        wait.until("the second range", lambda: _has_range(world) or "not ready", timeout=30)
        assert world.drift() == ["/etc/vmproxy/guard.nft: sha256", "route 10.97.0.0/24"]
        world.apply()
        assert f"10.97.0.0/24 via {VM}" in world.look_in("host", "ip", "route")
        assert _answers_in_second_range(world) in {"web-1", "web-2"}
    finally:
        world.delete("/api/v1/namespaces/demo/services/second")
        world.delete("/apis/networking.k8s.io/v1/servicecidrs/second")
    wait.until("the range to go", lambda: not _has_range(world) or "still there", timeout=60)
    world.apply()
    assert "10.97.0.0/24" not in world.look_in("host", "ip", "route")
    assert world.drift() == []


def _has_range(world: World) -> bool:
    with world.api() as api:
        items = api.get("/apis/networking.k8s.io/v1/servicecidrs").json()["items"]
    second = [item for item in items if item["metadata"]["name"] == "second"]
    ready = [
        c for item in second for c in item.get("status", {}).get("conditions", []) if c["type"] == "Ready"
    ]
    return any(condition["status"] == "True" for condition in ready)


def _answers_in_second_range(world: World) -> str:
    ports = [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}]
    labels = {"kubernetes.io/service-name": "second", "endpointslice.kubernetes.io/managed-by": "test"}
    head = {"name": "second", "namespace": "demo"}
    world.create(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": head,
            "spec": {"clusterIP": "10.97.0.7", "ports": ports},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**head, "labels": labels},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": [{"addresses": ["192.168.100.31"], "conditions": {"ready": True}}],
        },
    )

    def probe() -> tuple[str] | str:
        ran = world.vmproxy("verify", "--service", "demo/second")
        return (world.curl("second"),) if ran.code == 0 else ran.out

    return wait.until("the Service of the second range", probe, timeout=60)[0]


def test_a_vm_that_is_killed_is_started_again(world: World) -> None:
    world.kill_vm()
    assert world.drift() == ["state"]
    outcomes = world.apply("-o", "json").json["hosts"][0]["outcomes"]
    assert [outcome["verb"] for outcome in outcomes] == ["start"], "all else comes back by itself"
    assert world.drift() == []
    assert world.curl("web") in {"web-1", "web-2"}


def test_a_vm_whose_disk_is_gone_is_made_anew(world: World) -> None:
    world.kill_vm()
    world.remove_disk()
    assert world.drift() == ["disk", "state"]
    world.apply()
    assert world.drift() == []
    assert world.curl("web") in {"web-1", "web-2"}


def test_a_vm_that_is_gone_is_made_anew(world: World) -> None:
    world.kill_vm()
    world.remove_vm()
    assert world.drift()[:1] == ["vm"]
    world.apply("--yes")
    assert world.drift() == []
