# Functions that the other scripts share: kept in the session, dot-sourced by each with `. $Session.Lib`.
param($Data, $Session)
$Session.Lib = {
    function Get-VMByName([string] $Name) {
        # -Name accepts wildcards, and names are not unique.
        $Found = @(Hyper-V\Get-VM | Where-Object { $_.Name -ceq $Name })
        if ($Found.Count -gt 1) { throw "there are $($Found.Count) VMs named $Name" }
        if ($Found.Count -eq 1) { $Found[0] }
    }

    function Get-ManagedVM($Data) {
        # The VM to change. The file `pending` exists only while vmproxy creates the VM.
        $Vm = Get-VMByName $Data.vm
        if ($null -eq $Vm) { throw "VM $($Data.vm) no longer exists" }
        if ("$($Vm.Notes)".Contains('[vmproxy]') -or (Test-Path -LiteralPath $Data.pending)) { return $Vm }
        throw "VM $($Data.vm) has no vmproxy marker in its Notes: vmproxy does not change it"
    }

    function Set-Marker($Vm, [string] $Block) {
        # Keep other text in the Notes.
        $Other = [regex]::Replace("$($Vm.Notes)", '(?s)\s*\[vmproxy\].*?\[/vmproxy\]\s*', "`r`n").Trim()
        $Notes = if ($Other) { "$Other`r`n$Block" } else { $Block }
        Hyper-V\Set-VM -VM $Vm -Notes $Notes
    }

    function Protect-Folder([string] $Path) {
        # Access for Administrators and SYSTEM only, because seeds hold private keys. Hyper-V adds the VM's
        # own right to its files. Administrators own the folder too: an owner can always change the rights.
        $Acl = Get-Acl -LiteralPath $Path
        $Acl.SetSecurityDescriptorSddlForm('O:BAD:PAI(A;OICI;FA;;;BA)(A;OICI;FA;;;SY)', 'Owner, Access')
        Set-Acl -LiteralPath $Path -AclObject $Acl
    }

    function Test-TrustedOwner([string] $Path) {
        $Owner = (Get-Acl -LiteralPath $Path).GetOwner([Security.Principal.SecurityIdentifier]).Value
        $Me = [Security.Principal.WindowsIdentity]::GetCurrent().User.Value
        'S-1-5-32-544', 'S-1-5-18', $Me -contains $Owner
    }

    function Set-FolderUnfinished([string] $Path) {
        # Never writes into a file that another user put there.
        if ((Test-Path -LiteralPath $Path) -and -not (Test-TrustedOwner $Path)) {
            Remove-Item -LiteralPath $Path -Recurse -Force
        }
        if (-not (Test-Path -LiteralPath $Path)) { (New-Object IO.FileStream $Path, 'CreateNew').Dispose() }
    }

    function New-Folder([string] $Path) {
        if (-not (Test-Path -LiteralPath $Path)) {
            New-Item -ItemType Directory -Path $Path -Force | Out-Null
            return $true
        }
    }

    function Remove-PathWithRetry([string] $Path) {
        # Hyper-V releases a removed VM's files with a delay.
        for ($Try = 1; Test-Path -LiteralPath $Path; $Try++) {
            try {
                Remove-Item -LiteralPath $Path -Recurse -Force
            } catch {
                if ($Try -ge 15) { throw }
                Start-Sleep -Seconds 1
            }
        }
    }

    function Remove-ManagedVM($Data) {
        if (Get-VMByName $Data.vm) {
            $Vm = Get-ManagedVM $Data
            $Location = [string]$Vm.ConfigurationLocation
            if ([string]$Vm.State -notin 'Off', 'Saved') { Hyper-V\Stop-VM -VM $Vm -TurnOff -Force }
            Hyper-V\Remove-VM -VM $Vm -Force
            # It is elsewhere if the VM was created with another hyperv.directory.
            if ([IO.Path]::GetFileName($Location) -eq $Data.vm) { Remove-UnusedFolder $Location }
        }
        Remove-UnusedFolder $Data.folder
    }

    function Remove-UnusedFolder([string] $Folder) {
        # A VM that was renamed and lost its marker is not recognized, but its files are still there.
        foreach ($Vm in Hyper-V\Get-VM) {
            $Files = @($Vm.ConfigurationLocation) + @($Vm.HardDrives.Path) + @($Vm.DVDDrives.Path)
            foreach ($File in $Files | Where-Object { $_ }) {
                if ("$File\".StartsWith("$Folder\", 'OrdinalIgnoreCase')) {
                    throw "cannot remove the folder ${Folder}: VM $($Vm.Name) uses $File"
                }
            }
        }
        Remove-PathWithRetry $Folder
    }

    function Get-FreeSpace([string] $Path) {
        (New-Object IO.DriveInfo ([IO.Path]::GetPathRoot($Path))).AvailableFreeSpace
    }

    function Stop-WithFileError([string] $Path, $Problem) {
        # Rethrows an error with a file; if the disk is full, says so.
        if ((Get-FreeSpace $Path) -ge 16MB) { throw $Problem }
        $Message = "the disk is full: cannot write ${Path}: $($Problem.Exception.Message)"
        throw (New-Object IO.IOException $Message, 0x80070070)
    }

    function Get-IPv4Route([string] $Store) {
        # Get-NetRoute fails if the store is empty.
        try {
            NetTCPIP\Get-NetRoute -AddressFamily IPv4 -PolicyStore $Store
        } catch {
            if ($_.FullyQualifiedErrorId -notlike 'CmdletizationQuery_NotFound*') { throw }
        }
    }

    function Find-Route([string] $Address) {
        # Find-NetRoute returns the source address first, then the route.
        NetTCPIP\Find-NetRoute -RemoteIPAddress $Address |
            Where-Object { $_.DestinationPrefix } | Select-Object -First 1
    }

    function Get-OnLinkInterface([string] $Address) {
        # The index of the interface whose own network contains the address. It can change: never cache it.
        $Route = Find-Route $Address
        if ($Route.NextHop -ne '0.0.0.0') {
            throw "$Address is not on a network of this host: its next hop is $($Route.NextHop)"
        }
        $Route.InterfaceIndex
    }
}
