"""What the agent sees of the guest."""

from __future__ import annotations

import base64
import grp
import hashlib
import json
import os
import time
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.unit.guest.machine import OWNER, Machine
from tests.unit.served import serving
from vmproxy.util import assets

PROXY, TIMER = "vmproxy-kube-proxy.service", "vmproxy-token.timer"
SHOWN = """Id=vmproxy-kube-proxy.service
ActiveState=active
Job=
NeedDaemonReload=no
ActiveEnterTimestampMonotonic=0

Id=vmproxy-token.timer
ActiveState=inactive
Job=
NeedDaemonReload=no
"""
ROUTES = (
    '[{"dst":"default","gateway":"192.168.10.8","dev":"eth0","protocol":"static","flags":[]},'
    '{"dst":"default","gateway":"192.168.10.7","dev":"eth0","metric":100,"flags":[]},'
    '{"dst":"10.244.1.0/24","gateway":"192.168.10.20","dev":"eth0","protocol":"250","flags":[]},'
    '{"dst":"10.9.0.7","gateway":"192.168.10.9","dev":"eth0","protocol":"250","flags":[]},'
    '{"dst":"10.7.0.0/24","gateway":"192.168.10.9","dev":"eth0","protocol":"bgp","flags":[]},'
    '{"dst":"192.168.10.0/24","dev":"eth0","protocol":"kernel","scope":"link","flags":[]},'
    '{"dst":"10.8.0.0/24","dev":"eth0","protocol":"250","scope":"link","flags":[]}]\n'
)
ADDRESSES = (
    '[{},{"ifname":"eth0","addr_info":[{"family":"inet","local":"192.168.10.5","prefixlen":24,"scope":"global"},'
    '{"family":"inet","local":"10.1.2.3","prefixlen":32,"secondary":true,"label":"eth0"},'
    '{"family":"inet","local":"10.244.9.2","prefixlen":24,"label":"eth0:vmproxy"}]}]\n'
)
METRICS = """# HELP kubernetes_build_info [BETA] A metric with a constant '1' value
# TYPE kubernetes_build_info gauge
kubernetes_build_info{build_date="2026-02-10T12:53:09Z",git_version="v1.36.3",go_version="go1.26 X:none"} 1
# TYPE kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds gauge
kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{ip_family="IPv4"} 1.7000000005e+09
kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{ip_family="IPv6"} 1.7000000021e+09
# TYPE kubeproxy_sync_proxy_rules_last_timestamp_seconds gauge
kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family="IPv4"} 1.7000000015e+09
kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family="IPv6"} 1.7000000021e+09
# TYPE kubeproxy_sync_proxy_rules_nftables_sync_failures_total counter
kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family="IPv4"} 2
kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family="IPv6"} 1
kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total{ip_family="IPv4"} 40
# TYPE rest_client_requests_total counter
rest_client_requests_total{code="200",host="192.168.10.4:6443",method="GET"} 12
rest_client_requests_total{code="401",host="192.168.10.4:6443",method="GET"} 3
rest_client_requests_total{code="403",host="192.168.10.4:6443",method="POST"} 4
"""
CLAIMS = {
    "sub": "system:serviceaccount:vmproxy:a-win-01",
    "iat": 1_700_000_000,
    "exp": 1_700_086_400,
    "kubernetes.io": {"namespace": "vmproxy", "serviceaccount": {"name": "a-win-01", "uid": "uid-1"}},
}
NOTHING = {
    "files": [],
    "units": [],
    "sysctls": [],
    "token": "/none",
    "renewal": "/none",
    "setup": assets.text("guest/setup.py"),
    "canary": None,
    "ca": "/none",
    "api": None,
    "folders": [],
    "interface": "eth0",
}
DEAD = {
    "live": False,
    "mode": None,
    "age": None,
    "last_synced": 0.0,
    "last_queued": 0.0,
    "failures": 0,
    "denied": 0,
    "version": None,
}
LARGE = b"x" * ((1 << 20) + 1)
ACCESS = {
    "mode": "0644",
    "owner": OWNER,
    "group": grp.getgrgid(os.getgid()).gr_name,
    "kind": "file",
}


