#!/usr/bin/python3 -I
"""Looks every few seconds at what vmproxy has set up in this VM, and repairs what needs no controller:
addresses, routes, guard table, kernel settings, and a kube-proxy that stopped, hangs or lost its rules.

Each repair is a line in the journal and counts in /run/vmproxy/keeper.json. What has to be repaired again and
again is looked at less often: something else changes it back.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import struct
import subprocess
import sys
import time

LIBRARY = "/usr/local/lib/vmproxy"
PROGRAM = "/usr/local/lib/vmproxy/kube-proxy"
KEEPER = "/etc/vmproxy/keeper.json"
GUARD = "/etc/vmproxy/guard.nft"
ROUTES = "/etc/vmproxy/routes.json"
ADDRESSES = "/etc/vmproxy/addresses.json"
SYSCTLS = "/etc/sysctl.d/99-vmproxy.conf"
REPAIRS = "/run/vmproxy/keeper.json"
KERNEL = "/proc/sys"
TABLE = "/proc/net/route"
PROXY_UNIT = "vmproxy-kube-proxy.service"
METRICS = 10249
HEALTH = 10256
LOOKS = 3.0
STARTS = 60.0
BUSY = 300.0
IDLE = 0.01
PATIENCE = 3
WHILE = 600.0
LONGEST = 900.0

TYPE_CHECKING = False  # not imported: typing is slow to load on an emulated CPU
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

sys.path.insert(0, LIBRARY)  # setup.py is there


class Fault:
    """Something that can be wrong and be repaired. `broken` says what is wrong, or None. Either may fail."""

    def __init__(self, name: str, broken: Callable[[], str | None], repair: Callable[[], None]) -> None:
        self.name = name
        self.broken = broken
        self.repair = repair
        self.repaired: list[float] = []
        self.waits_until = 0.0

    def look(self, now: float) -> bool:
        """Whether it was repaired."""
        if now < self.waits_until:
            return False
        try:
            what = self.broken()
            if what is None:
                return False
            self.repair()
        except Exception as error:  # whatever is wrong with one must not keep the others from being repaired
            say("cannot repair %s: %s" % (self.name, error or repr(error)))
            self.slow_down(now)
            return False
        say("repaired %s: %s" % (self.name, what))
        self.slow_down(now)
        return True

    def slow_down(self, now: float) -> None:
        self.repaired = [*(at for at in self.repaired if now - at < WHILE), now]
        more = len(self.repaired) - PATIENCE
        if more >= 0:
            wait = min(60.0 * 2**more, LONGEST)
            self.waits_until = now + wait
            say("%s: %d times; something changes it back; looking again in %d s"
                % (self.name, len(self.repaired), wait))  # fmt: skip


def say(text: str) -> None:
    print(text, flush=True)


# Addresses, routes, guard table, kernel settings.


def addresses_broken() -> str | None:
    with open(ADDRESSES) as file:
        missing = [item for item in json.load(file) if not held(item.partition("/")[0])]
    return "%s missing" % ", ".join(missing) if missing else None


def held(address: str) -> bool:
    """Whether this machine has it, asked without a program: nothing is bound to another's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        try:
            channel.bind((address, 0))
        except OSError:
            return False
    return True


def routes_broken() -> str | None:
    with open(ROUTES) as file:
        wanted = {(item["prefix"], item["via"]) for item in json.load(file)}
    missing = sorted(prefix for prefix, _via in wanted - set(routes()))
    return "%s missing" % ", ".join(missing) if missing else None


def routes() -> Iterator[tuple[str, str]]:
    """Prefix and next hop of each IPv4 route of the main table, read without a program."""
    with open(TABLE) as file:
        for line in list(file)[1:]:
            words = line.split()
            prefix = "%s/%d" % (dotted(words[1]), bin(int(words[7], 16)).count("1"))
            yield prefix, "" if int(words[2], 16) == 0 else dotted(words[2])


def dotted(number: str) -> str:
    return socket.inet_ntoa(struct.pack("<L", int(number, 16)))


def settings() -> dict[str, str]:
    import setup

    with open(SYSCTLS) as file:
        pairs = [line.split("=", 1) for line in file if "=" in line and not line.startswith("#")]
    found = {name.strip(): value.strip() for name, value in pairs}
    # Nothing is forwarded without the guard table.
    off = [name for name in setup.FORWARD if setting(name) == "0"]
    if off and guard_broken() is None:
        found.update(dict.fromkeys(off, "1"))
    return found


