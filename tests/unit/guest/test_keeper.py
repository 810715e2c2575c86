"""keeper.py: what it finds wrong in a guest in a folder, what it does about it, and when it waits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from tests.unit.guest.machine import Machine
from tests.unit.served import Served, serving

ROUTES = [{"prefix": "10.244.1.0/24", "via": "192.168.10.20"}, {"prefix": "10.9.0.0/24", "via": ""}]
HEAD = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
FIRST = "eth0\t0001F40A\t140AA8C0\t0003\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
SECOND = "eth0\t0000090A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"


@pytest.fixture
def proxy(machine: Machine) -> Iterator[Served]:
    """kube-proxy's own pages."""
    with serving({"/livez": b"ok", "/proxyMode": b"nftables"}) as served:
        machine.metrics = machine.health = int(served.url.rsplit(":", 1)[1].strip("/"))
        machine.write("/usr/local/lib/vmproxy/kube-proxy", "")
        machine.write("/etc/vmproxy/keeper.json", json.dumps({"canary": ["10.96.0.1", 443]}))
        yield served


@pytest.fixture(autouse=True)
def _on_path(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(machine.bin))


def keeper(machine: Machine) -> Any:
    return machine.module("keeper.py")


def unit(machine: Machine, state: str, *, since: int = 0, used: int = 0) -> None:
    """`used`: its processor time in nanoseconds."""
    told = f"ActiveState={state}\nActiveEnterTimestampMonotonic={since}\nCPUUsageNSec={used}\n"
    machine.records("systemctl", says=told)


def no_rules(machine: Machine) -> None:
    machine.records("nft", then="echo 'Error: Could not process rule: No such file or directory' >&2\nexit 1")


def test_a_route_that_is_gone_is_named(machine: Machine) -> None:
    machine.write("/etc/vmproxy/routes.json", json.dumps(ROUTES))
    table = machine.write("/proc/net/route", HEAD + FIRST + SECOND)
    assert keeper(machine).routes_broken() is None
    table.write_text(HEAD + SECOND)
    assert keeper(machine).routes_broken() == "10.244.1.0/24 missing"
    table.write_text(HEAD + FIRST.replace("140AA8C0", "150AA8C0") + SECOND)
    assert keeper(machine).routes_broken() == "10.244.1.0/24 missing"


def test_an_address_that_is_gone_is_named(machine: Machine) -> None:
    """127.0.0.0/8 is this machine's; nobody has an address for documentation."""
    file = machine.write("/etc/vmproxy/addresses.json", json.dumps(["127.9.9.2/24"]))
    assert keeper(machine).addresses_broken() is None
    file.write_text(json.dumps(["127.9.9.2/24", "198.51.100.77/24"]))
    assert keeper(machine).addresses_broken() == "198.51.100.77/24 missing"
    file.write_text("[]")
    assert keeper(machine).addresses_broken() is None


def test_kernel_settings_are_put_back_and_others_left_alone(machine: Machine) -> None:
    guarded(machine)
    machine.write("/etc/sysctl.d/99-vmproxy.conf", "net.ipv4.conf.all.rp_filter = 2\nnet.not.there = 1\n")
    loose = machine.write("/proc/sys/net/ipv4/conf/all/rp_filter", "1\n")
    forward = machine.write("/proc/sys/net/ipv4/ip_forward", "0\n")
    watching = keeper(machine)
    assert watching.sysctls_broken() == "net.ipv4.conf.all.rp_filter, net.ipv4.ip_forward"
    watching.set_sysctls()
    assert (loose.read_text(), forward.read_text()) == ("2", "1")
    assert watching.sysctls_broken() is None


def test_forwarding_that_is_off_for_the_interface_alone_is_put_back(machine: Machine) -> None:
    guarded(machine)
    machine.write("/etc/sysctl.d/99-vmproxy.conf", "")
    machine.write("/proc/sys/net/ipv4/ip_forward", "1\n")
    own = machine.write("/proc/sys/net/ipv4/conf/eth0/forwarding", "0\n")
    watching = keeper(machine)
    assert watching.sysctls_broken() == "net.ipv4.conf.eth0.forwarding"
    watching.set_sysctls()
    assert own.read_text() == "1"


