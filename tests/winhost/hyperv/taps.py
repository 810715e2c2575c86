"""A machine's end of its virtual switch: a tap on the switch's bridge, in the VLAN that the port has."""

from __future__ import annotations

from functools import cache
from hashlib import sha256

from tests.winhost.engine import not_emulated
from tests.winhost.hyperv.model import Adapter, Vlan, hyperv
from tests.winhost.state import Host
from vmproxy.errors import ToolFailed
from vmproxy.util.run import run


def name_of(adapter: Adapter) -> str:
    return "wh" + sha256(adapter.id.encode()).hexdigest()[:12]


def make(host: Host, adapter: Adapter) -> None:
    assert host.switch_namespace is not None
    run(["ip", "-n", host.switch_namespace, "tuntap", "add", name_of(adapter), "mode", "tap"])


def delete_command(host: Host, adapter: Adapter) -> list[str]:
    assert host.switch_namespace is not None
    return ["ip", "-n", host.switch_namespace, "link", "del", name_of(adapter)]


def bridge_of(host: Host, adapter: Adapter) -> str | None:
    switch = hyperv(host).switches.get(adapter.switch or "")
    if switch is not None and switch.bridge is None:
        raise not_emulated(f"a machine on the switch '{switch.name}', which is no bridge yet")
    return switch.bridge if switch else None


def connect(host: Host, adapter: Adapter) -> list[str]:
    """Put the tap where the adapter's settings say; without a switch it has no carrier.

    Returns the command that deletes the bridge it had to make for that, else nothing.
    """
    namespace = host.switch_namespace
    assert namespace is not None
    link = ["ip", "-n", namespace, "link", "set", name_of(adapter)]
    bridge = bridge_of(host, adapter)
    if bridge is None:
        run([*link, "nomaster", "down"])
        return []
    native, tagged = _vlans(adapter.vlan)
    if _knows_vlans(namespace):
        run([*link, "master", bridge, "up"])
        _set_vlan(namespace, name_of(adapter), bridge, native, tagged)
        return []
    if tagged:
        raise not_emulated("a trunk on this kernel, whose bridges know no VLANs")
    apart, undo = (bridge, []) if native == 1 else _bridge_apart(namespace, bridge, native)
    run([*link, "master", apart, "up"])
    return undo


def _set_vlan(namespace: str, tap: str, bridge: str, native: int, tagged: list[int]) -> None:
    """The bridge's own VLAN 1 is the untagged one; it filters from the first port that has another."""
    if native != 1 or tagged:
        run(["ip", "-n", namespace, "link", "set", bridge, "type", "bridge", "vlan_filtering", "1"])
    elif not _filters(namespace, bridge):
        return
    change = ["bridge", "-n", namespace, "vlan"]
    run([*change, "del", "dev", tap, "vid", "1-4094"], ok=(0, 2, 255))
    run([*change, "add", "dev", tap, "vid", str(native), "pvid", "untagged"])
    for number in tagged:
        run([*change, "add", "dev", tap, "vid", str(number)])


def _bridge_apart(namespace: str, bridge: str, vlan: int) -> tuple[str, list[str]]:
    """Where bridges know no VLANs, each is a bridge of its own: its ports see each other and no others."""
    name = f"{bridge[:10]}.{vlan}"
    link = ["ip", "-n", namespace, "link"]
    if run([*link, "show", "dev", name], ok=(0, 1)).returncode == 0:
        return name, []
    run([*link, "add", name, "type", "bridge"])
    run([*link, "set", name, "up"])
    return name, [*link, "del", name]


def _vlans(vlan: Vlan) -> tuple[int, list[int]]:
    """The VLAN of untagged frames, and those whose frames keep their tag."""
    match vlan.mode:
        case "Untagged":
            return 1, []
        case "Access":
            return vlan.access, []
        case "Trunk":
            native = vlan.native or 1
            return native, [number for number in vlan.allowed if number != native]
    raise not_emulated("a running machine in a private VLAN")


@cache
def _knows_vlans(namespace: str) -> bool:
    """CONFIG_BRIDGE_VLAN_FILTERING, tried: the same for every namespace of a kernel."""
    trial = "wh-trial"
    run(["ip", "-n", namespace, "link", "add", trial, "type", "bridge"])
    try:
        run(["ip", "-n", namespace, "link", "set", trial, "type", "bridge", "vlan_filtering", "1"])
    except ToolFailed:
        return False
    finally:
        run(["ip", "-n", namespace, "link", "del", trial])
    return True


def _filters(namespace: str, bridge: str) -> bool:
    shown = run(["ip", "-n", namespace, "-d", "link", "show", "dev", bridge]).stdout
    return "vlan_filtering 1" in shown
