# What the other scripts share: kept in the session, and taken in by each with `. $Session.Lib`.
param($Data, $Session)
$Session.Lib = {
    function Get-VMByName([string] $Name) {
        # -Name takes wildcards, and names are not unique.
        $Found = @(Hyper-V\Get-VM | Where-Object { $_.Name -ceq $Name })
        if ($Found.Count -gt 1) { throw "there are $($Found.Count) VMs named $Name" }
        if ($Found.Count -eq 1) { $Found[0] }
    }

    function Get-OurVM($Data) {
        # The VM to be changed. `pending` is there only while one of ours is being made.
        $Vm = Get-VMByName $Data.vm
        if ($null -eq $Vm) { throw "there is no VM named $($Data.vm) any more" }
        if ("$($Vm.Notes)".Contains('[vmproxy]') -or (Test-Path -LiteralPath $Data.pending)) { return $Vm }
        throw "VM $($Data.vm) has no marker of vmproxy in its Notes: it is not touched"
    }

    function Set-Marker($Vm, [string] $Block) {
        # Other text in the Notes stays.
        $Other = [regex]::Replace("$($Vm.Notes)", '(?s)\s*\[vmproxy\].*?\[/vmproxy\]\s*', "`r`n").Trim()
        $Notes = if ($Other) { "$Other`r`n$Block" } else { $Block }
        Hyper-V\Set-VM -VM $Vm -Notes $Notes
    }

    function Protect-Folder([string] $Path) {
        # Administrators and SYSTEM only: seeds hold private keys. Hyper-V adds the VM's right to its files.
        # Theirs too: an owner can always change the rights.
        $Acl = Get-Acl -LiteralPath $Path
        $Acl.SetSecurityDescriptorSddlForm('O:BAD:PAI(A;OICI;FA;;;BA)(A;OICI;FA;;;SY)', 'Owner, Access')
        Set-Acl -LiteralPath $Path -AclObject $Acl
    }

    function New-Folder([string] $Path) {
        if (-not (Test-Path -LiteralPath $Path)) {
            New-Item -ItemType Directory -Path $Path -Force | Out-Null
            return $true
        }
    }

    function Remove-Whole([string] $Path) {
        # Hyper-V lets go of a removed VM's files a moment later.
        for ($Try = 1; Test-Path -LiteralPath $Path; $Try++) {
            try {
                Remove-Item -LiteralPath $Path -Recurse -Force
            } catch {
                if ($Try -ge 15) { throw }
                Start-Sleep -Seconds 1
            }
        }
    }

    function Remove-OurVM($Data) {
        if (Get-VMByName $Data.vm) {
            $Vm = Get-OurVM $Data
            $Place = [string]$Vm.ConfigurationLocation
            if ([string]$Vm.State -notin 'Off', 'Saved') { Hyper-V\Stop-VM -VM $Vm -TurnOff -Force }
            Hyper-V\Remove-VM -VM $Vm -Force
            # Elsewhere when it was made with another hyperv.directory.
            if ([IO.Path]::GetFileName($Place) -eq $Data.vm) { Remove-Unused $Place }
        }
        Remove-Unused $Data.folder
    }

    function Remove-Unused([string] $Folder) {
        # A VM that was renamed and lost its marker is not known as ours any more, but lives there.
        foreach ($Vm in Hyper-V\Get-VM) {
            $Files = @($Vm.ConfigurationLocation) + @($Vm.HardDrives.Path) + @($Vm.DVDDrives.Path)
            foreach ($File in $Files | Where-Object { $_ }) {
                if ("$File\".StartsWith("$Folder\", 'OrdinalIgnoreCase')) {
                    throw "the folder $Folder is not removed: VM $($Vm.Name) uses $File"
                }
            }
        }
        Remove-Whole $Folder
    }

    function Get-FreeSpace([string] $Path) {
        (New-Object IO.DriveInfo ([IO.Path]::GetPathRoot($Path))).AvailableFreeSpace
    }

    function Exit-FullDisk([string] $Path, $Problem) {
        # Passes a problem with a file on; named as what it is when the disk is full.
        if ((Get-FreeSpace $Path) -ge 16MB) { throw $Problem }
        $Message = "the disk is full, at ${Path}: $($Problem.Exception.Message)"
        throw (New-Object IO.IOException $Message, 0x80070070)
    }

    function Get-Routes([string] $Store) {
        # An empty store is an error to Get-NetRoute.
        try {
            NetTCPIP\Get-NetRoute -AddressFamily IPv4 -PolicyStore $Store
        } catch {
            if ($_.FullyQualifiedErrorId -notlike 'CmdletizationQuery_NotFound*') { throw }
        }
    }

    function Get-Way([string] $Address) {
        # Find-NetRoute gives the source address first, then the route.
        NetTCPIP\Find-NetRoute -RemoteIPAddress $Address |
            Where-Object { $_.DestinationPrefix } | Select-Object -First 1
    }

    function Get-OnLink([string] $Address) {
        # The interface on whose own network the address is: looked up each time, as its index changes.
        $Way = Get-Way $Address
        if ($Way.NextHop -ne '0.0.0.0') {
            throw "$Address is not on a network of this host: the way there is by $($Way.NextHop)"
        }
        $Way.InterfaceIndex
    }
}
