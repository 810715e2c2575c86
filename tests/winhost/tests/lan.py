"""A LAN in namespaces: a bridge with a gateway, an emulated host, a neighbour, a VM that answers Services."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer

from tests import names
from tests.winhost.presence import require
from vmproxy.util import netns
from vmproxy.util.run import run

GATEWAY, HOST, NEIGHBOUR, VM = "192.168.100.1", "192.168.100.10", "192.168.100.40", "192.168.100.5"
SERVICES, SERVICE = "10.96.0.0/16", "10.96.0.50"
PODS = "10.244.9.0/24"
"""The VM sends them to the host."""


class _Teller(BaseHTTPRequestHandler):
    """Answers with the client's address."""

    def do_GET(self) -> None:
        body = self.client_address[0].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@dataclass(frozen=True)
class Lan:
    """Its namespaces."""

    switch: str
    host: str
    neighbour: str
    vm: str

    def mac(self, namespace: str) -> str:
        return run(netns.run_in(namespace, ["cat", "/sys/class/net/eth0/address"])).stdout.strip()

    def known(self, namespace: str, address: str) -> str:
        """What a machine has learnt to be the MAC address of another; empty before it has."""
        told = run(["ip", "-n", namespace, "neighbor", "show", address]).stdout.split()
        return told[told.index("lladdr") + 1] if "lladdr" in told else ""


def get(namespace: str, address: str, *, patience: float = 5) -> str | None:
    """What answers there; None when nothing does in `patience` seconds."""
    asked = ["curl", "--silent", "--noproxy", "*", "--max-time", str(patience), f"http://{address}/"]
    done = subprocess.run(netns.run_in(namespace, asked), capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else None


@contextmanager
def serving(namespace: str, port: int = 80) -> Iterator[None]:
    """A server on that port of all addresses of a namespace."""
    channel = netns.open_socket(namespace, "tcp")
    server = HTTPServer(("0.0.0.0", port), _Teller, bind_and_activate=False)
    server.socket.close()
    server.socket = channel
    server.server_bind()
    server.server_activate()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def lan() -> Iterator[Lan]:
    """The tests that ask for it are not run where it can not be made."""
    require(None if os.geteuid() == 0 else "network namespaces need root")
    require(None if shutil.which("nft") else "nft (nftables) is not installed")
    mark = uuid.uuid4().hex[:4]
    made = Lan(*(names.namespace(f"{role}{mark}") for role in ("s", "h", "n", "v")))
    with ExitStack() as stack:
        for one in (made.switch, made.host, made.neighbour, made.vm):
            run(["ip", "netns", "add", one])
            stack.callback(run, ["ip", "netns", "del", one])
            run(["ip", "-n", one, "link", "set", "lo", "up"])
        _bridge(made.switch)
        for one, address in ((made.host, HOST), (made.neighbour, NEIGHBOUR), (made.vm, VM)):
            _connect(made.switch, one, address)
        run(["ip", "-n", made.host, "route", "add", SERVICES, "via", VM])
        run(["ip", "-n", made.vm, "address", "add", f"{SERVICE}/32", "dev", "lo"])
        run(["ip", "-n", made.vm, "route", "add", PODS, "via", HOST])
        for one in (made.host, made.neighbour, made.vm):
            stack.enter_context(serving(one))
        yield made


def _bridge(switch: str) -> None:
    run(["ip", "-n", switch, "link", "add", "br0", "type", "bridge"])
    run(["ip", "-n", switch, "address", "add", f"{GATEWAY}/24", "dev", "br0"])
    run(["ip", "-n", switch, "link", "set", "br0", "up"])
    run(
        netns.run_in(switch, ["sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf.all.send_redirects=0"])
    )


def _connect(switch: str, one: str, address: str) -> None:
    port = f"to-{address.rpartition('.')[2]}"
    run(["ip", "-n", one, "link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", switch])
    run(["ip", "-n", switch, "link", "set", port, "master", "br0", "up"])
    run(["ip", "-n", one, "address", "add", f"{address}/24", "dev", "eth0"])
    run(["ip", "-n", one, "link", "set", "eth0", "up"])
    run(["ip", "-n", one, "route", "add", "default", "via", GATEWAY])
