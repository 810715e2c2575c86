"""Windows' PowerShell modules, made from the tables: compiled cmdlets where Windows' are, else functions.

They are made once for each state of the tables and of this code, and kept in the cache.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock

from tests.winhost import formats, powershell, tables
from tests.winhost.binding import COMPILED, asks, attributes, described, impact, parameters
from tests.winhost.clrtypes import Namespace, parameter_type, wanted
from tests.winhost.state import Host
from tests.winhost.tables import Cmdlet, Parameter

_KEPT_SECONDS = 7 * 24 * 3600
BRIDGE = Path(__file__).parent / "bridge"
_SOURCES = (
    *("modules.py", "binding.py", "clrtypes.py", "tables.py", "formats.py"),
    *("bridge/bridge.psm1", "bridge/compile.psm1", "bridge/emit.psm1", "bridge/engine.ps1"),
    *("bridge/names.ps1", "bridge/dns.ps1"),
    "bridge/Hyper-V.types.ps1xml",
)
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
_VERSIONS = {
    **dict.fromkeys(("BitsTransfer", "Hyper-V", "NetAdapter", "NetSecurity", "ServerManager"), "2.0.0.0"),
    "DISM": "3.0",
}
"""Those that are not 1.0.0.0."""


def module_path(version: str, *, without: Collection[str] = ()) -> str:
    """PSModulePath of a Windows version; `without` are modules that are not installed."""
    folder = _made(version)
    return os.pathsep.join(str(folder / name) for name in tables.MODULES if name not in without)


def installed(host: Host) -> str:
    """PSModulePath of a host with its features: the others' modules are not there."""
    without = [] if "Hyper-V-PowerShell" in host.features else ["Hyper-V"]
    if not {"Containers", "Hyper-V"} & host.features:
        without += ["HostComputeService", "HostNetworkingService"]
    return module_path(host.version, without=without)


@cache
def _made(version: str) -> Path:
    cache = Path(platformdirs.user_cache_dir("vmproxy")) / "winhost"
    folder = cache / _key() / version
    folder.parent.mkdir(parents=True, exist_ok=True)
    os.utime(folder.parent)
    with FileLock(folder.parent / f"{version}.lock"):
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{version}-") as unfinished:
                _make(version, Path(unfinished) / version)
                (Path(unfinished) / version).rename(folder)
            _forget_old(cache)
    return folder


def _forget_old(cache: Path) -> None:
    """Those of earlier tables and code, when nobody asked for them for long."""
    for one in cache.iterdir():
        if time.time() - one.stat().st_mtime > _KEPT_SECONDS:
            shutil.rmtree(one, ignore_errors=True)


def _key() -> str:
    """What they are made from, as a hash."""
    digest = hashlib.sha256()
    sources = [tables.data() / "cmdlets.json", tables.data() / "hyperv_types.json"]
    for source in (*sources, *(Path(__file__).parent / name for name in _SOURCES)):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _make(version: str, folder: Path) -> None:
    cmdlets = tables.cmdlets(version)
    folder.mkdir()
    shutil.copy(BRIDGE / "bridge.psm1", folder / "bridge.psm1")
    _assemblies(version, folder)
    for module in tables.MODULES:
        ours = [one for one in cmdlets.values() if one.module == module]
        if not ours:
            continue
        target = folder / module / module
        target.mkdir(parents=True)
        (target / f"{module}.psd1").write_text(_manifest(module, ours))
        (target / f"{module}.psm1").write_text(_script(version, module, ours))
        if module == "Hyper-V":
            shutil.copy(BRIDGE / "Hyper-V.types.ps1xml", target / "Hyper-V.types.ps1xml")
            (target / "Hyper-V.format.ps1xml").write_text(formats.hyperv())


def _assemblies(version: str, folder: Path) -> None:
    """Types and compiled cmdlets as .NET assemblies; winps makes them, as nothing here compiles C#."""
    compiled: dict[str, list[Any]] = {module: [] for module in COMPILED}
    for cmdlet in tables.cmdlets(version).values():
        if cmdlet.module in COMPILED:
            compiled[cmdlet.module].append(described(cmdlet, Namespace(version, cmdlet.module)))
    types, cmdlets = folder / "types.json", folder / "cmdlets.json"
    types.write_text(json.dumps(wanted(version)))
    cmdlets.write_text(json.dumps(compiled))
    assembly, engine = folder / "Windows.Modules.dll", folder / "Windows.Engine.dll"
    _emit(
        f"New-WindowsAssembly '{types}' '{assembly}'; "
        f"New-EngineAssembly '{BRIDGE / 'engine.ps1'}' '{assembly}' '{engine}'; "
        f"New-DnsAssembly '{BRIDGE / 'dns.ps1'}' '{engine}' '{folder / 'Windows.Dns.dll'}'; "
        f"New-CmdletAssembly '{cmdlets}' '{engine}' '{folder}'"
    )


