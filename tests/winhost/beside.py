"""An emulated Windows host beside a lab, in the place of its embedded host; the controller is its client."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.winhost.host import Machine, Version, WinHost
from tests.winhost.state import Language
from vmproxy.lab.cluster import SERVER
from vmproxy.lab.network import BRIDGE, GATEWAY, Network

SWITCH = "External"


def machine(lab: str, *, version: Version = "2022", language: Language = "en-US", port: int = 0) -> Machine:
    """Its routes are those of the lab's host; WinRM listens on the client's loopback."""
    network = Network(lab)
    return Machine(
        version=version,
        language=language,
        namespace=network.namespace("host"),
        listen_namespace=network.namespace("client"),
        switch_namespace=network.namespace("switch"),
        bridges={SWITCH: BRIDGE},
        dns=(GATEWAY,),
        port=port,
    )


def site(lab_site: Path, host: WinHost, *, kubeconfig: Path, password: dict[str, str]) -> dict[str, Any]:
    """The lab's site file with this host in it; `password` is a reference, as the site file takes it."""
    content: dict[str, Any] = YAML(typ="safe").load(lab_site)
    content["cluster"]["kubeconfig"] = str(kubeconfig)
    (entry,) = content["hosts"]
    del entry["qemu"]
    entry["hyperv"] = {
        "endpoint": host.endpoint,
        "auth": "ntlm",
        "username": host.administrator.name,
        "password": password,
        "ca": str(host.ca),
    }
    entry["switch"] = {"name": SWITCH}
    return content


def write_kubeconfig(lab_kubeconfig: Path, to: Path) -> None:
    """As a machine of the lab uses it: the API server by its own address."""
    login = YAML(typ="safe").load(lab_kubeconfig)
    login["clusters"][0]["cluster"]["server"] = SERVER
    write_private(to, login)


def write_private(path: Path, content: Any) -> None:
    """YAML that only its owner reads."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        YAML().dump(content, file)