def sysctls_broken() -> str | None:
    wrong = [name for name, value in settings().items() if setting(name) not in (value, None)]
    return ", ".join(wrong) or None


def setting(name: str) -> str | None:
    try:
        with open("%s/%s" % (KERNEL, name.replace(".", "/"))) as file:
            return file.read().strip()
    except OSError:
        return None


def set_sysctls() -> None:
    for name, value in settings().items():
        if setting(name) not in (value, None):
            with open("%s/%s" % (KERNEL, name.replace(".", "/")), "w") as file:
                file.write(value)


class Rules:
    """What the kernel has of nftables, looked at only when something has changed there: `generation` asks it
    for a number, a listing costs a program. A look answers what is wrong, None for nothing, and "" when it
    cannot tell: it is then made again."""

    def __init__(self) -> None:
        self.good: dict[str, int | None] = {}

    def broken(self, name: str, look: Callable[[], str | None]) -> str | None:
        now = generation()
        if now is not None and self.good.get(name) == now:
            return None
        what = look()
        self.good[name] = now if what is None else None
        return what or None


def generation() -> int | None:
    """Of the rules in the kernel; None: it does not say."""
    request = struct.pack("=LHHLLBBH", 20, (10 << 8) | 16, 1, 1, 0, 0, 0, 0)  # NFT_MSG_GETGEN
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as netlink:  # NETLINK_NETFILTER
            netlink.settimeout(2.0)
            netlink.send(request)
            answer = netlink.recv(4096)
    except OSError:
        return None
    kind = struct.unpack_from("=H", answer, 4)[0]
    return struct.unpack_from(">L", answer, 24)[0] if kind == (10 << 8) | 15 else None


def guard_broken() -> str | None:
    import setup

    told = tool("nft", "-j", "list", "table", "inet", "vmproxy")
    if told is None:
        return "it was not there"
    with open(GUARD, "rb") as file:
        wanted = hashlib.sha256(file.read()).hexdigest()
    return None if setup.guard_seen(told) == wanted else "it was changed"


def tool(*command: str) -> str | None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None


# kube-proxy.


class Proxy:
    """`known`: it was live since it was last started. `lived`: when it was live last, by the monotonic clock.
    `silence`: when it was first silent; `used`: the processor time of its unit in seconds when it was last
    silent."""

    def __init__(self, begun: float) -> None:
        self.begun = begun
        self.known = False
        self.lived = 0.0
        self.silent = 0
        self.silence = 0.0
        self.used = 0.0

    def broken(self) -> str | None:
        """Stopped, or silent twice though it was live before or has had its time to start.

        On a machine with little time left it answers late, or takes minutes to start: it then uses what
        processor time it gets, which one that hangs does not, and gets longer.
        """
        if not os.path.exists(PROGRAM):
            return None
        if status(HEALTH, "/livez") in (200, 404):  # 404: before 1.28
            self.known, self.lived, self.silent = True, time.monotonic(), 0
            return None
        now = time.monotonic()
        state, age, used = self.unit()
        if not self.silent:
            self.silence = now
        works = not self.silent or used - self.used > IDLE * LOOKS
        self.silent, self.used = self.silent + 1, used
        if state not in ("active", "activating", "reloading", "deactivating"):
            new = now - self.begun < STARTS and not self.known
            return None if new else "it was %s" % (state or "unknown")
        if state != "active" or self.silent < 2:
            return None
        if now - age < self.lived:  # the very one that was live
            hangs = not works or now - self.silence > STARTS
        else:
            hangs = age > (BUSY if works else STARTS)
        return "it did not answer for %d s" % (now - self.silence + LOOKS) if hangs else None

    def unit(self) -> tuple[str, float, float]:
        """The state of its unit, for how many seconds it has run, and how much processor time that took."""
        names = "ActiveState,ActiveEnterTimestampMonotonic,CPUUsageNSec"
        told = tool("systemctl", "show", "--property=" + names, PROXY_UNIT)
        values = dict(line.split("=", 1) for line in (told or "").splitlines() if "=" in line)
        since, used = values.get("ActiveEnterTimestampMonotonic", ""), values.get("CPUUsageNSec", "")
        age = time.monotonic() - int(since) / 1e6 if since.isdigit() else 0.0
        return values.get("ActiveState", ""), age, int(used) / 1e9 if used.isdigit() else 0.0

    def rules_broken(self) -> str | None:
        """Its rule for the API server is gone. It notices that only at its next full sync, in an hour."""
        if not self.known or self.silent:
            return ""
        with open(KEEPER) as file:
            address, port = json.load(file)["canary"]
        if rule(address, port):
            return None
        late = has_written() or self.unit()[1] > BUSY
        there = rule(address, port)  # what it said to have written before is there by now
        if there is False and late:
            return "the rule for %s:%d was gone" % (address, port)
        return None if there else ""

    def restart(self) -> None:
        self.known = False
        self.silent = 0
        subprocess.run(["systemctl", "restart", "--no-block", PROXY_UNIT], check=True)


