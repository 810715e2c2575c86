"""The lab: a real cluster, a bridge, backends, clients and a host, on this machine."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import filelock
import httpx
from ruamel.yaml import YAML

from vmproxy import binaries
from vmproxy.binaries import BinaryFile
from vmproxy.errors import ToolFailed, UsageError
from vmproxy.lab import objects, resolver
from vmproxy.lab.cluster import POD_CIDR, SERVER, ControlPlane, apply_node, apply_objects
from vmproxy.lab.network import GATEWAY, VM_ADDRESS, Network
from vmproxy.lab.processes import Process, end
from vmproxy.lab.resolver import Names
from vmproxy.util import paths
from vmproxy.util.events import Report

KUBERNETES_VERSION = "v1.36.3"
PROGRAMS = {
    "etcd": binaries.ETCD_VERSION,
    "kube-apiserver": KUBERNETES_VERSION,
    "kube-controller-manager": KUBERNETES_VERSION,
    "kube-proxy": KUBERNETES_VERSION,
    "coredns": binaries.COREDNS_VERSION,
}
_LONGEST_NAME = 12
_TOOLS = {"ip": "iproute2", "sysctl": "procps", "dnsmasq": "dnsmasq-base"}


@dataclass(frozen=True)
class LabStatus:
    """The state of a lab. Paths are None if the file does not exist."""

    running: bool
    kubeconfig: Path | None
    site: Path | None
    namespaces: dict[str, str]
    binaries: dict[str, Path]


def up(*, name: str, report: Report, binaries: Path | None = None) -> LabStatus:
    """Create what is missing. `binaries` is a folder that is searched before the cache.

    Raises VmproxyError if a program is not available or does not start.
    """
    _check(name)
    folder = paths.state_dir("lab", name)
    with filelock.FileLock(folder / "lab.lock"):
        found = _programs(report, given=binaries)
        programs = {name: program.path for name, program in found.items()}
        _note_programs(folder, programs)
        network = Network(name)
        report("connecting namespaces to a bridge")
        network.up()
        control = ControlPlane(folder, network, programs)
        control.up(report)
        _start_backends(folder, network, report)
        with control.api() as api:
            _fill(api, report)
        names = Names(folder, network, control, programs["coredns"])
        names.up(report)
        _write_site(folder, name, control, found["kube-proxy"])
    return status(name=name)


def down(*, name: str, report: Report) -> None:
    """Remove the lab completely, whatever state it is in."""
    _check(name)
    folder = paths.state_dir("lab", name)
    with filelock.FileLock(folder / "lab.lock"):
        noted = [Process(file.stem, folder, None) for file in folder.glob("*.pid")]
        end([process.pid for process in noted if process.pid is not None])
        resolver.forget(Network(name))
        Network(name).down(report)
        vms = paths.state_dir("qemu", name)
        shutil.rmtree(vms)
    shutil.rmtree(folder)
    report(f"lab {name} is down")


def status(*, name: str) -> LabStatus:
    _check(name)
    folder = paths.state_dir() / "lab" / name
    network = Network(name)
    programs = _noted_programs(folder)
    running = programs.keys() >= PROGRAMS.keys() and network.is_up()  # an older lab lacks some
    if running:
        control = ControlPlane(folder, network, programs)
        names = Names(folder, network, control, programs["coredns"]).processes()
        everything = (*control.processes(), *_backends(folder, network), *names)
        running = all(process.alive() for process in everything)
    return LabStatus(
        running=running,
        kubeconfig=_existing(folder / "kubeconfig"),
        site=_existing(folder / "vmproxy.yaml"),
        namespaces=network.namespaces(),
        binaries=programs,
    )


def _check(name: str) -> None:
    if not name.replace("-", "").isalnum() or len(name) > _LONGEST_NAME or name != name.lower():
        raise UsageError(
            f"cannot use {name!r} as a lab's name",
            hint=f"use at most {_LONGEST_NAME} lower-case letters, digits and '-'",
        )
    if os.geteuid() != 0:
        raise UsageError("cannot manage a lab: network namespaces need root", hint="run it with sudo")
    for tool, package in _TOOLS.items():
        if shutil.which(tool) is None:
            raise ToolFailed(f"cannot manage a lab: {tool} is missing", hint=f"install {package}")


def _programs(report: Report, *, given: Path | None) -> dict[str, BinaryFile]:
    if given is not None and not given.is_dir():
        raise UsageError(f"cannot use binaries from {given}: no such folder")
    return {
        name: binaries.obtain(name, version, report=report, given=given) for name, version in PROGRAMS.items()
    }


def _backends(folder: Path, network: Network) -> list[Process]:
    roles = (*objects.ON_THE_BRIDGE.values(), *objects.IN_PODS.values(), *objects.STRAYS.values())
    return [Process(role, folder, network.namespace(role)) for role in roles]


def _start_backends(folder: Path, network: Network, report: Report) -> None:
    report("starting the backends")
    for process in _backends(folder, network):
        ports = (str(objects.HTTP_PORT), str(objects.UDP_PORT))
        process.start([sys.executable, "-m", "vmproxy.lab.backend", process.name, *ports])


def _fill(api: httpx.Client, report: Report) -> None:
    report("creating Nodes and Services")
    apply_objects(api, [objects.namespace()])
    for node in objects.nodes():
        apply_node(api, *node)
    apply_objects(api, [*objects.services(), *objects.dns()])


def _write_site(folder: Path, name: str, control: ControlPlane, proxy: BinaryFile) -> None:
    """Write the site file for the lab's host, unless it exists."""
    path = folder / "vmproxy.yaml"
    if path.exists():
        return
    site = {
        "name": name,
        "cluster": {"kubeconfig": str(control.kubeconfig), "server": SERVER, "podCIDRs": [POD_CIDR]},
        "proxy": binaries.site_entry(proxy),
        "image": {"name": "debian-13"},
        "defaults": {"vm": {"cpus": 2, "memory": "512MiB"}},
        "hosts": [
            {
                "name": objects.WINDOWS_NODE,
                "qemu": {"lab": name},
                "switch": {"name": "br0"},
                "network": {"address": VM_ADDRESS, "gateway": GATEWAY, "podRoutes": "nodes"},
                "actsFor": objects.WINDOWS_NODE,
            }
        ],
    }
    part = path.with_suffix(".part")
    with part.open("w") as file:
        YAML().dump(site, file)
    part.replace(path)


def _note_programs(folder: Path, programs: dict[str, Path]) -> None:
    part = folder / "binaries.part"
    part.write_text("".join(f"{name} {path}\n" for name, path in programs.items()))
    part.replace(folder / "binaries")


def _noted_programs(folder: Path) -> dict[str, Path]:
    try:
        lines = (folder / "binaries").read_text().splitlines()
    except FileNotFoundError:
        return {}
    return {name: Path(path) for name, _, path in (line.partition(" ") for line in lines)}


def _existing(path: Path) -> Path | None:
    return path if path.exists() else None
