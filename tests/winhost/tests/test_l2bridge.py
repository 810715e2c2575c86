"""The script that a person runs to create an l2bridge network, up to its calls to HNS, which are recorded."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from tests.unit.containers.test_cni import NETWORK as OF_SITE
from tests.winhost import lint, powershell, standin
from tests.winhost.hns import Hns
from tests.winhost.hyperv.model import UPLINK
from tests.winhost.lint import Allowed
from tests.winhost.presence import require
from tests.winhost.state import VERSIONS
from tests.winhost.tests import asking
from vmproxy.containers import l2bridge
from vmproxy.util import assets

pytestmark = pytest.mark.winhost
NETWORK = replace(OF_SITE, lan=IPv4Network("192.168.100.0/24"), management=IPv4Address("192.168.100.10"))
"""The host's address is that of the emulated host's network card."""
FOLDER = r"C:\ProgramData\setup"
TASK = "vmproxy-create-l2bridge"
WINDOWS = """
# In the place of hnscall.ps1 and of the Task Scheduler: what they were asked is written down.
function Write-Call($What) {
    $Line = (ConvertTo-Json -InputObject $What -Depth 8 -Compress) + "`n"
    [IO.File]::AppendAllText('C:\\ProgramData\\setup\\calls.txt', $Line)
}
function Invoke-Hns([string] $Method, [string] $Path, $Body) {
    Write-Call @{ hns = "$Method $Path"; body = $Body }
    if ('REFUSED'.Split(',') -contains "$Method $Path") { throw 'HNS refused it: as the test wants it' }
    switch ("$Method $Path") {
        'POST /networks' { MEANWHILE | Out-Null; @{ ID = 'n1' } }
        'GET /networks/n1' { @{ ID = 'n1'; ManagementIP = 'MOVED' } }
        'POST /endpoints' { @{ ID = 'e1' } }
    }
}
function Start-Sleep { param([int] $Milliseconds) }
function New-ScheduledTaskAction { param($Execute, $Argument) @{ Execute = $Execute; Argument = $Argument } }
function New-ScheduledTaskPrincipal { param($UserId, $LogonType, $RunLevel) @{ UserId = $UserId } }
function New-ScheduledTaskSettingsSet {
    param([switch] $AllowStartIfOnBatteries, [switch] $DontStopIfGoingOnBatteries)
}
function Register-ScheduledTask { param($TaskName, $Action, $Principal, $Settings, [switch] $Force)
    Write-Call @{ register = $TaskName; action = $Action; principal = $Principal } }
function Start-ScheduledTask { param($TaskName) Write-Call @{ start = $TaskName } }
function Unregister-ScheduledTask { [CmdletBinding(SupportsShouldProcess)] param($TaskName)
    Write-Call @{ unregister = $TaskName } }
"""


@dataclass
class Console:
    """An administrator's at the host, in the folder with the script."""

    windows: asking.Windows
    moved: str = str(NETWORK.management)
    refused: str = "nothing"
    meanwhile: str = "$null"
    said: str = ""
    errors: str = ""
    network: Any = field(default=NETWORK)

    @property
    def folder(self) -> Path:
        return self.windows.host.local(FOLDER)

    @property
    def others(self) -> Hns:
        """Those who made networks before."""
        return Hns(self.windows.host)

    def run(self, *options: str) -> int:
        self.folder.mkdir(exist_ok=True)
        (self.folder / l2bridge.DATA).write_text(l2bridge.text(self.network))
        script = assets.text("containers/create-l2bridge.ps1")
        (self.folder / "create-l2bridge.ps1").write_text(script)
        stand_in = WINDOWS.replace("MOVED", self.moved).replace("REFUSED", self.refused)
        stand_in = stand_in.replace("MEANWHILE", self.meanwhile)
        (self.folder / "hnscall.ps1").write_text(stand_in)
        program = [str(powershell.program()), "-NoProfile", "-NonInteractive", "-ExecutionPolicy", "Bypass"]
        done = subprocess.run(
            self.windows.inside([*program, "-File", rf"{FOLDER}\create-l2bridge.ps1", *options]),
            env=self.windows.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        self.said, self.errors = done.stdout, " ".join(done.stderr.split())
        assert self.windows.host.mistakes == []
        return done.returncode

    def calls(self) -> list[dict[str, Any]]:
        file = self.folder / "calls.txt"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def hns(self) -> list[str]:
        return [call["hns"] for call in self.calls() if "hns" in call]

    def result(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "create-l2bridge.result.json").read_text())
        return found


