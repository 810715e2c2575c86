"""The real connections of a run: Kubernetes' API, hosts by their kind, guests by SSH."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from vmproxy.cluster.api import Cluster
from vmproxy.engine.artifacts import Artifacts
from vmproxy.engine.links import GuestLink, Links, Login
from vmproxy.guest.connection import Guest
from vmproxy.hosts.kinds import kind_of
from vmproxy.hosts.protocols import Drivers
from vmproxy.model.topology import Member, Topology
from vmproxy.transport import ssh
from vmproxy.transport.accounts import Accounts


def connections(topology: Topology) -> Links:
    artifacts = Artifacts(topology)

    @contextmanager
    def log_in(login: Login) -> Iterator[GuestLink]:
        identity = artifacts.identity
        with ssh.connect(
            login.open_socket,
            host_key=login.host_key,
            identity=identity.private,
            key=identity.openssh(),
            what=f"VM {login.vm}",
        ) as connection:
            yield Guest(connection, name=login.vm, mint=login.mint, renewal=login.renewal)

    accounts = Accounts()

    def open_host(member: Member) -> AbstractContextManager[Drivers]:
        return kind_of(member.carrier).open(member.vm, member.client, accounts)

    return Links(
        cluster=lambda: Cluster.connect(topology.cluster, topology.dns, flannel=topology.over_vxlan),
        open_host=open_host,
        log_in=log_in,
        artifacts=artifacts,
    )
