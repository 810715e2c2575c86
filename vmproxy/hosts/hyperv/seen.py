"""Parses the output of observe.ps1 into the observed state of a Windows host."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network, ip_address, ip_network
from pathlib import PureWindowsPath

from vmproxy.errors import Conflict
from vmproxy.hosts.hyperv import notes, settings, switch
from vmproxy.hosts.hyperv.facts import Facts, items
from vmproxy.hosts.hyperv.paths import Paths
from vmproxy.model.drift import ABSENT
from vmproxy.model.mac import static_mac
from vmproxy.model.net import Address, Network, Route, is_default
from vmproxy.model.net import addresses as net_addresses
from vmproxy.model.seen import CarrierSeen, ClientSeen, Marker, NameRule, SwitchSeen, VmSeen

_DEFAULT_SWITCH = "c08cb7b8-9b3c-408e-8e30-5e16a3aeb444"
_RUNS = {"Running", "Starting"}
_ACTIVE, _PERSISTENT = "ActiveStore", "PersistentStore"
_WORKER = "S-1-15-3-1024-2268835264-3721307629-241982045-173645152-1490879176-104643441-2915960892-1612460704"
"""The capability of VMs' worker processes from Server 2019 on, as in hcsshim's grantvmgroupaccess.go."""
_OF_VM = re.compile(rf"A;[^;]*;[^;]*;[^;]*;[^;]*;(S-1-5-83-|{_WORKER}$)")
"""What is allowed to accounts that only a VM's own worker process has: Hyper-V grants what a VM needs."""
_ALL = frozenset({"FA", "0x1f01ff", "GA"})
_KINDS = {"D": "denied:", "XA": "on a condition:", "XD": "denied on a condition:", "OA": "for an object:"}
_OWNER = re.compile(r"^O:(S-[\d-]+|[A-Z]{2})")
_ADMINISTRATORS = {
    "BA": "Administrators",
    "SY": "SYSTEM",
    "S-1-5-32-544": "Administrators",
    "S-1-5-18": "SYSTEM",
}
_NO_ROUTES = tuple(map(IPv4Network, ("127.0.0.0/8", "224.0.0.0/4", "255.255.255.255/32")))


@dataclass(frozen=True)
class Asked:
    """The VM and host that the output is about. `mark` is in the Notes of the VM's own switch."""

    host: str
    site: str
    switch: str
    paths: Paths
    mark: str = ""


def parse(facts: Facts, asked: Asked) -> CarrierSeen:
    """Raises Conflict when names are not unique."""
    vms, switches = items(facts["vms"]), items(facts["switches"])
    _check_unique("VMs", asked.paths.vm, len(vms), asked.host)
    _check_unique("switches", asked.switch, len(switches), asked.host)
    pending = notes.parse(facts["pending"] or "")
    about = facts["host"]
    own = switch.parse(facts.get("own"), asked.paths.vm, asked.mark, host=asked.host)
    return CarrierSeen(
        vm=_vm(vms[0], facts, pending, asked) if vms else None,
        switch=_switch(switches[0], asked.switch) if switches else _near(facts, asked.switch),
        images=_images(facts["folder"], asked.paths),
        leftovers=() if vms else _leftovers(facts["folder"], asked.paths),
        free_memory=int(about["freeMemory"]),
        free_disk=int(about["freeDisk"]),
        renamed=None if vms else _renamed(items(facts["marked"]), asked),
        mac_pool=mac_pool(about),
        own=own.switch,
        nats=own.nats,
    )


def client_seen(facts: Facts) -> ClientSeen:
    """From routes.ps1's answer."""
    addresses = items(facts["addresses"])
    own = tuple(address for address in _own(addresses) if not address.is_loopback)
    return ClientSeen(
        _routes(items(facts["routes"]), addresses),
        own,
        tuple(map(_rule, items(facts["nameRules"]))),
        str(facts["namePolicy"]) if facts["namePolicy"] else None,
        bool(facts["dnsServer"]),
    )


def _rule(item: Facts) -> NameRule:
    """Windows keeps the servers as one text, with semicolons."""
    servers = [word for text in items(item["servers"]) for word in re.split(r"[;,\s]+", str(text))]
    spaces = tuple(str(name) for name in items(item["namespaces"]))
    return NameRule(spaces, tuple(net_addresses(servers)), str(item["comment"] or ""), str(item["name"]))


def _check_unique(kind: str, name: str, count: int, host: str) -> None:
    if count > 1:
        raise Conflict(
            f"cannot use {name} on {host}: there are {count} {kind} named {name}",
            hint="rename all but one of them",
        )


