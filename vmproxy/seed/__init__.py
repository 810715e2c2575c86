"""The NoCloud seed, which configures the VM at its first boot: cloud-init/ and the user's cloud-init."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from vmproxy.model.names import AUTHORIZED_KEYS
from vmproxy.model.topology import Vm
from vmproxy.seed import cloudconfig, iso
from vmproxy.seed.keys import KeyPair, new_key_pair
from vmproxy.site.model import CloudInit
from vmproxy.util import assets

HostKey = KeyPair
"""The guest's SSH host key: generated here, so that the first login is verified too."""

new_host_key = new_key_pair

_NO_KEY = HostKey(private="", public="")


@dataclass(frozen=True)
class Seed:
    """All of the seed except the host key.

    `hash` names it: the SHA-256 of the rendered documents without the host key, so that the
    same site gives the same name. `custom` is the user's own cloud-config.
    """

    values: Mapping[str, Any]
    custom: Mapping[str, Any]
    hash: str


def spec(vm: Vm, cloud_init: CloudInit, *, user_key: str, mac: str) -> Seed:
    """`user_key` is a line of authorized_keys, `mac` as 00:15:5d:01:02:03."""
    values = {
        "hostname": vm.name,
        "user_key": user_key,
        "mac": mac,
        "address": str(vm.address),
        "gateway": str(vm.gateway),
        "dns": [str(server) for server in vm.network.dns],
        "alone": cloud_init.user_data is None,
    }
    custom = cloudconfig.load(cloud_init.user_data, _offered(vm, mac=mac))
    documents = _documents(values, custom, host_key=_NO_KEY, instance_id="")
    digest = hashlib.sha256(assets.tojson(documents).encode()).hexdigest()
    return Seed(values, custom, digest)


def redacted(seed: Seed) -> Seed:
    """For a reader: without the secrets of the user's own cloud-config."""
    return replace(seed, custom=cloudconfig.redacted(seed.custom))


def documents(seed: Seed, *, host_key: HostKey) -> dict[str, str]:
    """The seed's files by name."""
    return _documents(seed.values, seed.custom, host_key=host_key, instance_id=f"vmproxy-{seed.hash[:16]}")


def written(seed: Seed) -> Mapping[str, str]:
    """The files for logging in that cloud-init makes of the seed, by path; none where the user's own
    cloud-config may write them too."""
    if seed.custom:
        return {}
    return _written(_rendered("user-data", seed.values, host_key=_NO_KEY, instance_id=""))


@cache
def _written(user_data: str) -> Mapping[str, str]:
    """Kept, as a run plans several times, and YAML is slow. Nothing changes it."""
    found = cloudconfig.parse(user_data)
    keys = "".join(f"{key}\n" for key in found["ssh_authorized_keys"])
    return {AUTHORIZED_KEYS: keys, **{item["path"]: item["content"] for item in found["write_files"]}}


def build(seed: Seed, *, host_key: HostKey) -> bytes:
    """The ISO image; the same seed and key give the same bytes."""
    files = documents(seed, host_key=host_key)
    return iso.image("cidata", {name: content.encode() for name, content in files.items()})


def _offered(vm: Vm, *, mac: str) -> dict[str, Any]:
    """What the user's template may use; docs/site-file.md lists it."""
    return {
        "site": vm.site,
        "host": vm.host,
        "vm": vm.name,
        "acts_for": vm.acts_for,
        "address": str(vm.address.ip),
        "prefix_length": vm.address.network.prefixlen,
        "gateway": str(vm.gateway),
        "dns": [str(server) for server in vm.network.dns],
        "mac": mac,
    }


def _documents(
    values: Mapping[str, Any], custom: Mapping[str, Any], *, host_key: HostKey, instance_id: str
) -> dict[str, str]:
    rendered = {
        name: _rendered(name, values, host_key=host_key, instance_id=instance_id)
        for name in ("user-data", "meta-data", "network-config")
    }
    if custom:
        rendered["user-data"] = cloudconfig.merged(rendered["user-data"], custom)
    return rendered


def _rendered(name: str, values: Mapping[str, Any], *, host_key: HostKey, instance_id: str) -> str:
    return assets.render(
        f"cloud-init/{name}",
        **values,
        host_key_private=host_key.private,
        host_key_public=host_key.public,
        instance_id=instance_id,
    )