def test_a_default_route_that_is_gone_is_named(machine: Machine) -> None:
    machine.write("/etc/vmproxy/routes.json", json.dumps([{"prefix": "0.0.0.0/0", "via": "192.168.10.1"}]))
    table = machine.write("/proc/net/route", HEAD + SECOND)
    assert keeper(machine).routes_broken() == "0.0.0.0/0 missing"
    table.write_text(HEAD + "eth0\t00000000\t010AA8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n")
    assert keeper(machine).routes_broken() is None


def guarded(machine: Machine) -> None:
    """The guard table is loaded, and as it was loaded."""
    machine.write("/etc/vmproxy/guard.nft", "table")
    machine.records("nft", says=json.dumps({"nftables": [{"rule": {"expr": [{"drop": None}]}}]}))
    assert machine.run("setup.py", "guard").returncode == 0


def test_nothing_is_let_forward_without_the_guard_table(machine: Machine) -> None:
    machine.write("/etc/sysctl.d/99-vmproxy.conf", "net.ipv4.conf.all.rp_filter = 2\n")
    loose = machine.write("/proc/sys/net/ipv4/conf/all/rp_filter", "1\n")
    forward = machine.write("/proc/sys/net/ipv4/ip_forward", "0\n")
    guarded(machine)
    machine.records("nft", then="exit 1")
    watching = keeper(machine)
    assert watching.sysctls_broken() == "net.ipv4.conf.all.rp_filter"
    watching.set_sysctls()
    assert (loose.read_text(), forward.read_text()) == ("2", "0\n")


def test_a_guard_table_that_is_gone_or_changed_is_told_from_a_good_one(machine: Machine) -> None:
    machine.write("/etc/vmproxy/guard.nft", "table")
    listed = {"nftables": [{"rule": {"expr": [{"drop": None}]}}]}
    machine.records("nft", says=json.dumps(listed))
    assert machine.run("setup.py", "guard").returncode == 0
    assert keeper(machine).guard_broken() is None
    machine.records("nft", says=json.dumps(listed).replace("drop", "accept"))
    assert keeper(machine).guard_broken() == "it was changed"
    machine.records("nft", then="exit 1")
    assert keeper(machine).guard_broken() == "it was not there"
    note = json.loads(machine.path("/run/vmproxy/guard.json").read_text())
    assert note["source"] == hashlib.sha256(b"table").hexdigest()


def test_the_rules_are_listed_again_only_when_the_kernel_has_others(machine: Machine) -> None:
    rules, looks = keeper(machine).Rules(), []
    generations = iter([7, 7, 8, 8, 9, None, None])
    rules.broken.__globals__["generation"] = lambda: next(generations)

    def look(answer: str | None) -> str | None:
        looks.append(answer)
        return answer

    assert [rules.broken("guard", lambda: look(None)) for _ in range(3)] == [None, None, None]
    assert len(looks) == 2  # at 7, and at 8
    assert rules.broken("proxy", lambda: look("gone")) == "gone"  # 8: another one's
    assert rules.broken("proxy", lambda: look("gone")) == "gone"  # 9: it was not good before either
    for _ in range(2):  # a kernel that does not say is looked at each time
        rules.broken("guard", lambda: look(None))
    assert len(looks) == 6


def test_the_kernel_says_the_generation_of_its_rules_or_nothing(machine: Machine) -> None:
    found = keeper(machine).generation()
    assert found is None or found > 0


def test_a_stopped_kube_proxy_is_found_at_once_and_one_that_never_ran_gets_its_time(
    machine: Machine, proxy: Served
) -> None:
    watching = keeper(machine)
    seen = watching.Proxy(watching.time.monotonic())
    unit(machine, "inactive")
    live = proxy.files.pop("/livez")
    proxy.files["/livez"] = live
    assert seen.broken() is None
    machine.health = 1
    watching = keeper(machine)
    new = watching.Proxy(watching.time.monotonic())
    assert new.broken() is None
    new.known = True
    assert new.broken() == "it was inactive"
    old = watching.Proxy(watching.time.monotonic() - 100)
    assert old.broken() == "it was inactive"


@pytest.fixture
def silent(machine: Machine, proxy: Served) -> Any:
    """A keeper whose kube-proxy does not answer, and whose clock stands until it is moved."""
    watching = keeper(machine)
    watching.status = lambda _port, _path: 0
    watching.time = Clock()
    return watching


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


