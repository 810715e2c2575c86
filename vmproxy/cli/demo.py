"""demo: show the product with one command, in a lab."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from vmproxy import lab
from vmproxy.cli import console
from vmproxy.cli.hosts import choose
from vmproxy.cli.look import status, verify
from vmproxy.cli.work import apply, plan
from vmproxy.engine.scope import Scope
from vmproxy.engine.site import SiteRun
from vmproxy.errors import VmproxyError
from vmproxy.model.names import TOKEN
from vmproxy.util.run import run

SERVICE = "demo/web"


@click.command()
@click.option("--keep", is_flag=True, help="Leave the lab and the VM running at the end.")
@click.option("--name", default="demo", show_default=True, help="The lab's name.")
@click.option(
    "--binaries",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder with etcd and the Kubernetes binaries.",
)
def demo(name: str, binaries: Path | None, *, keep: bool) -> None:
    """Start a lab, apply, verify, break something, repair it, and remove the lab."""
    try:
        console.step("start a cluster, a bridge and a host: vmproxy lab up")
        there = lab.up(name=name, binaries=binaries, report=console.progress)
        if there.site is None:
            raise VmproxyError("cannot run the demo: the lab did not start", hint="run it again")
        _Show(there.site, there.namespaces["host"]).all_steps()
        if keep:
            console.step(f"lab kept; site file: {there.site}; remove it with: vmproxy lab down --name {name}")
    finally:
        if not keep:
            console.step("remove everything: vmproxy lab down")
            lab.down(name=name, report=console.progress)


@dataclass(frozen=True)
class _Show:
    site_file: Path
    host_namespace: str

    def all_steps(self) -> None:
        self._command(apply, [])
        self._command(verify, [])
        self._curl()
        console.step("apply again: nothing to do")
        self._command(apply, [])
        console.step("break two things: the host's route, and kube-proxy's token in the VM")
        self._break()
        self._command(plan, [])
        console.step("repair exactly these two")
        self._command(apply, [])
        self._command(verify, [])
        self._command(status, [])

    def _command(self, command: click.Command, words: Sequence[str]) -> None:
        """Run a vmproxy command as a user would; raise on a non-zero exit code."""
        line = [*words, "-f", str(self.site_file)]
        console.step(f"$ vmproxy {command.name} {' '.join(line)}")
        code = command.main(line, prog_name=f"vmproxy {command.name}", standalone_mode=False)
        if code:
            raise VmproxyError(f"cannot continue the demo: vmproxy {command.name} exited with {code}")

    def _curl(self) -> None:
        services = {service.name: service for service in self._site().services()}
        url = f"http://{services[SERVICE].cluster_ip}/hostname"
        console.step(f"$ curl {url}   (on the host: namespace {self.host_namespace})")
        for _ in range(4):
            console.result(
                run(["ip", "netns", "exec", self.host_namespace, "curl", "-sS", url]).stdout.strip()
            )

    def _break(self) -> None:
        site = self._site()
        with Scope(site, site.members[0], console.reporter()) as scope:
            world = scope.look()
            scope.guest().run(f"rm {TOKEN}")
            for route in scope.wanted_routes(world.cluster, world.client, world.carrier.marker):
                run(["ip", "-n", self.host_namespace, "route", "del", str(route.prefix)])

    def _site(self) -> SiteRun:
        return choose(self.site_file, ()).site
