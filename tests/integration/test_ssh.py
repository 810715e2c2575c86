"""The connection to the guest, against its real sshd: what ends a command, and what ends all of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import paramiko
import pytest

from tests.integration.world import World
from vmproxy.errors import ToolFailed, Unreachable
from vmproxy.transport import ssh
from vmproxy.transport.ssh import Ssh
from vmproxy.util import netns

pytestmark = pytest.mark.lab

_EOF = 96
"""SSH_MSG_CHANNEL_EOF (RFC 4254, 9)."""


@pytest.fixture
def connection(world: World) -> Iterator[Ssh]:
    address = world.site()["hosts"][0]["network"]["address"].partition("/")[0]
    with ssh.connect(
        lambda: netns.connect(world.status.namespaces["host"], (address, 22), timeout=10.0),
        host_key=world.look("cat /etc/ssh/ssh_host_ed25519_key.pub"),
        identity=world.ssh_key,
        key=world.ssh_key.read_text(),
        what="VM a",
    ) as made:
        yield made


def test_a_command_that_ends_at_once_does_not_end_the_connection(
    connection: Ssh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on a machine so busy that each end of input is sent when the command has long ended."""
    send = paramiko.Transport._send_user_message

    def send_late(transport: paramiko.Transport, message: Any) -> None:
        if message.asbytes()[0] == _EOF:
            time.sleep(0.3)
        send(transport, message)

    monkeypatch.setattr(paramiko.Transport, "_send_user_message", send_late)
    for _ in range(3):
        assert connection.run("echo done") == b"done\n"
    assert connection.alive()


def test_a_command_has_no_input_to_wait_for(connection: Ssh) -> None:
    assert connection.run("cat; (cat); echo done") == b"done\n"


def test_a_connection_that_is_lost_is_not_the_command_s_fault(connection: Ssh) -> None:
    with pytest.raises(Unreachable, match=r"cannot continue in VM a: the connection was lost: \w") as raised:
        connection.run("kill -9 $PPID; sleep 60")
    assert raised.value.hint == "run it again"
    assert not connection.alive()


def test_a_command_that_a_signal_ended_leaves_the_connection(connection: Ssh) -> None:
    with pytest.raises(ToolFailed, match="cannot run a command in VM a: a signal ended it"):
        connection.run("kill -9 $$")
    assert connection.run("echo done") == b"done\n"


def test_a_conversation_whose_program_a_signal_ended_is_its_failure(connection: Ssh) -> None:
    talk = connection.converse('read line; echo "$line"; read line; kill -9 $$')
    assert talk.ask([b"a\n"]) == b"a\n"
    with pytest.raises(ToolFailed, match="a signal ended it"):
        talk.ask([b"b\n"])
    assert connection.run("echo done") == b"done\n"


def test_a_conversation_over_a_lost_connection_says_so(connection: Ssh) -> None:
    talk = connection.converse("read line; kill -9 $PPID; sleep 60")
    with pytest.raises(Unreachable, match=r"the connection was lost: \w"):
        talk.ask([b"a\n"])