def observe(machine: Machine, **what: Any) -> dict[str, Any]:
    (answer,) = machine.agent({"operation": "observe", **NOTHING, **what})
    return dict(answer)


def jwt(claims: object) -> str:
    part = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"eyJhbGciOiJSUzI1NiJ9.{part}.c2lnbmF0dXJl"


KEPT = {"mode": "endpoints", "listed": True, "routes": 2, "failed": 0, "api": "", "since": 1_700_000_000}


def test_a_guest_is_seen_whole_in_one_answer(machine: Machine) -> None:
    config = machine.write("/etc/vmproxy/kubeconfig", "{}")
    config.chmod(0o640)
    token = machine.write("/etc/vmproxy/token", jwt(CLAIMS))
    machine.write("/proc/sys/net/ipv4/ip_forward", "1\n")
    machine.records("systemctl", says=SHOWN)
    machine.records("nft", says="nftables v1.0.9 (Old Doc Yak #3)\n", then='[ "$1" = --version ]')
    machine.program(
        "ip",
        f"echo \"ip $*\" >> {machine.root}/calls\n[ $3 = route ] && echo '{ROUTES}' || echo '{ADDRESSES}'",
    )
    machine.write("/etc/resolv.conf", "# by hand\nsearch corp.example\nnameserver 192.168.10.2\n")
    folder = machine.root / "etc/vmproxy"
    folder.chmod(0o750)
    machine.write("/run/vmproxy/podroutes.json", json.dumps({**KEPT, "left": [], "more": 0, "config": "x"}))
    seen = observe(
        machine,
        files=[str(config)],
        units=[PROXY, TIMER],
        sysctls=["net.ipv4.ip_forward"],
        token=str(token),
        folders=[str(folder), "/none"],
    )
    assert abs(seen.pop("now") - time.time()) < 60
    assert abs(seen["proxy"].pop("age") - time.monotonic()) < 60
    assert seen == {
        "files": {str(config): {"sha256": hashlib.sha256(b"{}").hexdigest(), **ACCESS, "mode": "0640"}},
        "folders": {str(folder): {**ACCESS, "mode": "0750", "kind": "folder"}},
        "units": {
            PROXY: {"active": True, "enabled": False, "stale": False, "failed": False, "drop_ins": []},
            TIMER: {"active": False, "enabled": False, "stale": False, "failed": False, "drop_ins": []},
        },
        "addresses": ["192.168.10.5/24", "10.1.2.3/32", "10.244.9.2/24"],
        "added": ["10.244.9.2/24"],
        "dns": ["192.168.10.2"],
        "blockers": [],
        "pod_routes": {**KEPT, "left": [], "more": 0},
        "sysctls": {"net.ipv4.ip_forward": "1"},
        "guard": None,
        "routes": [
            {"prefix": "10.244.1.0/24", "via": "192.168.10.20"},
            {"prefix": "10.9.0.7/32", "via": "192.168.10.9"},
            {"prefix": "10.8.0.0/24", "via": ""},
            {"prefix": "0.0.0.0/0", "via": "192.168.10.8"},
        ],
        "token": {
            "subject": "system:serviceaccount:vmproxy:a-win-01",
            "uid": "uid-1",
            "issued": 1_700_000_000,
            "expires": 1_700_086_400,
        },
        "proxy": {name: value for name, value in DEAD.items() if name != "age"},
        "canary": None,
        "renewal": 0,
        "drops": {},
        "repairs": {},
        "kernel": os.uname().release,
        "writes_rules": True,
        "nft": "1.0.9",
    }
    assert sorted(machine.calls()) == [
        "ip -j -4 address show dev eth0",
        "ip -j -4 route show",
        "nft --version",
        "nft -j list chains",
        "nft -j list table inet vmproxy",
        "systemctl show --property=Id,ActiveState,Job,NeedDaemonReload,ActiveEnterTimestampMonotonic "
        f"{PROXY} {TIMER}",
    ]


