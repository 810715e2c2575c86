"""The marker in a VM's Notes: one block of JSON; other text in the Notes is kept."""

from __future__ import annotations

import json
import re
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from vmproxy.model.net import Route
from vmproxy.model.seen import Marker

_BLOCK = re.compile(r"\[vmproxy\](.*?)\[/vmproxy\]", re.DOTALL)

_OPTIONAL = ("forwarding", "cni")
"""Written only where there is something to name: the Notes of most VMs stay short."""


def block(marker: Marker) -> str:
    """ASCII without line breaks inside, some 500 characters."""
    data = {
        "site": marker.site,
        "host": marker.host,
        "address": str(marker.address),
        "seed": marker.seed,
        "image": marker.image,
        "hostKey": marker.host_key,
        "routes": [[str(route.prefix), str(route.via or "")] for route in marker.routes],
        "recipe": marker.recipe,
        "made": marker.made,
        **{name: list(getattr(marker, name)) for name in _OPTIONAL if getattr(marker, name)},
    }
    return f"[vmproxy]{json.dumps(data, separators=(',', ':'))}[/vmproxy]"


def parse(notes: str) -> Marker | None:
    """None: no block, or a damaged one; then the VM is not recognized as ours."""
    found = _BLOCK.search(notes)
    if found is None:
        return None
    try:
        data: dict[str, Any] = json.loads(found[1])
        return Marker(
            site=str(data["site"]),
            host=str(data["host"]),
            address=ip_interface(str(data["address"])),
            seed=str(data["seed"]),
            image=str(data["image"]),
            host_key=str(data["hostKey"]),
            routes=tuple(_route(prefix, via) for prefix, via in data["routes"]),
            recipe=str(data.get("recipe", "")),
            made=str(data.get("made", "")),
            **{name: tuple(map(str, data.get(name, ()))) for name in _OPTIONAL},
        )
    except (ValueError, LookupError, TypeError, RecursionError):
        return None


def _route(prefix: str, via: str) -> Route:
    return Route(ip_network(str(prefix)), ip_address(str(via)) if via else None)
