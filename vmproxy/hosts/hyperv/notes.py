"""The marker in a VM's Notes: one block of JSON; other text in the Notes is kept."""

from __future__ import annotations

import json
import re
from typing import Any

from vmproxy.model.seen import Marker, Route

_BLOCK = re.compile(r"\[vmproxy\](.*?)\[/vmproxy\]", re.DOTALL)
_FIELDS = {
    "site": "site",
    "host": "host",
    "address": "address",
    "seed": "seed",
    "image": "image",
    "host_key": "hostKey",
}


def block(marker: Marker) -> str:
    """ASCII without line breaks, about 500 characters."""
    data: dict[str, Any] = {key: getattr(marker, name) for name, key in _FIELDS.items()}
    data["routes"] = [[route.prefix, route.via] for route in marker.routes]
    return f"[vmproxy]{json.dumps(data, separators=(',', ':'))}[/vmproxy]"


def parse(notes: str) -> Marker | None:
    """None: no block, or a damaged one; then the VM is not recognized as ours."""
    found = _BLOCK.search(notes)
    if found is None:
        return None
    try:
        data: dict[str, Any] = json.loads(found[1])
        routes = tuple(Route(str(prefix), str(via)) for prefix, via in data["routes"])
        return Marker(**{name: str(data[key]) for name, key in _FIELDS.items()}, routes=routes)
    except (ValueError, LookupError, TypeError):
        return None