def looked_at(
    machine: Machine, watching: Any, *, lived: float, since: float, share: float, for_: int
) -> str | None:
    """What the looks of some seconds say in the end. `share`: of a processor, that kube-proxy uses then."""
    seen, watching.time.now = watching.Proxy(0.0), 1000.0
    seen.lived, said = lived, None
    for passed in range(0, for_ + 1, 3):
        watching.time.now = 1000.0 + passed
        unit(machine, "active", since=int(since * 1e6), used=int(5e9 + share * passed * 1e9))
        said = seen.broken()
        if said is not None:
            return str(said)
    return None


@pytest.mark.parametrize(
    ("lived", "since", "share", "until", "says"),
    [
        (990.0, 900.0, 0.0, 3, "it did not answer for 6 s"),  # it was live and does nothing any more
        (990.0, 900.0, 0.4, 60, None),  # live, late, and at work
        (990.0, 900.0, 0.4, 63, "it did not answer for 66 s"),
        (0.0, 990.0, 0.0, 48, None),  # it starts
        (0.0, 990.0, 0.0, 51, "it did not answer for 54 s"),
        (0.0, 990.0, 0.4, 288, None),  # it starts on a machine that has little time for it
        (0.0, 990.0, 0.4, 291, "it did not answer for 294 s"),
        (970.0, 980.0, 0.4, 240, None),  # another one was live
    ],
)
def test_a_kube_proxy_that_hangs_is_told_from_one_that_has_little_time(
    machine: Machine, silent: Any, lived: float, since: float, share: float, until: int, says: str | None
) -> None:
    assert looked_at(machine, silent, lived=lived, since=since, share=share, for_=until) == says


def test_without_the_program_nothing_is_missed(machine: Machine) -> None:
    unit(machine, "inactive")
    watching = keeper(machine)
    assert watching.Proxy(watching.time.monotonic() - 100).broken() is None
    assert machine.calls() == []


def test_rules_that_were_there_and_are_gone_are_missed(machine: Machine, proxy: Served) -> None:
    unit(machine, "active", since=10**15)
    watching = keeper(machine)
    seen = watching.Proxy(0.0)
    no_rules(machine)
    assert seen.rules_broken() == ""  # nobody knows yet whether it lives
    assert seen.broken() is None
    assert seen.rules_broken() == ""  # it has not written them yet
    proxy.files["/metrics"] = written()
    machine.records("nft", says="element")
    assert seen.rules_broken() is None
    no_rules(machine)
    assert seen.rules_broken() == "the rule for 10.96.0.1:443 was gone"
    seen.restart()
    assert machine.calls()[-1] == "systemctl restart --no-block vmproxy-kube-proxy.service"
    assert seen.rules_broken() == ""


def written(family: int = 4, at: str = "1.7e+09") -> bytes:
    """What kube-proxy's metrics say of its last sync."""
    name = "kubeproxy_sync_proxy_rules_last_timestamp_seconds"
    return f'# HELP {name} x\n{name}{{ip_family="IPv{family}"}} {at}\n'.encode()


@pytest.mark.parametrize(
    ("metrics", "gone"), [(written(), True), (written(at="0"), False), (written(6), False), (b"", False)]
)
def test_rules_that_were_lost_before_they_were_seen_are_missed_when_they_were_written(
    machine: Machine, proxy: Served, metrics: bytes, gone: bool
) -> None:
    unit(machine, "active", since=10**15)
    proxy.files["/metrics"] = metrics
    seen = keeper(machine).Proxy(0.0)
    no_rules(machine)
    assert seen.broken() is None
    assert seen.rules_broken() == ("the rule for 10.96.0.1:443 was gone" if gone else "")