def test_what_is_not_there_is_left_out_and_no_error(machine: Machine) -> None:
    gone = str(machine.path("/etc/vmproxy/kubeconfig"))
    seen = observe(machine, files=[gone], units=[PROXY], sysctls=["net.ipv4.ip_forward"], token=gone)
    assert {name: value for name, value in seen.items() if name not in ("now", "kernel")} == {
        "files": {},
        "units": {},
        "sysctls": {},
        "guard": None,
        "routes": [],
        "token": None,
        "proxy": DEAD,
        "canary": None,
        "renewal": 0,
        "drops": {},
        "repairs": {},
        "folders": {},
        "addresses": [],
        "added": [],
        "dns": [],
        "blockers": [],
        "pod_routes": None,
        "writes_rules": False,
        "nft": None,
    }


def test_iptables_alone_writes_rules_too(machine: Machine) -> None:
    machine.program("iptables", "exit 1")
    seen = observe(machine)
    assert (seen["writes_rules"], seen["nft"]) == (True, None)


def test_a_large_file_is_hashed_again_only_when_it_has_changed(machine: Machine) -> None:
    path = str(machine.write("/usr/local/lib/vmproxy/kube-proxy", LARGE))
    cache = machine.path("/var/lib/vmproxy/hashes.json")

    def seen() -> str:
        return str(observe(machine, files=[path])["files"][path]["sha256"])

    assert seen() == hashlib.sha256(LARGE).hexdigest()
    assert cache.stat().st_mode & 0o777 == 0o600
    cache.write_text(cache.read_text().replace(hashlib.sha256(LARGE).hexdigest(), "remembered"))
    assert seen() == "remembered"
    os.utime(path)
    assert seen() == hashlib.sha256(LARGE).hexdigest()


@pytest.mark.parametrize("cache", ["", "{"])
def test_a_broken_cache_of_hashes_is_as_none(machine: Machine, cache: str) -> None:
    machine.write("/var/lib/vmproxy/hashes.json", cache)
    path = str(machine.write("/etc/x", LARGE))
    assert observe(machine, files=[path])["files"][path]["sha256"] == hashlib.sha256(LARGE).hexdigest()


def test_small_files_are_not_written_into_the_cache(machine: Machine) -> None:
    observe(machine, files=[str(machine.write("/etc/x", "x"))])
    assert not machine.path("/var/lib/vmproxy/hashes.json").exists()


@pytest.mark.parametrize("target", ["multi-user", "timers"])
def test_a_unit_is_enabled_by_its_link_in_a_target(machine: Machine, target: str) -> None:
    link = machine.path(f"/etc/systemd/system/{target}.target.wants/{TIMER}")
    link.symlink_to("/etc/systemd/system/no-matter-what")
    units = machine.module("agent.py").units(SHOWN)
    assert {name: unit["enabled"] for name, unit in units.items()} == {PROXY: False, TIMER: True}


@pytest.mark.parametrize(
    ("folder", "units"),
    [
        ("/etc/systemd/system/vmproxy-kube-proxy.service.d", {PROXY}),
        ("/run/systemd/system/vmproxy-token.timer.d", {TIMER}),
        ("/etc/systemd/system.control/vmproxy-kube-proxy.service.d", {PROXY}),
        ("/run/systemd/system/vmproxy-.service.d", {PROXY}),
        ("/usr/lib/systemd/system/vmproxy-kube-.service.d", {PROXY}),
        ("/etc/systemd/system/service.d", set()),
        ("/etc/systemd/system/ssh.service.d", set()),
    ],
)
def test_a_drop_in_is_seen_wherever_systemd_reads_it(machine: Machine, folder: str, units: set[str]) -> None:
    override = machine.write(f"{folder}/override.conf", "[Service]\nRestart=no\n")
    machine.write(f"{folder}/README", "no drop-in")
    seen = machine.module("agent.py").units(SHOWN)
    assert {name for name, unit in seen.items() if unit["drop_ins"]} == units
    assert all(unit["drop_ins"] in ([], [str(override)]) for unit in seen.values())