@pytest.fixture
def console(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Console]:
    require()
    version = getattr(request, "param", "2022")
    facts = {"version": version, "bridges": {"External": "br0"}}
    with asking.namespace() as name, asking.windows(tmp_path, namespace=name, **facts) as running:
        running.host.services["hns"] = "Running"
        assert running.ask("Remove-VMSwitch External -Force") == [None]
        yield Console(running)


def test_every_script_uses_what_each_windows_with_l2bridge_subnets_has() -> None:
    require()
    scripts = [standin.ROOT / "templates" / name for name in l2bridge.SCRIPTS]
    versions = [version for version in VERSIONS if version != "2016"]
    beside = Allowed(
        "create-l2bridge.ps1",
        ". (Join-Path $PSScriptRoot 'hnscall.ps1')",
        "hnscall.ps1",
        "the other script in its folder",
    )
    problems = lint.check(scripts, versions=versions, allowed=[beside])
    assert problems == [], "\n".join(map(str, problems))


def test_it_says_what_breaks_and_does_nothing_until_that_is_accepted(console: Console) -> None:
    assert console.run() == 3
    assert "HNS takes the network card" in console.said
    assert "Connections through it break, RDP and WinRM included." in console.said
    assert console.said.index("Connections") < console.said.index("Nothing was done.")
    assert console.calls() == []


def test_accepted_it_starts_a_task_that_runs_apart_from_the_connection(console: Console) -> None:
    console.folder.mkdir()
    (console.folder / "create-l2bridge.result.json").write_text("of an earlier run")
    assert console.run("-Accept") == 0
    register, start = console.calls()
    assert register["register"] == start["start"] == TASK
    assert register["principal"] == {"UserId": "S-1-5-18"}
    assert register["action"]["Argument"].endswith(rf'-File "{FOLDER}\create-l2bridge.ps1" -Detached')
    assert not (console.folder / "create-l2bridge.result.json").exists()


def test_the_task_creates_the_network_and_the_hosts_endpoint(console: Console) -> None:
    assert console.run("-Detached") == 0, console.result()
    network, *_, endpoint, attach, unregister = console.calls()
    assert network["body"] == {
        "Name": "cbr0",
        "Type": "L2Bridge",
        "NetworkAdapterName": "Ethernet",
        "Subnets": [{"AddressPrefix": "10.244.9.0/24", "GatewayAddress": "10.244.9.1"}],
    }
    assert endpoint["body"] == {"Name": "cbr0_ep", "VirtualNetwork": "n1", "IPAddress": "10.244.9.2"}
    assert attach == {
        "hns": "POST /endpoints/e1/attach",
        "body": {"SystemType": "Host", "CompartmentId": 1},
    }
    assert unregister == {"unregister": TASK}
    result = console.result()
    assert (result["state"], result["error"], result["lostRoutes"]) == ("done", None, [])
    assert result["before"]["addresses"] == ["192.168.100.10/24"]
    assert result["before"]["gateways"] == ["192.168.100.1"]


def test_a_persistent_route_that_is_lost_on_the_way_is_named(console: Console) -> None:
    set_before = [
        f"New-NetRoute -DestinationPrefix {prefix} -InterfaceAlias Ethernet -NextHop 192.168.100.5 | Out-Null"
        for prefix in ("10.96.0.0/16", "172.30.0.0/16")
    ]
    assert console.windows.ask(*set_before) == [None, None]
    console.meanwhile = "Remove-NetRoute -DestinationPrefix 10.96.0.0/16 -Confirm:$false"
    assert console.run("-Detached") == 0, console.result()
    assert "172.30.0.0/16 via 192.168.100.5" in console.result()["before"]["persistentRoutes"]
    assert console.result()["lostRoutes"] == ["10.96.0.0/16 via 192.168.100.5"]


