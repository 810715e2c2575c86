"""HNS as cmdlets and programs of the emulated host show it, and what it refuses."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.winhost import hns
from tests.winhost.engine import CmdletError
from tests.winhost.hns import NANO_SERVER, Container, Hns, HnsError
from tests.winhost.host import Machine, WinHost
from tests.winhost.net.kernel import Kernel, Link
from tests.winhost.presence import require
from tests.winhost.state import Host
from tests.winhost.tests.asking import Failure, Windows, windows
from tests.winhost.tests.lan import HOST, PODS, SERVICE, SERVICES, Lan, lan
from vmproxy.util import netns

CBR0 = {
    "Name": "cbr0",
    "Type": "L2Bridge",
    "Subnets": [{"AddressPrefix": PODS, "GatewayAddress": "10.244.9.1"}],
}
SECOND: Mapping[str, Any] = {
    "Name": "pod",
    "IpConfigurations": [{"IpAddress": "10.244.9.10", "PrefixLength": 24}],
    "Routes": [{"NextHop": "10.244.9.2", "DestinationPrefix": "0.0.0.0/0"}],
    "Dns": {"ServerList": ["10.96.0.10"], "Suffix": "svc.cluster.local"},
    "Policies": [
        {"Type": "OutBoundNAT", "Settings": {"Exceptions": [PODS, SERVICES]}},
        {"Type": "SDNRoute", "Settings": {"DestinationPrefix": SERVICES, "NeedEncap": True}},
        {
            "Type": "ACL",
            "Settings": {"Action": "Block", "Direction": "Out", "RemoteAddresses": PODS, "Priority": 1001},
        },
    ],
    "SchemaVersion": {"Major": 2, "Minor": 0},
}


@pytest.fixture
def around() -> Iterator[Lan]:
    with lan() as made:
        yield made


@pytest.fixture
def host(tmp_path: Path, around: Lan) -> Iterator[Windows]:
    facts = {"namespace": around.host, "switch_namespace": around.switch, "bridges": {"External": "br0"}}
    with windows(tmp_path, **facts) as running:
        try:
            yield running
        finally:
            hns.close(running.host)


@pytest.fixture
def bare() -> Hns:
    """Without a network: what is only kept."""
    return Hns(Host(bridges={"External": "br0"}))


def _run(host: Windows, *command: str) -> subprocess.CompletedProcess[str]:
    """A program of the host."""
    words = [str(host.folder / "programs" / command[0]), *command[1:]]
    return subprocess.run(
        words, env=host.environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.winhost
def test_networks_and_endpoints_are_objects_with_the_first_versions_fields(host: Windows) -> None:
    ours = Hns(host.host)
    network = ours.create_network(CBR0)
    ours.create_endpoint({**SECOND, "HostComputeNetwork": network})
    shown, subnet, endpoint, encap, kept, rule, of_network = host.ask(
        "Get-HnsNetwork | Select-Object ID, Name, Type, ManagementIP",
        '(Get-HnsNetwork).Subnets | ForEach-Object { "$($_.AddressPrefix) $($_.GatewayAddress)" }',
        "Get-HnsEndpoint | Select-Object Name, VirtualNetworkName, IPAddress, PrefixLength, GatewayAddress,"
        " DNSServerList",
        "(Get-HnsEndpoint).Policies | Where-Object { $_.Type -eq 'ROUTE' }"
        ' | ForEach-Object { "$($_.DestinationPrefix) $($_.NeedEncap)" }',
        "(Get-HnsEndpoint).Policies | Where-Object Type -EQ OutBoundNAT | ForEach-Object ExceptionList",
        '(Get-HnsEndpoint).Policies[2] | ForEach-Object { "$($_.Action) $($_.Direction) $($_.Priority)" }',
        f"@(Get-HnsEndpoint | Where-Object {{ $_.VirtualNetwork -eq '{network.lower()}' }}).Count",
    )
    assert shown == {"ID": network, "Name": "cbr0", "Type": "L2Bridge", "ManagementIP": HOST}
    assert subnet == f"{PODS} 10.244.9.1"
    assert endpoint == {
        "Name": "pod",
        "VirtualNetworkName": "cbr0",
        "IPAddress": "10.244.9.10",
        "PrefixLength": 24,
        "GatewayAddress": "10.244.9.2",
        "DNSServerList": "10.96.0.10",
    }
    assert (encap, kept, rule, of_network) == (f"{SERVICES} True", [PODS, SERVICES], "Block Out 1001", 1)


@pytest.mark.winhost
def test_policies_of_hcn_may_be_shown_as_they_were_given(host: Windows) -> None:
    ours = Hns(host.host)
    ours.create_endpoint({**SECOND, "HostComputeNetwork": ours.create_network(CBR0)})
    ours.show_policies_as("second")
    (shown,) = host.ask(
        '(Get-HnsEndpoint).Policies | ForEach-Object { "$($_.Type) $($_.Settings.DestinationPrefix)" }'
    )
    assert shown == ["OutBoundNAT ", f"SDNRoute {SERVICES}", "ACL "]


@pytest.mark.winhost
def test_one_is_asked_for_by_its_id_and_others_are_not_there(host: Windows) -> None:
    ours = Hns(host.host)
    network = ours.create_network(CBR0)
    balancer = ours.create_load_balancer("10.96.0.10")
    one, detailed, vips, missing, none, spaces, stopped = host.ask(
        f"(Get-HnsNetwork -Id {network.lower()}).Name",
        f"(Get-HnsNetwork {network} -Detailed).Name",
        f"(Get-HnsPolicyList -Id {balancer}).Policies | ForEach-Object {{ $_.VIPs }}",
        "Get-HnsNetwork -Id b2",
        "@(Get-HnsEndpoint).Count",
        'Get-HnsNamespace | ForEach-Object { "$($_.CompartmentId) $($_.IsDefault)" }',
        "Stop-Service hns; Get-HnsNetwork",
    )
    assert (one, detailed, vips, none, spaces) == ("cbr0", "cbr0", "10.96.0.10", 0, "1 True")
    assert isinstance(missing, Failure)
    assert missing.message == "Element not found."
    assert stopped.message == "There are no more endpoints available from the endpoint mapper."


@pytest.mark.winhost
def test_the_hosts_endpoint_is_an_interface_with_its_own_settings(host: Windows, around: Lan) -> None:
    ours = Hns(host.host)
    ours.attach_host_endpoint(ours.create_network(CBR0), "cbr0_ep", "10.244.9.2")
    alias = "'vEthernet (cbr0_ep)'"
    adapter, address, route, before, after, other = host.ask(
        f'Get-NetAdapter -Name {alias} | ForEach-Object {{ "$($_.Status) $($_.Virtual)" }}',
        f"(Get-NetIPAddress -InterfaceAlias {alias} -AddressFamily IPv4).IPAddress",
        f"(Get-NetRoute -DestinationPrefix {PODS}).InterfaceAlias",
        f"[string](Get-NetIPInterface -InterfaceAlias {alias} -AddressFamily IPv4).Forwarding",
        f"$Index = (Get-NetIPInterface -InterfaceAlias {alias} -AddressFamily IPv4).ifIndex;"
        " Set-NetIPInterface -InterfaceIndex $Index -AddressFamily IPv4 -Forwarding Enabled; $Index",
        "[string](Get-NetIPInterface -InterfaceAlias 'vEthernet (External)' -AddressFamily IPv4).Forwarding",
    )
    assert (adapter, address, route) == ("Up True", "10.244.9.2", "vEthernet (cbr0_ep)")
    assert (before, other) == ("Disabled", "Disabled")
    (device,) = (one for one in Kernel(around.host).links() if one.index == after)
    assert Kernel(around.host).sysctl(f"ipv4/conf/{device.name}/forwarding") == "1"


@pytest.mark.winhost
@pytest.mark.parametrize("feature", ["Hyper-V", "Containers"])
def test_the_module_came_after_2016(tmp_path: Path, feature: str) -> None:
    with windows(tmp_path, version="2016", features={feature}) as old:
        (answer,) = old.ask("Get-HnsNetwork")
    assert isinstance(answer, Failure)
    assert answer.id == "CommandNotFoundException"


@pytest.fixture
def pod(host: Windows) -> Container:
    ours = Hns(host.host)
    network = ours.create_network(CBR0)
    ours.attach_host_endpoint(network, "cbr0_ep", "10.244.9.2")
    endpoint = ours.create_endpoint({**SECOND, "HostComputeNetwork": network})
    kernel = Kernel(str(host.host.namespace))
    kernel.set_sysctl("ipv4/conf/all/forwarding", "1")
    return ours.start_container("web", endpoint, pod="web-0")


@pytest.mark.winhost
def test_crictl_knows_containers_and_runs_commands_in_them(host: Windows, pod: Container) -> None:
    (told,) = json.loads(_run(host, "crictl.exe", "ps", "-o", "json").stdout)["containers"]
    assert (told["id"], told["metadata"]["name"]) == (pod.id, "web")
    assert told["labels"]["io.kubernetes.pod.name"] == "web-0"
    for words in (("-q",), ("--state", "Running", "--quiet")):
        assert _run(host, "crictl.exe", "ps", *words).stdout == f"{pod.id}\n"
    assert json.loads(_run(host, "crictl.exe", "ps", "-o=json", "--state=Exited").stdout) == {
        "containers": []
    }
    curl = ("curl.exe", "--silent", "--max-time", "5", "--output", "NUL", "--write-out", "%{http_code}")
    asked = _run(host, "crictl.exe", "exec", pod.id[:12], *curl, f"http://{SERVICE}/")
    assert (asked.returncode, asked.stdout) == (0, "200")
    refused = _run(host, "crictl.exe", "exec", pod.id, *curl, f"http://{SERVICE}:81/")
    assert (refused.returncode, "terminated with exit code 7" in refused.stderr) == (1, True)
    by_name = _run(host, "crictl.exe", "exec", "web", *curl, f"http://{SERVICE}/")
    assert (by_name.returncode, "not found" in by_name.stderr) == (1, True)
    assert _run(host, "crictl.exe", "exec", pod.id, "bash", "-c", "id").returncode == 1
    assert _run(host, "crictl.exe", "images").returncode == 2
    assert not (host.folder / "programs/docker.exe").exists()


@pytest.mark.winhost
def test_powershell_runs_in_a_container_without_the_hosts_cmdlets(host: Windows, pod: Container) -> None:
    inside = ("powershell.exe", "-NoProfile", "-NonInteractive", "-Command")
    connect = f"(New-Object Net.Sockets.TcpClient '{SERVICE}', 80).Client.LocalEndPoint.Address.MapToIPv4()"
    assert (
        _run(host, "crictl.exe", "exec", pod.id, *inside, f"[string]{connect}").stdout.strip()
        == "10.244.9.10"
    )
    cmdlet = _run(host, "crictl.exe", "exec", pod.id, *inside, "Get-NetRoute")
    assert cmdlet.returncode == 1


@pytest.mark.winhost
def test_docker_knows_containers_by_name_and_gives_their_exit_code(host: Windows) -> None:
    ours = Hns(host.host)
    network = ours.create_network(CBR0)
    about = {"VirtualNetwork": network, "IPAddress": "10.244.9.11", "GatewayAddress": "10.244.9.2"}
    made = ours.start_container(
        "shop", ours.create_endpoint(about), runtime="docker", programs_of_image=NANO_SERVER
    )
    shown = _run(host, "docker.exe", "ps", "--format", "{{.ID}} {{.Names}}")
    assert shown.stdout == f"{made.id[:12]} shop\n"
    assert json.loads(_run(host, "docker.exe", "ps", "--no-trunc", "--format", "{{json .}}").stdout) == {
        "ID": made.id,
        "Names": "shop",
        "Image": made.image,
        "State": "running",
        "Status": "Up 2 hours",
        "Networks": "cbr0",
    }
    refused = _run(
        host, "docker.exe", "exec", "shop", "curl.exe", "-s", "--max-time", "2", "http://127.0.0.1/"
    )
    assert refused.returncode == 7
    assert _run(host, "docker.exe", "exec", "shop", "powershell.exe", "-Command", "1").returncode == 127
    unknown = _run(host, "docker.exe", "exec", "other", "curl.exe", "http://127.0.0.1/")
    assert (unknown.returncode, unknown.stderr) == (
        1,
        "Error response from daemon: No such container: other\n",
    )
    ours.stop_container(made)
    assert _run(host, "docker.exe", "ps", "--format", "{{.Names}}").stdout == ""


@pytest.mark.winhost
def test_a_reboot_ends_containers_and_makes_the_hosts_interface_anew(around: Lan) -> None:
    require()
    about = Machine(namespace=around.host, switch_namespace=around.switch, bridges={"External": "br0"})
    with WinHost(about) as running:
        ours = running.hns
        network = ours.create_network(CBR0)
        ours.attach_host_endpoint(network, "cbr0_ep", "10.244.9.2")
        pod = ours.start_container("web", ours.create_endpoint({**SECOND, "HostComputeNetwork": network}))
        before = _own_interface(around.host)
        Kernel(around.host).set_sysctl(f"ipv4/conf/{before.name}/forwarding", "1")
        running.reboot()
        after = _own_interface(around.host)
        assert after.index != before.index
        assert Kernel(around.host).sysctl(f"ipv4/conf/{after.name}/forwarding") == "0"
        addresses = [str(one.interface) for one in Kernel(around.host).addresses() if one.link == after.name]
        assert "10.244.9.2/24" in addresses
        assert not netns.exists(pod.namespace)
        assert [one["State"] for one in ours.call("GET", "/endpoints")] == [3, 1]
    assert [one.name for one in Kernel(around.host).links()] == ["lo", "eth0"]


def _own_interface(namespace: str) -> Link:
    (found,) = (one for one in Kernel(namespace).links() if one.name.startswith("vh"))
    return found


@pytest.mark.parametrize(
    ("document", "code", "about"),
    [
        ({**CBR0, "Typ": "x"}, 0x803B001B, "{{Typ,UnknownField}}"),
        ({"Name": "cbr0"}, 0x803B001B, "{{Type,MissingField}}"),
        ({**CBR0, "Subnets": [{"AddressPrefix": "10.244.9.0"}]} | {"Subnets": "x"}, 0x803B001B, "{{Subnets,"),
        ({**CBR0, "Type": "Bridge"}, 0x803B001B, "{{Type,"),
        ({**CBR0, "Subnets": [{"AddressPrefix": "10.244.9.1/24"}]}, 0x803B001B, "AddressPrefix"),
        ({**CBR0, "NetworkAdapterName": "Ethernet 7"}, 0x803B0006, "An adapter was not found."),
    ],
)
def test_a_network_that_hns_does_not_take_is_refused(
    bare: Hns, document: Mapping[str, Any], code: int, about: str
) -> None:
    with pytest.raises(HnsError) as refused:
        bare.create_network(document)
    assert (refused.value.code, about in refused.value.message) == (code, True)
    assert bare.call("GET", "/networks") == []


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        ({"Type": "ROUTE", "DestinationPrefix": SERVICES, "NeedEncapsulation": True}, 0x803B000D),
        ({"Type": "ROUTE", "DestinationPrefix": "10.96.0.1/16", "NeedEncap": True}, 0x803B000D),
        ({"Type": "ROUTE", "DestinationPrefix": SERVICES, "NeedEncap": "true"}, 0x803B000D),
        ({"Type": "OutBoundNAT", "Exceptions": [PODS]}, 0x803B000D),
        ({"Type": "SDNRoute", "DestinationPrefix": SERVICES, "NeedEncap": True}, 0x803B000D),
        ({"Type": "ACL", "Action": "Deny", "Direction": "In"}, 0x803B000D),
        ({"Type": "ACL", "Action": "Block", "Direction": "In", "RemotePorts": "80"}, 0x803B000D),
        ({"Type": "Firewall"}, 0x803B000D),
    ],
)
def test_a_policy_that_hns_does_not_take_is_refused(bare: Hns, policy: Mapping[str, Any], code: int) -> None:
    about = {"VirtualNetwork": bare.create_network(CBR0), "Policies": [policy]}
    with pytest.raises(HnsError) as refused:
        bare.create_endpoint(about)
    assert refused.value.code == code
    assert bare.call("GET", "/endpoints") == []


@pytest.mark.parametrize(
    "settings",
    [
        {"Type": "OutBoundNAT", "ExceptionList": [PODS]},
        {"Type": "OutBoundNAT", "Settings": {"ExceptionList": [PODS]}},
        {"Type": "ROUTE", "Settings": {"DestinationPrefix": SERVICES, "NeedEncap": True}},
        {"Type": "SDNRoute", "Settings": [SERVICES]},
    ],
)
def test_hcn_does_not_take_the_first_versions_policies(bare: Hns, settings: Mapping[str, Any]) -> None:
    about = {**SECOND, "HostComputeNetwork": bare.create_network(CBR0), "Policies": [settings]}
    with pytest.raises(HnsError) as refused:
        bare.create_endpoint(about)
    assert refused.value.code == 0x803B000D


def test_what_would_change_packets_and_does_not_here_is_not_emulated(bare: Hns) -> None:
    network = bare.create_network(CBR0)
    for policy in (
        {"Type": "NAT"},
        {"Type": "ROUTE", "DestinationPrefix": SERVICES, "NextHop": "10.244.9.2"},
    ):
        with pytest.raises(CmdletError, match="not emulated"):
            bare.create_endpoint({"VirtualNetwork": network, "Policies": [policy]})
    overlay = bare.create_network({**CBR0, "Name": "vxlan0", "Type": "Overlay"})
    endpoint = bare.create_endpoint({"VirtualNetwork": overlay})
    with pytest.raises(CmdletError, match="type Overlay"):
        bare.call("POST", f"/endpoints/{endpoint}/attach", {"SystemType": "Host"})


def test_addresses_and_names_are_given_once(bare: Hns) -> None:
    network = bare.create_network(CBR0)
    with pytest.raises(HnsError, match="already exists"):
        bare.create_network({**CBR0, "Name": "CBR0"})
    first = bare.create_endpoint({"VirtualNetwork": network})
    assert bare.call("GET", f"/endpoints/{first}")["IPAddress"] == "10.244.9.2"
    for address in ("10.244.9.2", "10.244.9.1", "10.244.8.2"):
        with pytest.raises(HnsError) as refused:
            bare.create_endpoint({"VirtualNetwork": network, "IPAddress": address})
        assert refused.value.code == 0x803B002F
    bare.remove_endpoint(first)
    assert bare.create_endpoint({"VirtualNetwork": network, "IPAddress": "10.244.9.2"})


def test_what_is_not_there_is_not_found(bare: Hns) -> None:
    nowhere = "6F9619FF-8B86-D011-B42D-00CF4FC964FF"
    for method, path, code in (
        ("GET", f"/networks/{nowhere}", 0x803B0001),
        ("DELETE", f"/networks/{nowhere}", 0x803B0001),
        ("GET", f"/endpoints/{nowhere}", 0x803B0002),
        ("DELETE", f"/policylists/{nowhere}", 0x80070490),
        ("PUT", "/networks", 0x803B0015),
        ("GET", "/nothing", 0x803B0015),
    ):
        with pytest.raises(HnsError) as refused:
            bare.call(method, path)
        assert refused.value.code == code
    assert json.loads(hns.hns_call(bare.host, "POST", "/networks", "{"))["ErrorCode"] == 0x803B001B