def _vm(vm: Facts, facts: Facts, pending: Marker | None, asked: Asked) -> VmSeen:
    """A VM without a marker is an incomplete one of ours while the file `pending` exists."""
    paths = asked.paths
    marker = notes.parse(vm["notes"])
    half_made = marker is None and pending is not None and _inside(str(vm["path"]), paths)
    if half_made:
        marker = pending
    own = {
        "disk": paths.disk(marker.image) if marker else "",
        "seed": paths.seed(marker.seed) if marker else "",
    }
    disk = _attached(items(vm["disks"]), own["disk"], paths)
    seed = _attached(items(vm["dvds"]), own["seed"], paths)
    adapters = _own_first(items(vm["adapters"]), paths.vm, facts["host"])
    return VmSeen(
        name=paths.vm,
        running=vm["state"] in _RUNS,
        settings=settings.seen(
            {**vm, **own, "adapters": adapters, "access": access(facts["folder"], paths.directory)}
        ),
        marker=marker,
        disk=marker.image if marker and disk and not half_made else None,
        seed=marker.seed if marker and seed else None,
        trace=f"its files are in {paths.folder}"
        if marker is None and _inside(str(vm["path"]), paths)
        else "",
    )


def _attached(drives: list[Facts], path: str, paths: Paths) -> bool:
    return any(drive["exists"] and paths.same(drive["path"], path) for drive in drives)


def _inside(path: str, paths: Paths) -> bool:
    return path.lower().startswith(paths.folder.lower() + "\\") or paths.same(path, paths.folder)


def _own_first(adapters: list[Facts], vm: str, host: Facts) -> list[Facts]:
    """The VM's own adapter has its address, or at least a static one, which no adapter has by itself.
    configure.ps1 knows it likewise."""
    own = static_mac(vm, pool=mac_pool(host)).replace(":", "")
    return sorted(adapters, key=lambda one: (str(one["mac"]).lower() != own, bool(one["dynamicMac"])))


def mac_pool(host: Facts) -> tuple[str, str] | None:
    """The first and last address that the host gives away itself; None: it has not said."""
    return (host["macMinimum"], host["macMaximum"]) if host["macMinimum"] else None


def access(folder: Facts | None, directory: str) -> str:
    """Who may access the folder and what vmproxy keeps in it, from SDDL, which is not localized."""
    if folder is None:
        return ABSENT
    own = _may(folder["sddl"], flags="OICI")
    if own != settings.ONLY_US:
        return own  # what is in the folder has inherited that
    inside = len(str(PureWindowsPath(directory))) + 1
    exposed = (f"{item['path'][inside:]}: {_may(item['sddl'])}" for item in items(folder.get("exposed")))
    return "; ".join([own, *exposed])


def _may(sddl: str, *, flags: str = "") -> str:
    """An owner always may. `flags`: of the entries that give Administrators and SYSTEM all that is inside."""
    if not sddl:
        return "not readable"
    found = {_named(entry, flags) for entry in _entries(sddl) if not _OF_VM.match(entry)}
    owners = {one for one in _OWNER.findall(sddl) if one not in _ADMINISTRATORS}
    everyone = ["everybody"] if "NO_ACCESS_CONTROL" in sddl else []
    return ", ".join([*everyone, *sorted(found), *(f"owner {one}" for one in owners)]) or "nobody"


def _entries(sddl: str) -> Iterator[str]:
    """What is in brackets: type;flags;rights;object;inherited object;trustee, and perhaps a condition, which
    has brackets of its own."""
    depth = start = 0
    for at, letter in enumerate(sddl):
        if letter == "(":
            depth, start = depth + 1, start if depth else at + 1
        elif letter == ")":
            depth -= 1
            if not depth:
                yield sddl[start:at]


def _named(entry: str, flags: str) -> str:
    """An entry in short: a trustee alone is allowed everything."""
    kind, inherits, rights, _object, _inherited, trustee, *_condition = entry.split(";", 6)
    name = _ADMINISTRATORS.get(trustee, trustee)
    less = [] if rights in _ALL else [rights]
    if flags and trustee in _ADMINISTRATORS and inherits.removesuffix("ID") not in (flags, "CIOI"):
        less.append(inherits or "not for what is inside")
    verb = "" if kind == "A" else f"{_KINDS.get(kind, kind)} "
    return f"{verb}{name}" + (f" ({', '.join(less)})" if less else "")


def _images(folder: Facts | None, paths: Paths) -> frozenset[str]:
    """Those whose own SHA-256 is known: create.ps1 checks it before it copies one."""
    inside = paths.images.lower() + "\\"
    names = {
        str(path)[len(inside) :]
        for path in items((folder or {}).get("files"))
        if str(path).lower().startswith(inside)
    }
    bases = {name.removesuffix(".vhdx") for name in names if name.endswith(".vhdx")}
    return frozenset(base for base in bases if f"{base}.sha256" in names)


