"""Integration services, and what there is of checkpoints."""

from __future__ import annotations

from collections.abc import Iterator

from tests.winhost import wildcards
from tests.winhost.engine import Call, CmdletError, Item, Ref, emulates, not_emulated
from tests.winhost.hyperv import find, services
from tests.winhost.hyperv.failures import failed, gone, invalid
from tests.winhost.hyperv.items import service_item
from tests.winhost.hyperv.model import VM, hyperv
from tests.winhost.state import Host

Service = tuple[VM, str]


@emulates("Get-VMIntegrationService")
def get_service(host: Host, call: Call) -> Iterator[object]:
    if call.has("VMSnapshot"):
        raise not_emulated("Get-VMIntegrationService -VMSnapshot")
    yield from find.each(_chosen(host, call), lambda one: [service_item(host, *one)])


@emulates("Enable-VMIntegrationService", "Disable-VMIntegrationService")
def switch_service(host: Host, call: Call) -> Iterator[object]:
    def change(one: Service) -> Iterator[Item]:
        vm, service = one
        vm.services[service] = call.cmdlet.startswith("Enable")
        if call.switch("Passthru"):
            yield service_item(host, vm, service)

    yield from find.each(list(_chosen(host, call)), change)


def _chosen(host: Host, call: Call) -> Iterator[Service | CmdletError]:
    """Those of -VMIntegrationService, or of the machines, by their localised name."""
    for ref in call.list("VMIntegrationService"):
        identity, _, service = (ref.id if isinstance(ref, Ref) else "").partition("/")
        vm = hyperv(host).vms.get(identity)
        yield (vm, service) if vm else gone("virtual machine")
    if call.has("VMIntegrationService"):
        return
    for found in find.vms(host, call) if call.has("VM") or call.has("VMName") else ():
        if isinstance(found, CmdletError):
            yield found
        else:
            yield from _of(host, call, found)


def _of(host: Host, call: Call, vm: VM) -> Iterator[Service | CmdletError]:
    if not call.has("Name"):
        yield from ((vm, one) for one in services.SERVICES)
        return
    for pattern in call.list("Name"):
        named = [
            one for one in services.SERVICES if wildcards.matches(pattern, services.name(one, host.language))
        ]
        yield from ((vm, one) for one in named)
        if not named and not wildcards.wild(pattern):
            yield invalid(
                f'Hyper-V was unable to find an integration service with name "{pattern}".', pattern
            )


@emulates("Get-VMSnapshot")
def get_snapshot(host: Host, call: Call) -> Iterator[object]:
    """There are none: they are not emulated, so nothing can make one."""
    if call.has("ParentOf") or call.has("ChildOf") or call.has("VMSnapshot"):
        raise not_emulated("Get-VMSnapshot of a checkpoint")
    for one in find.vms(host, call):
        if isinstance(one, CmdletError):
            yield one


@emulates("Checkpoint-VM")
def checkpoint(host: Host, call: Call) -> Iterator[object]:
    def refuse(vm: VM) -> Iterator[object]:
        if vm.checkpoint_type == "Disabled":
            raise failed(
                f"Checkpoint operation failed.\r\n\r\nCheckpoints have been disabled for '{vm.name}'. "
                f"(Virtual machine ID {vm.id.upper()})",
                error_id="InvalidState",
                category="InvalidOperation",
            )
        raise not_emulated("Checkpoint-VM")

    yield from find.each(list(find.vms(host, call)), refuse)
