"""WMI's classes, features, services, registry and access rules, through PowerShell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.winhost.system import System, wql
from tests.winhost.tests.asking import Failure, Windows, windows

pytestmark = pytest.mark.winhost


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Windows]:
    with windows(tmp_path) as running:
        yield running


def _refused(answer: object, message: str, error_id: str) -> None:
    assert isinstance(answer, Failure)
    assert (answer.message, answer.id.split(",")[0]) == (message, error_id)
    assert answer.type == "Microsoft.Management.Infrastructure.CimException"


def test_the_system_and_its_hardware_are_told(host: Windows) -> None:
    host.host.part(System).domain = "corp.example"
    system, machine, disk, types = host.ask(
        "Get-CimInstance -ClassName Win32_OperatingSystem | Select-Object Caption, BuildNumber, ProductType",
        "Get-CimInstance Win32_ComputerSystem | Select-Object Domain, DomainRole, HypervisorPresent, Model",
        "(Get-CimInstance -Query \"SELECT FreeSpace FROM Win32_LogicalDisk WHERE DeviceID='C:'\").FreeSpace",
        "(Get-CimInstance Win32_ComputerSystem).PSObject.TypeNames[0];"
        " (Get-CimInstance Win32_OperatingSystem).LastBootUpTime.GetType().FullName",
    )
    assert system == {
        "Caption": "Microsoft Windows Server 2022 Standard",
        "BuildNumber": "20348",
        "ProductType": 3,
    }
    assert machine == {
        "Domain": "corp.example",
        "DomainRole": 3,
        "HypervisorPresent": True,
        "Model": "PowerEdge R650",
    }
    assert disk > 0
    assert types == [
        "Microsoft.Management.Infrastructure.CimInstance#root/cimv2/Win32_ComputerSystem",
        "System.DateTime",
    ]


def test_processes_come_and_go_with_what_runs(host: Windows) -> None:
    host.host.part(System).start("kube-proxy.exe", r"C:\k\kube-proxy.exe --proxy-mode=kernelspace")
    filtered, like, before, after = host.ask(
        "(Get-CimInstance Win32_Process -Filter \"Name='KUBE-PROXY.exe'\").CommandLine",
        "Get-CimInstance Win32_Process -Filter \"Name LIKE 'vm%' AND ProcessId > 4\" | ForEach-Object Name",
        "(Get-CimInstance Win32_Service -Filter \"Name='vmms'\").State",
        "Stop-Service vmms -Force; (Get-CimInstance Win32_Service -Filter \"Name='vmms'\").State;"
        " @(Get-CimInstance Win32_Process -Filter \"Name='vmms.exe'\").Count",
    )
    assert filtered == r"C:\k\kube-proxy.exe --proxy-mode=kernelspace"
    assert like == ["vmms.exe", "vmcompute.exe"]
    assert (before, after) == ("Running", ["Stopped", 0])
    assert host.host.services["vmms"] == "Stopped"


def test_wrong_queries_are_refused_and_those_beyond_this_host_said_to_be_so(host: Windows) -> None:
    unknown, syntax, property_, namespace, beyond, elsewhere, other = host.ask(
        "Get-CimInstance Win32_NoSuchThing",
        "Get-CimInstance Win32_Process -Filter \"Name == 'x'\"",
        "Get-CimInstance Win32_Process -Filter \"Nmae='x'\"",
        "Get-CimInstance Win32_Process -Namespace root/nowhere",
        "Get-CimInstance -Query \"ASSOCIATORS OF {Win32_Group.Name='a'}\"",
        "Get-CimInstance Win32_DiskDrive",
        "Get-CimInstance Win32_Process -ComputerName other",
    )
    _refused(unknown, "Invalid class ", "HRESULT 0x80041010")
    assert unknown.category == "MetadataError"
    assert unknown.id.endswith(",Microsoft.Management.Infrastructure.CimCmdlets.GetCimInstanceCommand")
    _refused(syntax, "Invalid query ", "HRESULT 0x80041017")
    _refused(property_, "Invalid query ", "HRESULT 0x80041017")
    _refused(namespace, "Invalid namespace ", "HRESULT 0x8004100e")
    for answer in (beyond, elsewhere, other):
        assert (answer.message.partition(":")[0], answer.category) == ("not emulated", "NotImplemented")


def test_only_the_asked_properties_are_filled_and_an_instance_can_be_looked_at_again(host: Windows) -> None:
    some, key, again = host.ask(
        "Get-CimInstance Win32_Service -Property State -Filter \"Name='hns'\" | Select-Object State, Name",
        "Get-CimInstance Win32_OperatingSystem -KeyOnly | Select-Object CSName",
        "$One = Get-CimInstance Win32_Service -Filter \"Name='hns'\"; Stop-Service hns;"
        " $One.State; ($One | Get-CimInstance).State",
    )
    assert some == {"State": "Running", "Name": None}
    assert key == {"CSName": None}
    assert again == ["Running", "Stopped"]


def test_the_administrators_are_found_by_their_sid_whatever_the_language(
    tmp_path: Path,
) -> None:
    with windows(tmp_path, language="de-DE") as german:
        name, members, service = german.ask(
            "$Group = Get-CimInstance Win32_Group -Filter \"SID='S-1-5-32-544'\"; $Group.Name",
            "$Group | Get-CimAssociatedInstance -ResultClassName Win32_UserAccount | ForEach-Object Name",
            "(Get-Service vmms).DisplayName",
        )
    assert (name, members) == ("Administratoren", "Administrator")
    assert service == "Hyper-V-Verwaltung virtueller Computer"


def test_a_feature_is_installed_where_the_host_has_it(host: Windows) -> None:
    role, all_, optional, unknown, none = host.ask(
        "Get-WindowsFeature Hyper-V, Routing"
        ' | ForEach-Object { "$($_.Name) $($_.InstallState) $($_.Installed)" }',
        "@(Get-WindowsFeature -Name '*Hyper-V*').Count",
        "[string](Get-WindowsOptionalFeature -Online -FeatureName Microsoft-Hyper-V).State",
        "Get-WindowsOptionalFeature -Online -FeatureName NoSuch",
        "Install-WindowsFeature Hyper-V",
    )
    assert role == ["Hyper-V Installed True", "Routing Available False"]
    assert all_ == 4
    assert optional == "Enabled"
    assert (unknown.message, unknown.type) == (
        "Feature name NoSuch is unknown.",
        "System.Runtime.InteropServices.COMException",
    )
    assert none.message == "not emulated: Install-WindowsFeature"


def test_a_test_changes_services_and_the_registry_and_sees_what_scripts_changed(host: Windows) -> None:
    policies = r"HKLM:\SOFTWARE\Microsoft\Windows\CurrentVersion\Policies\System"
    host.stores.services.set("vmms", status="Stopped", startType="Disabled")
    host.stores.services.set("kubeproxy", displayName="kube-proxy", status="Running")
    host.stores.registry.set(policies, LocalAccountTokenFilterPolicy=1)
    service, ours, policy, build, written = host.ask(
        "Start-Service vmms",
        "[string](Get-Service kubeproxy).Status",
        f"(Get-ItemProperty -LiteralPath '{policies}').LocalAccountTokenFilterPolicy",
        r"(Get-ItemProperty 'HKLM:\SOFTWARE\Microsoft\Windows NT\CurrentVersion').CurrentBuildNumber",
        f"Set-ItemProperty -LiteralPath '{policies}' -Name EnableLUA -Value 0;"
        " Set-Service BITS -Status Running",
    )
    assert service.id.startswith("CouldNotStartService")
    assert (ours, policy, build, written) == ("Running", 1, "20348", None)
    assert host.stores.registry.get(policies, "EnableLUA") == 0
    assert host.stores.services["BITS"] == "Running"
    host.stores.registry.set(policies, LocalAccountTokenFilterPolicy=None)
    assert host.stores.registry.get(policies, "LocalAccountTokenFilterPolicy") is None


def test_a_folder_lets_users_in_until_its_access_rules_say_otherwise(host: Windows) -> None:
    who = "(Get-Acl -LiteralPath C:\\ProgramData\\x).Access | ForEach-Object { $_.IdentityReference.Value }"
    before, sddl = host.ask(
        f"New-Item -ItemType Directory C:\\ProgramData\\x | Out-Null; {who} | Select-Object -Unique",
        "$Acl = Get-Acl -LiteralPath C:\\ProgramData\\x;"
        " $Acl.SetSecurityDescriptorSddlForm('D:PAI(A;OICI;FA;;;BA)(A;OICI;FA;;;SY)', 'Access');"
        f" Set-Acl -LiteralPath C:\\ProgramData\\x -AclObject $Acl; {who}",
    )
    assert "BUILTIN\\Users" in before
    assert sorted(sddl) == ["BUILTIN\\Administrators", "NT AUTHORITY\\SYSTEM"]
    assert host.stores.acls.protected(r"C:\ProgramData\x")
    assert len(host.stores.acls.rules(r"c:\programdata\X")) == 2


ROW = {"Name": "Vmms.exe", "Id": 7, "Up": True, "Nothing": None}


@pytest.mark.parametrize(
    "text",
    [
        "Name = 'vmms.EXE'",
        "Name LIKE 'vm%' AND NOT Id = 8",
        "Id = '7' AND Up = TRUE",
        "Id >= 7 AND Id < 8 AND Id <> 9",
        "Nothing IS NULL AND Name IS NOT NULL",
        'Name LIKE "V_ms[.]exe" OR Id = 0',
        "(Id = 1 OR Id = 7) AND Up != 'false'",
    ],
)
def test_a_condition_that_holds_is_met(text: str) -> None:
    assert wql.condition(text)(ROW)
    assert not wql.condition(f"NOT ({text})")(ROW)


@pytest.mark.parametrize(
    "text", ["", "Name", "Name = ", "Name = x", "Name LIKE 3", "(Id = 7", "Id = 7 Id = 7", "No = 1"]
)
def test_a_condition_that_wmi_would_not_take_is_refused(text: str) -> None:
    with pytest.raises(wql.InvalidQuery):
        wql.condition(text)(ROW)


@pytest.mark.parametrize(
    "text", ["SELECT * FROM X WITHIN 5", "REFERENCES OF {X}", "SELECT * FROM X WHERE A ISA 'B'"]
)
def test_a_query_that_is_not_emulated_is_not_called_wrong(text: str) -> None:
    with pytest.raises(wql.Elsewhere):
        wql.select(text)
