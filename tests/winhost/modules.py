"""Windows' PowerShell modules as folders of functions, made from the tables of cmdlets.

They are made once for each state of the tables and of this code, and kept in the cache.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import platformdirs

from tests.winhost import powershell, tables
from tests.winhost.clrtypes import Namespace, parameter_type, wanted
from tests.winhost.tables import Cmdlet, Parameter

BRIDGE = Path(__file__).parent / "bridge"
_SOURCES = ("modules.py", "clrtypes.py", "tables.py", "bridge/bridge.psm1", "bridge/emit.psm1")
_COMMON = {"WhatIf", "Confirm"}
_ASKS_FIRST = {
    "Disable-NetAdapter",
    "Remove-NetIPAddress",
    "Remove-NetNat",
    "Remove-NetNeighbor",
    "Remove-NetRoute",
    "Remove-VM",
    "Remove-VMSwitch",
    "Restart-NetAdapter",
    "Restart-VM",
    "Restore-VMSnapshot",
}
"""Their ConfirmImpact is High: without -Force or -Confirm:$false they ask."""
_COMPILED = {
    "Hyper-V": "Microsoft.HyperV.PowerShell.Commands.{verb}{noun}",
    "CimCmdlets": "Microsoft.Management.Infrastructure.CimCmdlets.{verb}{noun}Command",
    "ServerManager": "Microsoft.Windows.ServerManager.Commands.{verb}{noun}Command",
    "BitsTransfer": "Microsoft.BackgroundIntelligentTransfer.Management.{verb}{noun}Command",
    "DISM": "Microsoft.Dism.Commands.{verb}{noun}Command",
}
"""Modules of compiled cmdlets, and the class that ends their error ids."""
_ALIASES = {
    "Hyper-V": {
        "Get-VMCheckpoint": "Get-VMSnapshot",
        "Remove-VMCheckpoint": "Remove-VMSnapshot",
        "Rename-VMCheckpoint": "Rename-VMSnapshot",
        "Restore-VMCheckpoint": "Restore-VMSnapshot",
        "Export-VMCheckpoint": "Export-VMSnapshot",
    },
    "ServerManager": {
        "Add-WindowsFeature": "Install-WindowsFeature",
        "Remove-WindowsFeature": "Uninstall-WindowsFeature",
    },
    "CimCmdlets": {
        "gcim": "Get-CimInstance",
        "gcai": "Get-CimAssociatedInstance",
        "gcls": "Get-CimClass",
        "icim": "Invoke-CimMethod",
        "ncim": "New-CimInstance",
        "rcim": "Remove-CimInstance",
        "scim": "Set-CimInstance",
    },
}
_FORCED = "if ($Force -and -not $PSBoundParameters.ContainsKey('Confirm')) { $ConfirmPreference = 'None' };"
_VERSIONS = {"Hyper-V": "2.0.0.0", "DnsClient": "1.0.0.0", "NetTCPIP": "1.0.0.0"}


def module_path(version: str, *, without: Collection[str] = ()) -> str:
    """PSModulePath of a Windows version; `without` are modules that are not installed."""
    folder = _made(version)
    return os.pathsep.join(str(folder / name) for name in tables.MODULES if name not in without)


@cache
def _made(version: str) -> Path:
    folder = Path(platformdirs.user_cache_dir("vmproxy")) / "winhost" / _key() / version
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{version}-") as unfinished:
            _make(version, Path(unfinished))
            _settle(Path(unfinished), folder)
    return folder


def _settle(unfinished: Path, folder: Path) -> None:
    """The whole folder at once; another process may have been first."""
    try:
        unfinished.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
    else:
        unfinished.mkdir()


def _key() -> str:
    """What they are made from, as a hash."""
    digest = hashlib.sha256()
    sources = [tables.data() / "cmdlets.json", tables.data() / "hyperv_types.json"]
    for source in (*sources, *(Path(__file__).parent / name for name in _SOURCES)):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _make(version: str, folder: Path) -> None:
    cmdlets = tables.cmdlets(version)
    _assembly(version, folder)
    shutil.copy(BRIDGE / "bridge.psm1", folder / "bridge.psm1")
    for module in tables.MODULES:
        ours = [one for one in cmdlets.values() if one.module == module]
        target = folder / module / module
        target.mkdir(parents=True)
        (target / f"{module}.psd1").write_text(_manifest(module, ours))
        (target / f"{module}.psm1").write_text(_script(version, module, ours))
        if module == "Hyper-V":
            shutil.copy(BRIDGE / "Hyper-V.types.ps1xml", target / "Hyper-V.types.ps1xml")


def _assembly(version: str, folder: Path) -> None:
    """The types as a .NET assembly; winps makes it, as nothing here compiles C#."""
    (folder / "types.json").write_text(json.dumps(wanted(version)))
    command = (
        f"Import-Module '{BRIDGE / 'emit.psm1'}'; "
        f"New-WindowsAssembly '{folder / 'types.json'}' '{folder / 'Windows.Modules.dll'}'"
    )
    done = subprocess.run(
        [str(powershell.program()), "-NoProfile", "-NonInteractive", "-Command", command],
        env={"HOME": str(folder), "PATH": "", "PSModulePath": ""},
        capture_output=True,
        timeout=120,
        check=False,
    )
    if done.returncode or done.stderr.strip():
        raise RuntimeError((done.stderr or done.stdout).decode(errors="replace"))