def rule(address: str, port: int) -> bool | None:
    """Whether the kernel has kube-proxy's rule for it; None when that cannot be told now."""
    mode = page(METRICS, "/proxyMode")
    if mode == "nftables":
        element = "{ %s . tcp . %d }" % (address, port)
        found = [element_there(name, element) for name in ("service-ips", "no-endpoint-services")]
        return True if True in found else None if None in found else False
    saved = tool("iptables-save") if mode else None
    if saved is None:
        return None
    wanted = "-d %s/32" % address
    return any(wanted in line and "--dport %d " % port in line + " " for line in saved.splitlines())


def has_written() -> bool:
    """Whether kube-proxy says that it has written its rules for IPv4 since it started."""
    name = "kubeproxy_sync_proxy_rules_last_timestamp_seconds"
    lines = [line for line in page(METRICS, "/metrics").splitlines() if line.startswith(name)]
    return any('"IPv6"' not in line and float(line.split()[-1]) > 0 for line in lines)


def element_there(name: str, element: str) -> bool | None:
    """Of a set or map of kube-proxy's table. None: nft failed for another reason than that it is missing."""
    done = subprocess.run(
        ["nft", "get", "element", "ip", "kube-proxy", name, element],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, "LC_ALL": "C"}, check=False,
    )  # fmt: skip
    if done.returncode == 0:
        return True
    return False if b"No such file or directory" in done.stderr else None


def status(port: int, path: str) -> int:
    return asked(port, path)[0]


def page(port: int, path: str) -> str:
    """Empty when it does not answer, or with another status than 200."""
    code, text = asked(port, path)
    return text.strip() if code == 200 else ""


def asked(port: int, path: str) -> tuple[int, str]:
    """Status and text of a loopback web server's page; status 0 when nothing answers."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as channel:
            channel.sendall(b"GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n" % path.encode())
            answer = b"".join(iter(lambda: channel.recv(65536), b""))
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), body.decode(errors="replace")
    except (OSError, ValueError, IndexError):
        return 0, ""


# All of it.


def faults() -> list[Fault]:
    import setup

    rules, proxy = Rules(), Proxy(time.monotonic())
    return [
        Fault("the guard table", lambda: rules.broken("guard", guard_broken), setup.guard),
        Fault("addresses", addresses_broken, setup.addresses),
        Fault("routes", routes_broken, setup.routes),
        Fault("kernel settings", sysctls_broken, set_sysctls),
        Fault("kube-proxy", proxy.broken, proxy.restart),
        Fault("kube-proxy's rules", lambda: rules.broken("proxy", proxy.rules_broken), proxy.restart),
    ]


def count(counts: dict[str, int]) -> None:
    try:
        os.makedirs(os.path.dirname(REPAIRS), exist_ok=True)
        with open(REPAIRS + ".part", "w") as file:
            json.dump(counts, file)
        os.replace(REPAIRS + ".part", REPAIRS)
    except OSError as error:
        say("cannot count the repairs: %s" % error)


def counted() -> dict[str, int]:
    try:
        with open(REPAIRS) as file:
            found: dict[str, Any] = json.load(file)
        return {str(name): int(number) for name, number in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def keep(every: list[Fault], counts: dict[str, int]) -> None:
    """One look at everything."""
    for fault in every:
        if fault.look(time.monotonic()):
            counts[fault.name] = counts.get(fault.name, 0) + 1
            count(counts)


def main() -> None:
    every, counts = faults(), counted()
    while True:
        keep(every, counts)
        time.sleep(LOOKS)


if __name__ == "__main__":
    main()
