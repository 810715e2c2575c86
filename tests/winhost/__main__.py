"""`python -m tests.winhost`: an emulated Windows host beside the lab, until Ctrl-C."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

from tests.winhost import beside, powershell
from tests.winhost.host import WinHost
from vmproxy import lab
from vmproxy.errors import VmproxyError
from vmproxy.util import paths

ADDRESS = "192.168.100.6/24"
"""Of its VM: beside the one of the lab's embedded host."""
_HELP = """
An emulated Windows Server {version} with Hyper-V is running beside lab {lab}, until Ctrl-C.

  WinRM            {endpoint} (and {http}), in namespace {client}
  CA               {ca}
  user, password   {user}, {password}
  drive C:         {drive}
  the host         namespace {host}: its routes are `ip -n {host} route`

A site file is ready. In another terminal, as root:

  vmproxy image build
  export WINRM_PASSWORD={password}
  ip netns exec {client} {vmproxy} apply -f {site}
  ip netns exec {client} {vmproxy} verify -f {site}
"""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.winhost", description=__doc__)
    parser.add_argument("--lab", default="lab", help="name of the lab (vmproxy lab up)")
    parser.add_argument("--windows", default="2022", choices=["2016", "2019", "2022", "2025"])
    parser.add_argument("--german", action="store_true", help="display names in German")
    options = parser.parse_args(arguments)
    over = threading.Event()
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, lambda *_: over.set())
    try:
        return _run(options, over)
    except OSError as exc:
        print(f"cannot start the emulated Windows host: {exc}", file=sys.stderr)
        return 1
    except VmproxyError as exc:
        print(exc.message, file=sys.stderr)
        print(f"hint: {exc.hint}" if exc.hint else "", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace, over: threading.Event) -> int:
    status = lab.status(name=options.lab)
    lacking = powershell.missing() or (
        None if status.running else f"lab {options.lab} is not up: `vmproxy lab up`"
    )
    if lacking or status.site is None or status.kubeconfig is None:
        print(
            f"cannot start the emulated Windows host: {lacking or 'the lab has no site file'}",
            file=sys.stderr,
        )
        return 1
    machine = beside.machine(
        options.lab,
        version=options.windows,
        language="de-DE" if options.german else "en-US",
        port=5986,
    )
    with ExitStack() as stack:
        folder = paths.state_dir("winhost", options.lab)
        stack.callback(shutil.rmtree, folder)
        host = stack.enter_context(WinHost(machine))
        site = write_site(folder, host, lab_site=status.site, kubeconfig=status.kubeconfig)
        print(_told(options.lab, host, site), flush=True)
        over.wait()
        print("stopping", file=sys.stderr)
    return 0


def write_site(folder: Path, host: WinHost, *, lab_site: Path, kubeconfig: Path) -> Path:
    """The lab's site file for this host, with a kubeconfig as a machine of the lab uses it."""
    beside.write_kubeconfig(kubeconfig, folder / "kubeconfig")
    password = {"env": "WINRM_PASSWORD"}
    site = beside.site(lab_site, host, kubeconfig=folder / "kubeconfig", password=password)
    site["name"] += "-win"
    site["hosts"][0]["network"]["address"] = ADDRESS
    beside.write_private(folder / "vmproxy.yaml", site)
    return folder / "vmproxy.yaml"


def _told(name: str, host: WinHost, site: Path) -> str:
    return _HELP.format(
        version=host.machine.version,
        lab=name,
        endpoint=host.endpoint,
        http=host.http_endpoint,
        client=host.machine.listen_namespace,
        ca=host.ca,
        user=host.administrator.name,
        password=host.password,
        drive=host.drive,
        host=host.machine.namespace,
        vmproxy=Path(sys.executable).with_name("vmproxy"),
        site=site,
    )


if __name__ == "__main__":
    sys.exit(main())