def test_towards_the_vm_there_is_no_endpoint_of_the_host(console: Console) -> None:
    console.network = replace(NETWORK, gateway="vm")
    assert console.run() == 3
    assert "gateway is the VM at 10.244.9.2, and the host gets no endpoint. EXPERIMENTAL" in console.said
    assert console.run("-Detached") == 0
    assert console.hns() == ["POST /networks", "GET /networks/n1"]
    (subnet,) = console.calls()[0]["body"]["Subnets"]
    assert subnet["GatewayAddress"] == "10.244.9.2"


@pytest.mark.parametrize("refused", ["POST /endpoints", "POST /endpoints/e1/attach"])
def test_a_network_without_its_endpoint_is_taken_away_again(console: Console, refused: str) -> None:
    console.refused = refused
    assert console.run("-Detached") == 1
    assert console.hns()[-1] == "DELETE /networks/n1"
    assert console.calls()[-1] == {"unregister": TASK}
    assert console.result()["state"] == "failed"
    assert console.result()["error"] == "HNS refused it: as the test wants it"


def test_a_network_that_cannot_be_taken_away_is_named_beside_the_cause(console: Console) -> None:
    console.refused = "POST /endpoints,DELETE /networks/n1"
    assert console.run("-Detached") == 1
    refused = "HNS refused it: as the test wants it"
    assert console.result()["error"] == f"{refused}. The network is still there: {refused}"
    assert console.calls()[-1] == {"unregister": TASK}


def test_an_address_that_does_not_come_back_is_a_failure_that_is_undone(console: Console) -> None:
    console.moved = "169.254.7.7"
    assert console.run("-Detached") == 1
    assert console.hns()[-1] == "DELETE /networks/n1"
    assert "has the address '169.254.7.7', not 192.168.100.10" in console.result()["error"]


def test_a_network_that_hns_refuses_leaves_nothing_to_take_away(console: Console) -> None:
    console.refused = "POST /networks"
    assert console.run("-Detached") == 1
    assert console.hns() == ["POST /networks"]
    assert console.result()["state"] == "failed"


@pytest.mark.parametrize("options", [("-Accept",), ("-Detached",)])
def test_a_network_of_that_name_is_refused_whoever_made_it(
    console: Console, options: tuple[str, ...]
) -> None:
    console.others.create_network({"Name": "cbr0", "Type": "NAT", "Subnets": []})
    assert console.run(*options) == 1
    why = console.errors or console.result()["error"]
    assert "HNS has a network named cbr0 already, of the type NAT" in why
    assert console.hns() == []
    assert not [call for call in console.calls() if "start" in call]


def test_a_network_with_that_subnet_is_refused(console: Console) -> None:
    subnets = [{"AddressPrefix": "10.244.9.0/24", "GatewayAddress": "10.244.9.1"}]
    console.others.create_network({"Name": "other", "Type": "NAT", "Subnets": subnets})
    assert console.run("-Accept") == 1
    assert "HNS's network other has the subnet 10.244.9.0/24 already" in console.errors
    assert console.calls() == []


def test_an_address_that_the_host_does_not_have_is_refused(console: Console) -> None:
    console.network = replace(NETWORK, management=IPv4Address("192.168.100.99"))
    assert console.run("-Accept") == 1
    assert "no adapter of this host has the address 192.168.100.99" in console.errors


def test_a_card_that_a_switch_has_is_refused(console: Console) -> None:
    (lab,) = console.windows.ask(f"(New-VMSwitch Lab -NetAdapterInterfaceDescription '{UPLINK}').Name")
    assert lab == "Lab"
    assert console.run("-Accept") == 1
    assert "is the address of a virtual adapter" in console.errors
    assert console.calls() == []


def test_a_host_without_hns_is_told_what_to_install(console: Console) -> None:
    console.windows.host.services["hns"] = "Stopped"
    assert console.run("-Accept") == 1
    assert "install the feature Containers" in console.errors


@pytest.mark.parametrize("console", ["2016"], indirect=True)
def test_a_windows_without_subnets_of_l2bridge_is_refused(console: Console) -> None:
    assert console.run("-Accept") == 1
    assert "needs Windows Server 2019 or later" in console.errors


def test_names_are_data_for_hns(console: Console) -> None:
    console.network = replace(NETWORK, name="a'; $(throw 1) \"x")
    assert console.run("-Detached") == 0, console.result()
    assert console.calls()[0]["body"]["Name"] == "a'; $(throw 1) \"x"