def _leftovers(folder: Facts | None, paths: Paths) -> tuple[str, ...]:
    """If our VM does not exist: the files in its folder, and base images and parts that no other VM uses."""
    files = [str(path) for path in items((folder or {}).get("files"))]
    copied = {
        PureWindowsPath(path).stem.removeprefix("disk-") for path in files if _is_elsewhere(path, paths)
    }
    return tuple(
        path
        for path in files
        if _inside(path, paths) or (_is_cache(path, paths) and PureWindowsPath(path).stem not in copied)
    )


def _is_elsewhere(path: str, paths: Paths) -> bool:
    return not _inside(path, paths) and not _is_cache(path, paths)


def _is_cache(path: str, paths: Paths) -> bool:
    return path.lower().startswith(paths.images.lower() + "\\")


def _renamed(marked: Iterable[Facts], asked: Asked) -> str | None:
    for item in marked:
        marker = notes.parse(item["notes"])
        if marker and (marker.site, marker.host) == (asked.site, asked.host):
            return str(item["name"])
    return None


def _near(facts: Facts, name: str) -> SwitchSeen | None:
    """A switch whose name differs in case or spaces only is not used, but named."""
    near = [str(one) for one in items(facts["nearSwitches"]) if _folded(str(one)) == _folded(name)]
    if not near:
        return None
    return SwitchSeen(name, reachable=False, why=f"there is {near[0]!r}: write its name exactly like that")


def _folded(name: str) -> str:
    return "".join(name.split()).casefold()


def _switch(switch: Facts, name: str) -> SwitchSeen:
    if str(switch["id"]).lower() == _DEFAULT_SWITCH:
        return SwitchSeen(name, reachable=False, why="its network changes with each restart of the host")
    if switch["type"] == "Private":
        return SwitchSeen(name, reachable=False, why="it is private: the host itself has no adapter on it")
    if switch["type"] == "External" and not switch["managementOS"]:
        return SwitchSeen(
            name, reachable=False, why="it is not shared with the host (AllowManagementOS is off)"
        )
    return SwitchSeen(name)


def _routes(routes: list[Facts], addresses: list[Facts]) -> tuple[Route, ...]:
    """Each route once, without those of the host's own interfaces; `flaw` if a store lacks it."""
    own = _own(addresses)
    stores: dict[tuple[Network, Address | None], Counter[str]] = {}
    misplaced: set[tuple[Network, Address | None]] = set()
    for item in routes:
        prefix, next_hop = ip_network(str(item["prefix"])), ip_address(str(item["via"]))
        via = None if next_hop.is_unspecified else next_hop
        if not isinstance(prefix, IPv4Network) or (not via and _is_own(prefix, own)):
            continue
        stores.setdefault((prefix, via), Counter())[str(item["store"])] += 1
        near = _interfaces(via, addresses) if via and item["store"] == _ACTIVE else set()
        if near and item["interface"] not in near:
            misplaced.add((prefix, via))
    return tuple(
        Route(prefix, via, _flaw(prefix, seen, misplaced=(prefix, via) in misplaced))
        for (prefix, via), seen in stores.items()
    )


def _interfaces(via: Address, addresses: list[Facts]) -> set[int]:
    """Those on whose own network that next hop is."""
    own = zip(addresses, _own(addresses), strict=True)
    return {int(item["interface"]) for item, address in own if via in address.network}


def _flaw(prefix: Network, seen: Counter[str], *, misplaced: bool) -> str:
    if is_default(prefix):
        return ""  # DHCP's is in the active store only, and never ours
    if misplaced:
        return "(on an interface that does not reach it)"
    if not seen[_PERSISTENT]:
        return "(active store only: lost at the next restart)"
    if not seen[_ACTIVE]:
        return "(persistent store only: not active)"
    return "(duplicate)" if max(seen.values()) > 1 else ""


def _own(addresses: list[Facts]) -> list[IPv4Interface]:
    return [IPv4Interface(f"{item['address']}/{item['length']}") for item in addresses]


def _is_own(prefix: IPv4Network, own: list[IPv4Interface]) -> bool:
    """A network of one of the host's own addresses, or one that every host has."""
    if any(prefix.subnet_of(network) for network in _NO_ROUTES):
        return True
    hosts = {address.network.broadcast_address for address in own} | {address.ip for address in own}
    return any(prefix == address.network for address in own) or (
        prefix.prefixlen == 32 and prefix.network_address in hosts
    )