def _emit(command: str) -> None:
    done = subprocess.run(
        [
            *(str(powershell.program()), "-NoProfile", "-NonInteractive", "-Command"),
            f"$ErrorActionPreference = 'Stop'; Import-Module '{BRIDGE / 'emit.psm1'}'; {command}",
        ],
        env={
            "HOME": tempfile.gettempdir(),
            "DOTNET_EnableDiagnostics": "0",
            "PATH": "",
            "PSModulePath": "",
        },
        capture_output=True,
        timeout=240,
        check=False,
    )
    if done.returncode or done.stderr.strip():
        raise RuntimeError((done.stderr or done.stdout).decode(errors="replace"))


def _manifest(module: str, cmdlets: Iterable[Cmdlet]) -> str:
    names = ", ".join(f"'{one.name}'" for one in cmdlets)
    functions, compiled = ("", names) if module in COMPILED else (names, "")
    aliases = ", ".join(f"'{alias}'" for alias in _ALIASES.get(module, {})) or ""
    types = ""
    if module == "Hyper-V":
        types = "TypesToProcess = 'Hyper-V.types.ps1xml'; FormatsToProcess = 'Hyper-V.format.ps1xml'; "
    version = _VERSIONS.get(module, "1.0.0.0")
    return (
        f"@{{ ModuleVersion = '{version}'; RootModule = '{module}.psm1'; {types}"
        f"FunctionsToExport = @({functions}); CmdletsToExport = @({compiled}); "
        f"AliasesToExport = @({aliases}) }}\n"
    )


def _script(version: str, module: str, cmdlets: Iterable[Cmdlet]) -> str:
    space = Namespace(version, module)
    body = "\n".join(_function(one, space) for one in cmdlets)
    if module in COMPILED:
        assembly = f"$PSScriptRoot/../../Windows.{module}.dll"
        body = f'Import-Module ([Reflection.Assembly]::LoadFrom("{assembly}"))'
    if module == "DnsClient":
        body += "\n" + (BRIDGE / "names.ps1").read_text()
    aliases = "\n".join(f"Set-Alias {alias} {name}" for alias, name in _ALIASES.get(module, {}).items())
    return f"Import-Module $PSScriptRoot/../../bridge.psm1\n{body}\n{aliases}\n{_EXPORTS}\n"


_EXPORTS = "Export-ModuleMember -Function * -Cmdlet * -Alias *"


def _function(cmdlet: Cmdlet, space: Namespace) -> str:
    block = ",\n".join(_declared(cmdlet, one, space) for one in parameters(cmdlet))
    head = f"function {cmdlet.name} {{\n{_binding(cmdlet)}\nparam(\n{block})"
    return f"{head}\nprocess {{ Invoke-Emulated $PSCmdlet }}\n}}"


def _binding(cmdlet: Cmdlet) -> str:
    options = ["PositionalBinding = $false"]
    if cmdlet.sets:
        options.append(f"DefaultParameterSetName = '{cmdlet.sets[0]}'")
    if asks(cmdlet):
        options += ["SupportsShouldProcess = $true", f"ConfirmImpact = '{impact(cmdlet)}'"]
    return f"[CmdletBinding({', '.join(options)})]"


def _declared(cmdlet: Cmdlet, parameter: Parameter, space: Namespace) -> str:
    """One parameter: an attribute for each set, aliases, accepted values, type and name."""
    kind = parameter_type(space, cmdlet, parameter)
    lines = [f"[Parameter({_options(one)})]" for one in attributes(cmdlet, parameter)]
    for attribute, values in (("Alias", parameter.aliases), ("ValidateSet", kind.values)):
        if values:
            lines.append(f"[{attribute}({', '.join(map(_literal, values))})]")
    if kind.object:
        lines.append(f"[PSTypeName('{kind.object}')]")
    return "".join([*lines, f"[{kind.name}]", f"${{{parameter.name}}}"])


def _options(attribute: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} = {_literal(value)}" for key, value in attribute.items())


def _literal(value: object) -> str:
    if isinstance(value, bool):
        return "$true" if value else "$false"
    return str(value) if isinstance(value, int) else f"'{value}'"