def test_a_folder_is_no_drop_in_and_a_link_to_a_folder_of_them_is_one_itself(machine: Machine) -> None:
    machine.path("/etc/systemd/system/vmproxy-kube-proxy.service.d/x.conf").mkdir(parents=True)
    machine.write("/srv/theirs/limits.conf", "x")
    link = machine.path("/run/systemd/system/vmproxy-token.timer.d")
    link.symlink_to(machine.root / "srv/theirs")
    seen = machine.module("agent.py").units(SHOWN)
    assert {name: unit["drop_ins"] for name, unit in seen.items()} == {PROXY: [], TIMER: [str(link)]}


def test_a_unit_that_failed_is_told(machine: Machine) -> None:
    seen = machine.module("agent.py").units(SHOWN.replace("=inactive", "=failed"))
    assert {name: unit["failed"] for name, unit in seen.items()} == {PROXY: False, TIMER: True}


@pytest.mark.parametrize("kind", ["link", "folder", "special"])
def test_what_is_no_file_is_seen_as_what_it_is_and_not_read(machine: Machine, kind: str) -> None:
    path = machine.path("/etc/vmproxy/kubeconfig")
    if kind == "link":
        path.symlink_to(machine.write("/srv/elsewhere", "x"))
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    seen = observe(machine, files=[str(path)])["files"][str(path)]
    assert (seen["kind"], seen["sha256"]) == (kind, "")


def test_a_link_in_the_place_of_a_folder_of_ours_hides_what_it_leads_to(machine: Machine) -> None:
    machine.write("/srv/elsewhere/kubeconfig", "x")
    machine.write("/srv/elsewhere/token", jwt(CLAIMS))
    link = machine.path("/etc/vmproxy")
    link.symlink_to(machine.root / "srv/elsewhere")
    token = str(link / "token")
    seen = observe(machine, files=[str(link / "kubeconfig"), token], token=token, folders=[str(link)])
    assert (seen["files"], seen["token"], seen["folders"][str(link)]["kind"]) == ({}, None, "link")


def test_a_link_or_a_pipe_in_the_tokens_place_is_no_token(machine: Machine) -> None:
    path = machine.path("/etc/vmproxy/token")
    path.symlink_to(machine.write("/srv/token", jwt(CLAIMS)))
    assert observe(machine, token=str(path))["token"] is None
    path.unlink()
    os.mkfifo(path)
    assert observe(machine, token=str(path))["token"] is None


def test_the_servers_behind_systemds_stub_are_those_that_are_asked(machine: Machine) -> None:
    machine.write("/etc/resolv.conf", "nameserver 127.0.0.53\n")
    assert observe(machine)["dns"] == []
    machine.write("/run/systemd/resolve/resolv.conf", "nameserver 192.168.10.2\nnameserver 192.168.10.3\n")
    assert observe(machine)["dns"] == ["192.168.10.2", "192.168.10.3"]


def chain(table: str, policy: str = "accept", *, hook: str = "forward", family: str = "ip") -> dict[str, Any]:
    base = {"family": family, "table": table, "name": "FORWARD", "handle": 1, "type": "filter", "prio": 0}
    return {"chain": {**base, "hook": hook, "policy": policy}}


@pytest.mark.parametrize(
    ("chains", "rules", "found"),
    [
        ([chain("vmproxy", family="inet"), chain("kube-proxy")], [{"drop": None}], []),
        ([chain("filter", "drop")], [], ["ip filter FORWARD has the policy drop"]),
        ([chain("filter")], [{"drop": None}], ["ip filter FORWARD drops some"]),
        ([chain("other", family="inet")], [{"reject": {}}], ["inet other FORWARD drops some"]),
        ([chain("filter")], [{"jump": {"target": "KUBE-FORWARD"}}], []),
        ([chain("filter", "drop", hook="input")], [{"drop": None}], []),
        ([{"chain": {"family": "ip", "table": "filter", "name": "LOG"}}], [{"drop": None}], []),
    ],
)
def test_chains_of_others_that_drop_what_is_forwarded_are_named(
    machine: Machine, chains: list[Any], rules: list[Any], found: list[str]
) -> None:
    listed = json.dumps({"nftables": [{"metainfo": {}}, *chains]})
    one = json.dumps({"nftables": [{"rule": {"expr": [{"counter": {}}, *rules]}}]})
    machine.program("nft", f"case \"$3\" in chains) echo '{listed}';; chain) echo '{one}';; *) exit 1;; esac")
    assert observe(machine)["blockers"] == found


