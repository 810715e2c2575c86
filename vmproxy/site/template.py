"""The commented site file that `vmproxy init` writes, with the discovered values."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from ipaddress import IPv4Network
from pathlib import Path
from tempfile import NamedTemporaryFile

from vmproxy.errors import UsageError
from vmproxy.site import yamltree
from vmproxy.site.model import Site
from vmproxy.util import assets

_EXAMPLE_NETWORKS = ("192.168.10.0/24", "172.30.10.0/24", "10.250.10.0/24", "198.18.10.0/24")


@dataclass(frozen=True)
class Start:
    """An initial host. None: unknown, an example is written."""

    name: str = "win-01"
    address: str | None = None
    gateway: str | None = None
    acts_for: str | None = None


@dataclass(frozen=True)
class Findings:
    """What was discovered about the cluster.

    Only `server` becomes a key; ranges and version are written as comments, because a site file that
    omits them follows the cluster. `notes` say what could not be discovered.
    """

    name: str = "plant-a"
    server: str | None = None
    service_cidrs: tuple[str, ...] = ()
    pod_cidrs: tuple[str, ...] = ()
    version: str | None = None
    hosts: tuple[Start, ...] = (Start(),)
    notes: tuple[str, ...] = ()


def draft() -> Site:
    """The site of the bare template: enough to query the cluster."""
    return Site.model_validate(yamltree.parse(template(Findings())).data)


def template(findings: Findings) -> str:
    """A site file that loads without mistakes; the user replaces its example values."""
    example = _example_network((*findings.service_cidrs, *findings.pod_cidrs))
    values = asdict(findings) | {
        "notes": [" ".join(note.split()) for note in findings.notes],
        "hosts": [_host(start, example, number) for number, start in enumerate(findings.hosts)],
    }
    return assets.render("site.yaml.j2", **values)


def refuse_existing(path: Path, *, replace: bool) -> None:
    if path.exists() and not replace:
        raise UsageError(f"cannot write {path}: it exists", hint="use --force to overwrite it")


def write(path: Path, text: str, *, replace: bool) -> None:
    """Write atomically; keep an existing file unless `replace`."""
    try:
        with NamedTemporaryFile("w", dir=path.absolute().parent, encoding="utf-8") as draft:
            draft.write(text)
            draft.flush()
            os.fchmod(draft.fileno(), 0o644)
            refuse_existing(path, replace=replace)
            path.unlink(missing_ok=True)
            os.link(draft.name, path)
    except OSError as exc:
        raise UsageError(f"cannot write {path}: {exc.strerror}") from exc


def _host(start: Start, example: IPv4Network, number: int) -> dict[str, object]:
    return asdict(start) | {
        "endpoint": f"https://{start.name}.corp.example:5986",
        "username": r"CORP\svc-vmproxy",
        "address": start.address or f"{example[5 + number]}/{example.prefixlen}",
        "gateway": start.gateway or str(example[1]),
    }


def _example_network(taken: Iterable[str]) -> IPv4Network:
    used = [IPv4Network(text) for text in taken]
    free = (IPv4Network(text) for text in _EXAMPLE_NETWORKS)
    return next(
        (network for network in free if not any(network.overlaps(other) for other in used)),
        IPv4Network(_EXAMPLE_NETWORKS[-1]),
    )
