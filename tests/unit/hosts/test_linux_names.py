"""The rules for names in a namespace: what dnsmasq's servers file says, and what is written to it."""

from __future__ import annotations

from ipaddress import ip_address

from vmproxy.hosts.linux.names import parsed, written
from vmproxy.model.seen import NameRule

RULE = NameRule(
    (".cluster.local", ".96.10.in-addr.arpa"), (ip_address("10.96.0.10"),), "vmproxy:a:win-01", "one"
)


def test_what_is_written_is_read_again() -> None:
    other = NameRule((".corp",), (ip_address("10.0.0.1"),), "a VPN's", "two")
    assert parsed(written([RULE, other])) == (RULE, other)
    assert written([RULE]).splitlines()[1] == "server=/cluster.local/96.10.in-addr.arpa/10.96.0.10"


def test_lines_of_others_are_rules_of_theirs() -> None:
    text = "# by hand\nserver=/corp/10.0.0.1\n\n" + written([RULE]) + "server=/cluster.local/10.0.0.2\n"
    first, ours, last = parsed(text)
    assert ours == RULE
    assert (first.comment, first.namespaces, first.id) == ("", (".corp",), "line-2")
    assert (last.comment, last.servers) == ("", (ip_address("10.0.0.2"),))
