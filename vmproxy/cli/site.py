"""`vmproxy init` and `vmproxy schema`: the site file itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import click

from vmproxy.cli import console
from vmproxy.cli.options import file_option, log_options
from vmproxy.cluster.api import Cluster
from vmproxy.cluster.login import NoKubeconfig
from vmproxy.errors import UsageError, VmproxyError
from vmproxy.model.net import Network, summed
from vmproxy.model.seen import ClusterSeen
from vmproxy.site import load, template
from vmproxy.site.template import Findings

_MOST_RANGES = 8


@click.command()
def schema() -> None:
    """Print the site file's JSON Schema, for completion in an editor."""
    console.result_json(load.schema())


@click.command()
@file_option
@log_options
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
def init(path: Path, *, force: bool) -> None:
    """Write a commented site file, with values from the cluster where possible."""
    template.refuse_existing(path, replace=force)
    findings = _found()
    template.write(path, template.template(findings), replace=force)
    for note in findings.notes:
        console.progress(f"not discovered: {note}")
    console.result(f"wrote {path}; next: replace the example values, then run: vmproxy doctor -f {path}")


def _found() -> Findings:
    """What the cluster of the usual kubeconfig reports; if it does not answer, that becomes a note. Raises
    UsageError for a kubeconfig or a cluster with which vmproxy cannot work."""
    draft = template.draft()
    try:
        cluster, no_server = Cluster.connect_without_vms(draft.cluster)
        found = findings(cluster.observe())
    except NoKubeconfig as exc:
        return Findings(notes=(_note("the cluster", exc),))
    except UsageError:
        raise
    except VmproxyError as exc:
        return Findings(notes=(_note("the cluster", exc),))
    return replace(found, server=None, notes=(_note("cluster.server", no_server),)) if no_server else found


def _note(what: str, exc: VmproxyError) -> str:
    return f"{what}: {exc.message}" + (f" ({exc.hint})" if exc.hint else "")


def findings(seen: ClusterSeen) -> Findings:
    return Findings(
        server=seen.server,
        service_cidrs=_ipv4(seen.service_cidrs),
        pod_cidrs=_pod_ranges(seen),
        version=seen.version,
    )


def _pod_ranges(seen: ClusterSeen) -> tuple[str, ...]:
    """Of the Nodes, put together; none where that makes no short list."""
    ranges = _ipv4(summed(cidr for node in seen.nodes for cidr in node.pod_cidrs))
    return ranges if len(ranges) <= _MOST_RANGES else ()


def _ipv4(networks: Iterable[Network]) -> tuple[str, ...]:
    return tuple(str(network) for network in networks if network.version == 4)
