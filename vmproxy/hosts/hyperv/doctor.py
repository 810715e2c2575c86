"""A Windows host: what vmproxy needs there, and what already handles Services and would fight with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from vmproxy.hosts.hyperv.errors import NO_HYPERVISOR
from vmproxy.hosts.hyperv.facts import items
from vmproxy.hosts.hyperv.seen import mac_pool
from vmproxy.hosts.protocols import Facts
from vmproxy.model.finding import Finding, checked
from vmproxy.model.mac import static_mac
from vmproxy.model.names import UEFI_CA
from vmproxy.model.topology import Vm
from vmproxy.site.model import Hyperv

_SKEW_SECONDS = 60.0
_MTU = 1500
_ROLE = "Install-WindowsFeature Hyper-V -IncludeManagementTools -Restart"
_NOT_OBSERVED = "find out why that cannot be observed; apply may fail in the same way"


def findings(vm: Vm, facts: Facts) -> Iterator[Finding]:
    assert isinstance(vm.carrier.connection, Hyperv)
    yield Finding("WinRM", ok=True, detail=f"{vm.carrier.connection.endpoint} answers, and lets us in")
    unmade = vm.carrier.own is not None and facts["switch"].get("value", 0) is None
    for check, (fact, look) in _LOOKS.items():
        if not (unmade and check in _OF_SWITCH):
            yield _judged(check, facts[fact], look)
    if not unmade:
        interface = facts["interface"].get("value")
        yield _judged("VM's way out", facts["switch"], lambda value: _way_out(value, interface))
        yield _judged("who made the switch", facts["hnsSwitch"], lambda value: _hns_switch(value, vm))
    yield from _services(facts)
    pool = facts["macPool"].get("value")
    yield _judged("MAC address", facts["adapters"], lambda value: _mac(value, vm.name, pool))


Judged = tuple[bool, str, str]
"""Whether it is well, what is seen, and the next step if it is not."""


def _judged(check: str, fact: Mapping[str, Any], look: Callable[[Any], Judged]) -> Finding:
    if "error" in fact:
        return Finding(check, ok=False, detail=str(fact["error"]).strip(), next_step=_NOT_OBSERVED)
    ok, detail, otherwise = look(fact["value"])
    return checked(check, ok=ok, detail=detail, otherwise=otherwise)


def _version(value: Any) -> Judged:
    modern = tuple(map(int, str(value).split(".")[:2])) >= (5, 1)
    return modern, str(value), "install Windows Management Framework 5.1"


def _administrator(value: Any) -> Judged:
    seen = "a local administrator" if value else "not a local administrator"
    return bool(value), seen, "WinRM's shell and Hyper-V need one: add the account to Administrators"


def _remote_accounts(value: Any) -> Judged:
    """For the reader's information: who got this far is let in."""
    others = "every local administrator" if value else "domain accounts and the built-in Administrator only"
    return True, f"LocalAccountTokenFilterPolicy is {value}: {others}", ""


def _feature(value: Any) -> Judged:
    return value in {"Installed", "Enabled"}, f"Hyper-V is {value}", _ROLE


def _hypervisor(value: Any) -> Judged:
    return bool(value), "runs" if value else "does not run", NO_HYPERVISOR


def _way_out(switch: Any, interface: Any) -> Judged:
    """On an internal switch the host has to forward, or to translate, what the VM and its clients send."""
    if not switch or switch["type"] != "Internal":
        return True, f"an {switch['type']} switch" if switch else "the switch is not there", ""
    open_ = switch["nat"] or (interface or {}).get("forwarding") == "Enabled"
    seen = "an Internal switch, and the host forwards" if open_ else "an Internal switch without a way out"
    return (
        bool(open_),
        seen,
        "Set-NetIPInterface -InterfaceAlias 'vEthernet (SWITCH)' -Forwarding Enabled with a route back, or "
        "New-NetNat -Name vmproxy -InternalIPInterfaceAddressPrefix NETWORK",
    )


def _coalescing(switch: Any) -> Judged:
    """For the reader: Linux turns it off in the VM as soon as it forwards."""
    on = bool(switch and switch["coalescing"])
    seen = "on: if Services are slow, Set-VMSwitch -EnableSoftwareRsc $false" if on else "off"
    return True, seen, ""


def _extensions(value: Any) -> Judged:
    found = [str(item) for item in items(value)]
    otherwise = "an SDN controller may block a VM that it has no port profile for: use a switch without it"
    return not found, ", ".join(found) or "none", otherwise


def _hns_switch(value: Any, vm: Vm) -> Judged:
    """The VM may share it with the containers that it serves."""
    kinds = sorted({str(item) for item in items(value)})
    seen = f"made by HNS for a network of type {', '.join(kinds)}" if kinds else "not made by HNS"
    otherwise = "use a switch of Hyper-V's: HNS removes its own whenever it resets its networks"
    return not kinds or vm.containers is not None, seen, otherwise


