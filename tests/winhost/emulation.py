"""What is behind the emulated host's PowerShell: its modules, their engine, and the state they change."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module

from tests.winhost import auth, engine, hns, hyperv, modules, net, system
from tests.winhost.files import Files
from tests.winhost.hyperv import machine, switches
from tests.winhost.net import resolver
from tests.winhost.state import Host
from tests.winhost.system import Stores, System

_POLICIES = r"HKLM:\SOFTWARE\Microsoft\Windows\CurrentVersion\Policies\System"
_DOMAIN = "S-1-5-21-1004336348-1177238915-682003330"


@dataclass(frozen=True)
class Emulation:
    """A host's state, and the environment in which its PowerShell finds it."""

    state: Host
    stores: Stores
    environment: Mapping[str, str]

    def reboot(self) -> None:
        """Machines stop and start as their settings say; the active store's routes are gone."""
        machine.reboot(self.state)
        if self.state.namespace is not None:
            with hns.rebooting(self.state):
                net.reboot(self.state)
        self.state.part(resolver.Names).cache.clear()

    def full_token(self, account: auth.Account) -> bool:
        """Whether a local administrator is one over the network too: LocalAccountTokenFilterPolicy."""
        policy = self.stores.registry.get(_POLICIES, "LocalAccountTokenFilterPolicy")
        return bool(policy) or account.name.lower() == "administrator"


@contextmanager
def emulating(state: Host, accounts: Sequence[auth.Account]) -> Iterator[Emulation]:
    """Serve the cmdlets of a host; machines that still run at the end are stopped."""
    _register()
    folder = state.folder / "system"
    folder.mkdir()
    stores = system.install(state, folder)
    stores.registry.set(_POLICIES, LocalAccountTokenFilterPolicy=1)
    state.part(Files).acls = stores.acls.store.file
    _add_accounts(state, accounts)
    with (
        _switches(state),
        machine.opened(state),
        resolver.serving(state, stores.registry),
        engine.serving(state, state.folder / "engine") as socket,
    ):
        yield Emulation(
            state,
            stores,
            {
                **stores.environment,
                "PSModulePath": modules.installed(state),
                "WINHOST_ENGINE": str(socket),
            },
        )


@contextmanager
def _switches(state: Host) -> Iterator[None]:
    """Those that cmdlets make are real: taken away at the end."""
    try:
        yield
    finally:
        net.nat.close(state)
        hns.close(state)
        switches.close(state)


def _register() -> None:
    """Import every module that emulates a cmdlet."""
    for package in (hns, hyperv, net, system):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            import_module(module.name)


def _add_accounts(state: Host, accounts: Sequence[auth.Account]) -> None:
    known = state.part(System).accounts
    for number, one in enumerate(accounts, start=1001):
        if not any(there.name.lower() == one.name.lower() for there in known):
            groups = ("Administrators",) if one.administrator else ("Users",)
            known.append(system.Account(one.name, f"{_DOMAIN}-{number}", groups))
