"""The guest's kernel settings: it forwards, sends no redirects, and accepts replies that come another way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from vmproxy.model import names
from vmproxy.model.names import FORWARD, SYSCTLS
from vmproxy.model.seen import GuestSeen
from vmproxy.model.steps import ManagedFile, SetSysctl
from vmproxy.resources import kubeproxyconfig


def wanted(version: str) -> dict[str, str]:
    """By name, for that version of kube-proxy. A redirect setting counts when it is on for `all` or for the
    interface: the next hop of what is forwarded shares the subnet with the sender."""
    values = dict.fromkeys(FORWARD, "1")
    for interface in ("all", "default", names.INTERFACE):
        values[f"net.ipv4.conf.{interface}.send_redirects"] = "0"
        values[f"net.ipv4.conf.{interface}.accept_redirects"] = "0"
        values[f"net.ipv4.conf.{interface}.rp_filter"] = "2"
    if kubeproxyconfig.minor(version) < 29:  # later ones set it themselves
        values["net.netfilter.nf_conntrack_tcp_be_liberal"] = "1"
    return values


def files(values: Mapping[str, str]) -> dict[str, ManagedFile]:
    """Read at boot; what runs is set by steps of its own. Forwarding is not in the file: setup.py lets the
    kernel forward when the guard table is loaded."""
    early = {name: value for name, value in values.items() if name not in FORWARD}
    return {SYSCTLS: ManagedFile.of("".join(f"{name} = {value}\n" for name, value in early.items()))}


def plan(values: Mapping[str, str], seen: GuestSeen) -> Iterator[SetSysctl]:
    for name, value in values.items():
        if seen.sysctls.get(name) != value:
            yield SetSysctl(name, value, seen.sysctls.get(name))