def _port_rules(value: Any) -> Judged:
    seen = f"{value} on the VM's adapter" if value else "none"
    otherwise = "see that they let packets of other sources pass: Get-VMNetworkAdapterAcl -VMName VM"
    return not value, seen, otherwise


def _redirects(value: Any) -> Judged:
    """For the reader: the VM sends none, but another router of its network could."""
    return True, f"IcmpRedirects is {value}", ""


def _secure_boot(value: Any) -> Judged:
    known = UEFI_CA in {str(item).lower() for item in items(value)}
    seen = "the host has the template for Linux" if known else f"the host has no template {UEFI_CA}"
    return known, seen, "update the host: Get-VMHost | select -Expand SecureBootTemplates"


def _interface(value: Any) -> Judged:
    ok = value["mtu"] >= _MTU
    seen = f"{value['alias']}: MTU {value['mtu']}, forwarding {value['forwarding']}"
    return ok, seen, f"give the VM the same MTU (cloudInit.userData), or set it to {_MTU} on the host"


def _default_routes(value: Any) -> Judged:
    hops = [str(hop) for hop in items(value)]
    seen = ", ".join(hops) or "none"
    return len(hops) < 2, seen, "remove the one that is wrong: Remove-NetRoute -DestinationPrefix 0.0.0.0/0"


def _clock(value: Any) -> Judged:
    there = datetime.fromisoformat(str(value)[:26].rstrip("Z")).replace(tzinfo=UTC)
    skew = abs((datetime.now(UTC) - there).total_seconds())
    seen = f"{skew:.0f} s from this machine's"
    return skew < _SKEW_SECONDS, seen, "set the clocks: w32tm /resync on the host, timedatectl here"


def _balancers(value: Any) -> Judged:
    found = [str(item) for item in items(value)]
    seen = f"{len(found)}: {', '.join(found[:3])}" if found else "none"
    return not found, seen, "they answer for Services, too: remove what makes them (a native kube-proxy)"


def _mac(value: Any, name: str, pool: Any) -> Judged:
    mac = static_mac(name, pool=mac_pool(pool) if pool else None)
    others = [
        item["vm"] for item in items(value) if _digits(item["mac"]) == _digits(mac) and item["vm"] != name
    ]
    seen = f"{mac} is also that of {others[0] or 'the host'}" if others else f"{mac} is free"
    return not others, seen, "change that adapter, or the site's or the host's name"


def _digits(mac: Any) -> str:
    return str(mac).replace(":", "").replace("-", "").lower()


_LOOKS: dict[str, tuple[str, Callable[[Any], Judged]]] = {
    "PowerShell": ("powershell", _version),
    "rights on the host": ("administrator", _administrator),
    "remote log-in": ("remoteAccounts", _remote_accounts),
    "Hyper-V": ("feature", _feature),
    "hypervisor": ("hypervisor", _hypervisor),
    "Secure Boot": ("secureBoot", _secure_boot),
    "VM's network": ("interface", _interface),
    "packet coalescing": ("switch", _coalescing),
    "switch extensions": ("extensions", _extensions),
    "port rules": ("portRules", _port_rules),
    "ICMP redirects": ("redirects", _redirects),
    "default routes": ("defaultRoutes", _default_routes),
    "clock": ("time", _clock),
    "HNS load balancers": ("balancers", _balancers),
}


_OF_SWITCH = ("VM's network", "packet coalescing", "switch extensions")
"""Nothing to look at before apply makes the VM's own switch."""


def _services(facts: Facts) -> Iterator[Finding]:
    """Services and programs together: kube-proxy may run as either."""
    for fact in ("services", "programs"):
        if "error" in facts[fact]:
            yield _judged(fact, facts[fact], lambda _: (True, "", ""))
            return
    states = {str(item["name"]): str(item["status"]) for item in items(facts["services"]["value"])}
    running = {name for name, status in states.items() if status == "Running"}
    running |= {str(name) for name in items(facts["programs"]["value"])}
    vmms = states.get("vmms", "not there")
    yield checked("service vmms", ok=vmms == "Running", detail=vmms, otherwise="Start-Service vmms")
    if "ClusSvc" in running:
        yield Finding("failover cluster", ok=True, detail=_CLUSTERED)
    for check, names, otherwise in _RIVALS:
        found = sorted(running & names)
        yield checked(check, ok=not found, detail=", ".join(found) or "does not run", otherwise=otherwise)


_CLUSTERED = "the host is a node: the VM stays on it, so do not add it to the cluster's roles"

_RIVALS = (
    (
        "native kube-proxy",
        {"kube-proxy.exe", "kubeproxy", "kube-proxy"},
        "stop it: it answers for the same Services; containers of an l2bridge or overlay network do not use "
        "the host's routes, so their traffic reaches the VM only by a policy of their network plug-in",
    ),
    (
        "Antrea",
        {"antrea-agent.exe", "antrea-agent"},
        "it routes the Service range itself: use one of the two",
    ),
    (
        "Routing and Remote Access",
        {"RemoteAccess"},
        "stop RemoteAccess, or see that it leaves the routes alone",
    ),
)