def used(machine: Machine, *, inode: int = 0) -> str:
    """The unit has been started with a file; gives the file's path. `inode` 0: the one that it has."""
    path = machine.write("/etc/vmproxy/a file", "x")
    found = path.stat()
    machine.write(f"/run/vmproxy/{PROXY}.used", f"{path} {inode or found.st_ino} {int(found.st_ctime)}\n")
    return str(path)


def stale(machine: Machine, shown: str = SHOWN) -> bool:
    return bool(machine.module("agent.py").units(shown)[PROXY]["stale"])


def test_a_unit_that_runs_with_its_files_as_they_are_is_not_stale(machine: Machine) -> None:
    used(machine)
    assert not stale(machine)


def test_a_unit_is_stale_when_another_file_has_taken_the_place_of_one_that_it_uses(machine: Machine) -> None:
    used(machine, inode=1)
    assert stale(machine)


def test_a_unit_is_stale_when_a_file_that_it_uses_was_written_to(machine: Machine) -> None:
    path = used(machine)
    note = machine.path(f"/run/vmproxy/{PROXY}.used")
    note.write_text(note.read_text().replace(str(int(os.stat(path).st_ctime)), "1700000000"))
    assert stale(machine)


def test_a_unit_is_stale_when_a_file_that_it_uses_is_gone(machine: Machine) -> None:
    os.unlink(used(machine))
    assert stale(machine)


def test_a_unit_is_stale_when_its_own_file_has_changed(machine: Machine) -> None:
    assert stale(machine, SHOWN.replace("NeedDaemonReload=no", "NeedDaemonReload=yes"))


@pytest.mark.parametrize(
    ("state", "job", "active"),
    [
        ("inactive", "73", True),
        ("activating", "73", True),
        ("activating", "", False),
        ("inactive", "", False),
        ("deactivating", "73", False),
        ("failed", "", False),
    ],
)
def test_a_unit_that_is_about_to_start_counts_as_active_and_one_that_waits_to_be_restarted_does_not(
    machine: Machine, state: str, job: str, active: bool
) -> None:
    """As after a boot, when it waits for others; between two failures there is no job."""
    shown = SHOWN.replace("ActiveState=active\nJob=\n", f"ActiveState={state}\nJob={job}\n")
    assert machine.module("agent.py").units(shown)[PROXY]["active"] is active


def test_a_unit_that_does_not_run_is_not_stale(machine: Machine) -> None:
    used(machine, inode=1)
    assert not stale(machine, SHOWN.replace("ActiveState=active", "ActiveState=failed"))


@pytest.mark.parametrize(
    "token",
    [
        pytest.param("", id="empty"),
        pytest.param("no dots", id="one part"),
        pytest.param("a.!!!!.c", id="no base64"),
        pytest.param("a.bm8ganNvbg.c", id="no JSON"),
        pytest.param(jwt([]), id="a list"),
        pytest.param(jwt({**CLAIMS, "kubernetes.io": {}}), id="of no account"),
        pytest.param(jwt({**CLAIMS, "exp": None}), id="without an end"),
        pytest.param(jwt({**CLAIMS, "iat": "soon"}), id="a time in words"),
    ],
)
def test_a_token_that_is_none_of_a_service_account_is_seen_as_missing(machine: Machine, token: str) -> None:
    assert machine.module("agent.py").token(str(machine.write("/etc/vmproxy/token", token))) is None


def test_the_token_itself_is_not_in_the_answer(machine: Machine) -> None:
    token = machine.write("/etc/vmproxy/token", jwt(CLAIMS))
    seen = json.dumps(observe(machine, token=str(token)))
    assert "uid-1" in seen
    assert not any(part in seen for part in jwt(CLAIMS).split("."))


def test_kube_proxys_failures_are_those_of_both_families_and_its_times_those_of_ipv4(
    machine: Machine,
) -> None:
    assert machine.module("agent.py").metrics(METRICS) == {
        "last_synced": 1_700_000_001.5,
        "last_queued": 1_700_000_000.5,
        "failures": 3,
        "denied": 7,
        "version": "v1.36.3",
    }