def test_rules_that_cannot_be_looked_at_now_are_not_gone_and_are_looked_at_again(
    machine: Machine, proxy: Served
) -> None:
    unit(machine, "active", since=0)
    watching = keeper(machine)
    seen, rules = watching.Proxy(0.0), watching.Rules()
    rules.broken.__globals__["generation"] = lambda: 7
    machine.records("nft", says="element")
    assert seen.broken() is None
    assert seen.rules_broken() is None
    no_rules(machine)
    mode = proxy.files.pop("/proxyMode")
    assert rules.broken("proxy", seen.rules_broken) is None  # its page is not answered in time
    proxy.files["/proxyMode"] = mode
    machine.records(
        "nft", then="echo 'Error: cache initialization failed: Device or resource busy' >&2\nexit 1"
    )
    assert rules.broken("proxy", seen.rules_broken) is None
    no_rules(machine)
    assert rules.broken("proxy", seen.rules_broken) == "the rule for 10.96.0.1:443 was gone"
    proxy.files["/proxyMode"] = b"iptables"
    machine.records("iptables-save", then="exit 4")  # another program holds the lock
    assert rules.broken("proxy", seen.rules_broken) is None
    machine.records("iptables-save")
    assert rules.broken("proxy", seen.rules_broken) == "the rule for 10.96.0.1:443 was gone"


def test_rules_of_iptables_are_found_too(machine: Machine, proxy: Served) -> None:
    proxy.files["/proxyMode"] = b"iptables"
    line = "-A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m tcp --dport 443 -j KUBE-SVC-X"
    machine.records("iptables-save", says=f"*nat\n{line}\n")
    watching = keeper(machine)
    assert watching.rule("10.96.0.1", 443)
    assert not watching.rule("10.96.0.1", 44)
    assert not watching.rule("10.96.0.10", 443)


def test_a_repair_is_said_and_counted_and_the_count_survives_the_keeper(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    watching = keeper(machine)
    broken = ["10.244.1.0/24 missing", None]
    fault = watching.Fault("routes", lambda: broken.pop(0), lambda: None)
    counts: dict[str, int] = {}
    watching.keep([fault], counts)
    watching.keep([fault], counts)
    assert capsys.readouterr().out == "repaired routes: 10.244.1.0/24 missing\n"
    assert counts == watching.counted() == {"routes": 1}


@pytest.mark.parametrize("content", ["", "[]", '{"routes": "x"}', "{"])
def test_a_broken_count_begins_again(machine: Machine, content: str) -> None:
    machine.write("/run/vmproxy/keeper.json", content)
    assert keeper(machine).counted() == {}


@pytest.mark.parametrize("content", ["5", "[5]", '["x"]', "{", "[{}]", "\xff"])
def test_a_damaged_file_keeps_no_other_repair_from_being_made(
    machine: Machine, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    machine.path("/etc/vmproxy/routes.json").write_bytes(content.encode("latin-1"))
    machine.write("/proc/net/route", HEAD)
    watching = keeper(machine)
    broken = ["gone", None]
    faults = [
        watching.Fault("routes", watching.routes_broken, lambda: None),
        watching.Fault("other", lambda: broken.pop(0), lambda: None),
    ]
    watching.keep(faults, {})
    said = capsys.readouterr().out
    assert "cannot repair routes: " in said
    assert "repaired other: gone" in said


def test_a_count_that_cannot_be_kept_is_said_and_ends_nothing(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.path("/run/vmproxy").write_text("not a folder")
    watching = keeper(machine)
    watching.keep([watching.Fault("routes", lambda: "gone", lambda: None)], {})
    assert "cannot count the repairs: " in capsys.readouterr().out


def test_what_is_repaired_again_and_again_is_looked_at_less_often(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    watching = keeper(machine)
    fault = watching.Fault("routes", lambda: "gone", lambda: None)
    at = [now for now in range(0, 3000, 3) if fault.look(float(now))]
    assert at[:3] == [0, 3, 6]
    waits = [later - earlier for earlier, later in pairwise(at[2:])]
    assert waits[:3] == [60, 120, 240]
    assert max(waits) <= 903
    assert "routes: 3 times; something changes it back; looking again in 60 s" in capsys.readouterr().out


def test_a_repair_that_fails_is_said_and_tried_less_often(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    watching = keeper(machine)

    def fails() -> None:
        raise watching.subprocess.CalledProcessError(2, ["ip", "route"])

    fault = watching.Fault("routes", lambda: "gone", fails)
    tried = [now for now in range(0, 300, 3) if not fault.look(float(now)) and fault.repaired[-1] == now]
    assert tried == [0, 3, 6, 66, 186]
    said = capsys.readouterr().out
    assert said.startswith("cannot repair routes: Command '['ip', 'route']' returned non-zero exit status 2.")