def _manifest(module: str, cmdlets: Iterable[Cmdlet]) -> str:
    names = ", ".join(f"'{one.name}'" for one in cmdlets)
    aliases = ", ".join(f"'{alias}'" for alias in _ALIASES.get(module, {})) or ""
    types = "TypesToProcess = @('Hyper-V.types.ps1xml'); " if module == "Hyper-V" else ""
    version = _VERSIONS.get(module, "2.0.0.0")
    return (
        f"@{{ ModuleVersion = '{version}'; RootModule = '{module}.psm1'; {types}"
        f"FunctionsToExport = @({names}); CmdletsToExport = @(); AliasesToExport = @({aliases}) }}\n"
    )


def _script(version: str, module: str, cmdlets: Iterable[Cmdlet]) -> str:
    space = Namespace(version, module)
    functions = "\n".join(_function(one, space) for one in cmdlets)
    aliases = "\n".join(f"Set-Alias {alias} {name}" for alias, name in _ALIASES.get(module, {}).items())
    return f"Import-Module $PSScriptRoot/../../bridge.psm1\n{functions}\n{aliases}\n"


def _function(cmdlet: Cmdlet, space: Namespace) -> str:
    asks = "WhatIf" in cmdlet.parameters
    body = f"Invoke-Emulated $PSCmdlet $PSBoundParameters '{_class(cmdlet)}'"
    if asks:
        body = f"if ({body.replace('Invoke', 'Confirm')}) {{ {body} }}"
    parameters = [one for name, one in cmdlet.parameters.items() if name not in _COMMON]
    block = ",\n".join(_declared(cmdlet, one, space) for one in parameters)
    head = f"function {cmdlet.name} {{\n{_binding(cmdlet, asks=asks)}\nparam(\n{block})"
    return f"{head}\nprocess {{ {body} }}\n}}"


def _class(cmdlet: Cmdlet) -> str:
    verb, _, noun = cmdlet.name.partition("-")
    return _COMPILED.get(cmdlet.module, "").format(verb=verb, noun=noun)


def _binding(cmdlet: Cmdlet, *, asks: bool) -> str:
    options = ["PositionalBinding = $false"]
    if cmdlet.sets:
        options.append(f"DefaultParameterSetName = '{cmdlet.sets[0]}'")
    if asks:
        options.append("SupportsShouldProcess = $true")
    if cmdlet.name in _ASKS_FIRST:
        options.append("ConfirmImpact = 'High'")
    return f"[CmdletBinding({', '.join(options)})]"


def _declared(cmdlet: Cmdlet, parameter: Parameter, space: Namespace) -> str:
    """One parameter: an attribute for each set, aliases, accepted values, type and name."""
    kind = parameter_type(space, cmdlet, parameter)
    lines = [_attribute(cmdlet, parameter, name, mandatory) for name, mandatory in parameter.sets.items()]
    if parameter.aliases:
        lines.append("[Alias({})]".format(", ".join(f"'{one}'" for one in parameter.aliases)))
    return "".join([*lines, *kind.checks, f"[{kind.name}]", f"${{{parameter.name}}}"])


def _attribute(cmdlet: Cmdlet, parameter: Parameter, name: str, mandatory: bool) -> str:
    said: dict[str, Any] = {}
    if name:
        said["ParameterSetName"] = f"'{name}'"
    if mandatory:
        said["Mandatory"] = "$true"
    if parameter.position is not None:
        said["Position"] = parameter.position
    said.update(_pipeline(cmdlet, parameter, mandatory))
    return "[Parameter({})]".format(", ".join(f"{key} = {value}" for key, value in said.items()))


def _pipeline(cmdlet: Cmdlet, parameter: Parameter, mandatory: bool) -> Mapping[str, str]:
    """Whether it is taken from the pipeline, which the tables do not say: seen in the documents.

    What a cmdlet works on is taken by value, as object or, in Hyper-V, by name in the first position.
    The network cmdlets take the interface and the address from properties.
    """
    base = parameter.type.removesuffix("[]")
    if base.startswith("CimInstance"):
        return {"ValueFromPipeline": "$true"}
    if cmdlet.module == "Hyper-V" and base in _objects():
        return {"ValueFromPipeline": "$true"} if mandatory and parameter.name not in _NEVER_PIPED else {}
    if cmdlet.module == "Hyper-V" and parameter.position == 0:
        if parameter.name in ("Name", "VMName", "Path") and not cmdlet.name.startswith("New-"):
            return {"ValueFromPipeline": "$true"}
        if parameter.name == "Id":
            return {"ValueFromPipeline": "$true", "ValueFromPipelineByPropertyName": "$true"}
    if cmdlet.module.startswith("Net") and parameter.name in _BY_PROPERTY:
        return {"ValueFromPipelineByPropertyName": "$true"}
    return {}


_NEVER_PIPED = {"ParentOf", "ChildOf"}
_BY_PROPERTY = {"InterfaceAlias", "InterfaceIndex", "IPAddress", "InterfaceDescription"}


@cache
def _objects() -> frozenset[str]:
    return frozenset(wanted_names())


def wanted_names() -> set[str]:
    """Short names of Hyper-V's classes."""
    names = (one["name"] for one in wanted("2022")["classes"])
    return {name.rpartition(".")[2] for name in names}