def test_failures_of_iptables_count_too(machine: Machine) -> None:
    page = "kubeproxy_sync_proxy_rules_iptables_restore_failures_total 5\n"
    assert machine.module("agent.py").metrics(page)["failures"] == 5


def test_metrics_without_a_sample_say_nothing(machine: Machine) -> None:
    comments = "".join(f"# {line}\n" for line in METRICS.splitlines())
    seen = machine.module("agent.py").metrics(f"{comments}\n")
    assert seen == {name: DEAD[name] for name in seen}


def test_rules_are_looked_for_after_kube_proxy_said_that_it_has_written_them(machine: Machine) -> None:
    """Else those of a kube-proxy that writes them meanwhile would seem lost."""
    pages = {"/livez": b"ok", "/proxyMode": b"nftables", "/metrics": METRICS.encode()}
    with serving(pages) as served:
        machine.metrics = machine.health = int(served.url.rsplit(":", 1)[1].strip("/"))
        machine.program("nft", "echo 'Error: No such file or directory' >&2; exit 1")
        seen = observe(machine, canary=["127.0.0.1", 1])
    assert seen["canary"]["rule"] is False
    assert [path for path, _ in served.asked] == ["/livez", "/proxyMode", "/metrics", "/proxyMode"]


def test_kube_proxy_is_asked_on_its_own_ports(machine: Machine) -> None:
    pages = {"/livez": b"ok", "/proxyMode": b"nftables", "/metrics": METRICS.encode()}
    with serving(pages) as served:
        machine.metrics = machine.health = urlsplit(served.url).port or 0
        seen = observe(machine)["proxy"]
    assert (seen["live"], seen["mode"], seen["version"]) == (True, "nftables", "v1.36.3")


def test_an_older_kube_proxy_is_live_by_healthz_and_may_tell_no_mode(machine: Machine) -> None:
    with serving({"/healthz": b"ok"}) as served:
        machine.metrics = machine.health = urlsplit(served.url).port or 0
        seen = observe(machine)["proxy"]
        assert (seen["live"], seen["mode"]) == (True, None)
        served.files.clear()
        assert not observe(machine)["proxy"]["live"]


TABLE = {
    "nftables": [
        {"metainfo": {"version": "1.0.9", "json_schema_version": 1}},
        {"table": {"family": "inet", "name": "vmproxy", "handle": 4}},
        {"chain": {"family": "inet", "table": "vmproxy", "name": "input", "handle": 2, "policy": "accept"}},
    ]
}


def guarded(machine: Machine, table: dict[str, Any]) -> str | None:
    """The guard as the agent sees it, when nft shows `table`."""
    machine.program("nft", f"printf %s '{json.dumps(table)}'")
    seen = observe(machine, setup=machine.text("setup.py"))["guard"]
    return None if seen is None else str(seen)


def test_the_guard_is_known_by_the_file_that_it_was_loaded_from(machine: Machine) -> None:
    source = machine.write("/etc/vmproxy/guard.nft", "table inet vmproxy {}\n")
    machine.program("nft", f"[ $1 = -f ] || printf %s '{json.dumps(TABLE)}'")
    assert machine.run("setup.py", "guard").returncode == 0
    reloaded = json.loads(json.dumps(TABLE).replace('"handle": 4', '"handle": 9').replace("1.0.9", "1.1.1"))
    assert guarded(machine, reloaded) == hashlib.sha256(source.read_bytes()).hexdigest()
    assert guarded(machine, json.loads(json.dumps(TABLE).replace('"accept"', '"drop"'))) == "changed"
    machine.path("/run/vmproxy/guard.json").unlink()
    assert guarded(machine, TABLE) == "changed"


def test_the_setup_that_comes_with_the_question_judges_the_guard_not_the_one_in_place(
    machine: Machine,
) -> None:
    machine.write("/usr/local/lib/vmproxy/setup.py", "raise SystemExit('an older one')\n")
    machine.program("nft", "[ $1 = --version ] || echo '{}'")
    assert observe(machine, setup="def guard_seen(rules): return 'judged ' + rules")["guard"] == "judged {}\n"
