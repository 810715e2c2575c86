"""What templates/containers/create-l2bridge.ps1 reads: the network that it is to create."""

from __future__ import annotations

import json

from vmproxy.containers.cni import ContainerNetwork

SCRIPTS = ("containers/create-l2bridge.ps1", "containers/hnscall.ps1")
"""Names of templates; both belong beside the data."""
DATA = "create-l2bridge.json"


def text(network: ContainerNetwork) -> str:
    """The content of `DATA`."""
    return json.dumps(_data(network), indent=2) + "\n"


def _data(network: ContainerNetwork) -> dict[str, object]:
    """HNS keeps the address of the network's gateway for itself. The host has an endpoint if it is the
    containers' gateway; if the VM is, there is none."""
    through_host = network.gateway == "host"
    endpoint = {"name": f"{network.name}_ep", "address": str(network.next_hop)}
    return {
        "network": network.name,
        "subnet": str(network.subnet),
        "gateway": str(network.subnet[1] if through_host else network.next_hop),
        "management": str(network.management),
        "endpoint": endpoint if through_host else None,
    }
