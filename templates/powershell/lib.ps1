# Functions that the other scripts share: kept in the session, dot-sourced by each with `. $Session.Lib`.
param($Data, $Session)
$Session.Lib = {
    function Get-ThisComputer {
        # For each Hyper-V cmdlet that is not given an object. Without -ComputerName they resolve this computer's
        # name: that fails for names over 15 characters or unknown to every name service, and a network log-on
        # has no credential to try again with. A host may deny `localhost`, though.
        if (-not $Session.Computer) {
            $Computer = 'localhost'
            try {
                Hyper-V\Get-VMHost -ComputerName localhost | Out-Null
            } catch {
                if (-not (Test-Denied $_)) { throw }
                $Computer = $env:COMPUTERNAME
            }
            $Session.Computer = $Computer
        }
        $Session.Computer
    }

    function Test-Denied($Problem) {
        "$($Problem.CategoryInfo.Category)" -eq 'PermissionDenied' -or
            $Problem.FullyQualifiedErrorId -like 'AccessDenied*' -or
            $Problem.Exception.GetBaseException().HResult -eq 0x80070005
    }

    function Read-InputLine {
        # A line from the controller, unchanged. A secret travels like this: module logging records the
        # parameters of cmdlets, and so every frame.
        $Line = $Session.Reader.ReadLineAsync()
        if (-not $Line.Wait($Idle) -or $null -eq $Line.Result) { throw 'the controller stopped sending' }
        $Line.Result
    }

    function Invoke-WithPatience([scriptblock] $Work) {
        # A virus scanner holds new files open for moments.
        for ($Try = 1; ; $Try++) {
            try {
                return & $Work
            } catch {
                $InUse = $_.Exception.GetBaseException().HResult -eq 0x80070020 -or "$_" -like '*0x80070020*'
                if (-not $InUse -or $Try -ge 30) { throw }
                Start-Sleep -Seconds 1
            }
        }
    }

    function Find-VM([string] $Name) {
        # -Name accepts wildcards and ignores case, and names are not unique. If there is none, the error is
        # InvalidParameter; another error may be that of another VM which is being deleted, so look once more.
        foreach ($Try in 1, 2) {
            $Look = @{ Name = [WildcardPattern]::Escape($Name); ErrorAction = 'SilentlyContinue' }
            $Found = @(Hyper-V\Get-VM -ComputerName (Get-ThisComputer) @Look -ErrorVariable Problems |
                Where-Object { $_.Name -ceq $Name })
            $Other = @($Problems | Where-Object { $_.FullyQualifiedErrorId -notlike 'InvalidParameter*' })
            if ($Found.Count -or -not $Other.Count) { return $Found }
        }
        throw $Other[0]
    }

    function Get-EveryVM {
        # Fails rather than leave one out; one that is being deleted meanwhile is gone the second time.
        try {
            $Every = @(Hyper-V\Get-VM -ComputerName (Get-ThisComputer))
        } catch {
            $Every = @(Hyper-V\Get-VM -ComputerName (Get-ThisComputer))
        }
        $Every
    }

    function Get-UsedFile($Vm) {
        @($Vm.ConfigurationLocation) + @($Vm.HardDrives.Path) + @($Vm.DVDDrives.Path) | Where-Object { $_ }
    }

    function Get-VMByName([string] $Name) {
        $Found = @(Find-VM $Name)
        if ($Found.Count -gt 1) { throw "there are $($Found.Count) VMs named $Name" }
        if ($Found.Count -eq 1) { $Found[0] }
    }

    function Get-ManagedVM($Data) {
        # The VM to change. The file `pending` exists only while vmproxy creates the VM.
        $Vm = Get-VMByName $Data.vm
        if ($null -eq $Vm) { throw "VM $($Data.vm) no longer exists" }
        if ("$($Vm.Notes)".Contains('[vmproxy]') -or (Test-OwnFile $Data.pending)) { return $Vm }
        throw "VM $($Data.vm) has no vmproxy marker in its Notes: vmproxy does not change it"
    }

    function Set-Marker($Vm, [string] $Block) {
        # Keep other text in the Notes.
        $Other = [regex]::Replace("$($Vm.Notes)", '(?s)\s*\[vmproxy\].*?\[/vmproxy\]\s*', "`r`n").Trim()
        $Notes = if ($Other) { "$Other`r`n$Block" } else { $Block }
        Hyper-V\Set-VM -VM $Vm -Notes $Notes
    }

    # Accounts of VMs, and the capability that their worker processes have from Server 2019 on: Hyper-V gives
    # them what a VM needs, and nobody else has them. The capability counts beside the process's account only.
    $OfVm = 'S-1-5-83-[\d-]+|' +
        'S-1-15-3-1024-2268835264-3721307629-241982045-173645152-1490879176-104643441-2915960892-1612460704'

    function Protect-Folder([string] $Path) {
        # Access for Administrators and SYSTEM only, because seeds hold private keys. Administrators own the
        # folder (or file) too: an owner can always change the rights. What Hyper-V gave to VMs stays.
        $Acl = Get-Acl -LiteralPath $Path
        $Inside = if (Test-Path -LiteralPath $Path -PathType Container) { 'OICI' }
        $OfVms = [regex]::Matches($Acl.Sddl, "\(A;[^;]*;[^;]*;;;(?:$OfVm)\)") |
            ForEach-Object { $_.Value -replace '^\(A;((?:OI|CI|NP|IO)*)ID;', '(A;$1;' }
        $Rights = "O:BAD:PAI(A;$Inside;FA;;;BA)(A;$Inside;FA;;;SY)" + ($OfVms -join '')
        $Acl.SetSecurityDescriptorSddlForm($Rights, 'Owner, Access')
        Set-Acl -LiteralPath $Path -AclObject $Acl
    }

    function Get-BaseDisk([string] $Path) {
        # While it is backed up, or has a checkpoint, a VM writes to a child of its disk, beside it.
        $Path -replace '(_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|-AutoRecovery)+\.avhdx$', '.vhdx'
    }

    function Get-ExposedItem([string] $Directory) {
        # What vmproxy keeps in its folder, and others have a right to, or own. Hyper-V's files have what it gives.
        $Closed = "\(A;[^;()]*;[^;()]*;;;(BA|SY|S-1-5-32-544|S-1-5-18|$OfVm)\)"
        $Ours = '^([0-9a-f]{64}\.(vhdx|sha256)|disk-[0-9a-f]+(_[0-9a-f-]{36})?\.a?vhdx|seed-[0-9a-f]+\.iso)$'
        $Root = (Get-Item -LiteralPath $Directory -Force).FullName.TrimEnd('\')
        foreach ($Item in Get-ChildItem -LiteralPath $Directory -Recurse -Force -ErrorAction SilentlyContinue) {
            $IsOurs = if ($Item.PSIsContainer) { (Split-Path $Item.FullName) -eq $Root } else { $Item.Name -match $Ours }
            if (-not $IsOurs) { continue }
            $Acl = Get-Acl -LiteralPath $Item.FullName -ErrorAction SilentlyContinue
            $Entries = ($Acl.Sddl -replace '^.*?D:', '') -replace $Closed, ''
            $IsClosed = $Acl -and $Entries -notmatch '\(|NO_ACCESS_CONTROL' -and (Test-TrustedAcl $Acl)
            # It may be gone meanwhile.
            if ($IsClosed -or -not (Test-Path -LiteralPath $Item.FullName)) { continue }
            [ordered]@{ path = [string]$Item.FullName; sddl = [string]$Acl.Sddl }
        }
    }

    function Test-TrustedOwner([string] $Path) { Test-TrustedAcl (Get-Acl -LiteralPath $Path) }

    function Test-TrustedAcl($Acl) {
        $Owner = $Acl.GetOwner([Security.Principal.SecurityIdentifier]).Value
        $Me = [Security.Principal.WindowsIdentity]::GetCurrent().User.Value
        'S-1-5-32-544', 'S-1-5-18', $Me -contains $Owner
    }

    function Test-OwnFile([string] $Path) {
        # Not one that another user put there.
        (Test-Path -LiteralPath $Path) -and (Test-TrustedOwner $Path)
    }

    function Test-Link($Item) {
        [bool]($Item.Attributes -band [IO.FileAttributes]::ReparsePoint)
    }

    function Remove-PlantedImage([string] $Images) {
        # Files with the names of images that another user put there while the folder's rights allowed it.
        if (-not (Test-Path -LiteralPath $Images)) { return }
        if ((Test-Link (Get-Item -LiteralPath $Images -Force)) -or -not (Test-TrustedOwner $Images)) {
            throw "the folder $Images was put there by $((Get-Acl -LiteralPath $Images).Owner): remove it"
        }
        foreach ($File in Get-ChildItem -LiteralPath $Images -File -Force) {
            if ($File.Name -notmatch '^[0-9a-f]{64}\.(vhdx|sha256|draft|part|curl)$') { continue }
            if ((Test-Link $File) -or -not (Test-TrustedOwner $File.FullName)) { Remove-PathWithRetry $File.FullName }
        }
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
            if ([string]$Vm.State -notin 'Off', 'Saved') { Stop-AtOnce $Vm }
            Hyper-V\Remove-VM -VM $Vm -Force
            # It is elsewhere if the VM was created with another hyperv.directory.
            if ([IO.Path]::GetFileName($Location) -eq $Data.vm) { Remove-UnusedFolder $Location }
        }
        Remove-UnusedFolder $Data.folder
    }

    function Remove-UnusedFolder([string] $Folder) {
        # A VM that was renamed and lost its marker is not recognized, but its files are still there.
        foreach ($Vm in Get-EveryVM) {
            foreach ($File in Get-UsedFile $Vm) {
                if ("$File\".StartsWith("$Folder\", 'OrdinalIgnoreCase')) {
                    throw "cannot remove the folder ${Folder}: VM $($Vm.Name) uses $File"
                }
            }
        }
        Remove-PathWithRetry $Folder
    }

    function Wait-StableState($Vm) {
        # A VM between two states accepts no command.
        $Between = 'Stopping', 'Saving', 'FastSaving', 'Pausing', 'Resuming', 'Reset', 'ForceShutdown'
        for ($Try = 1; $Try -le 60 -and [string]$Vm.State -in $Between; $Try++) {
            Start-Sleep -Seconds 1
            $Vm = Get-VMByName $Vm.Name
        }
        if ([string]$Vm.State -like '*Critical') {
            throw "VM $($Vm.Name) is in the state $($Vm.State): its storage cannot be reached"
        }
        $Vm
    }

    function Stop-AtOnce($Vm) {
        # A VM that hangs while it shuts down can refuse this once.
        for ($Try = 1; ; $Try++) {
            try {
                Hyper-V\Stop-VM -VM $Vm -TurnOff -Force
            } catch {
                if ($Try -ge 5) { throw }
            }
            $Seen = Get-VMByName $Vm.Name
            if ($null -eq $Seen -or [string]$Seen.State -in 'Off', 'OffCritical') { return }
            if ($Try -ge 15) { throw "VM $($Vm.Name) does not turn off: its state is $($Seen.State)" }
            Start-Sleep -Seconds 2
        }
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

    function Get-IPv4Address([string] $Store) {
        # Fails likewise.
        try {
            NetTCPIP\Get-NetIPAddress -AddressFamily IPv4 -PolicyStore $Store
        } catch {
            if ($_.FullyQualifiedErrorId -notlike 'CmdletizationQuery_NotFound*') { throw }
        }
    }

    function Get-OwnSwitch([string] $Name) {
        # The switch that vmproxy makes for the VM has the VM's name.
        @(Hyper-V\Get-VMSwitch -ComputerName (Get-ThisComputer) | Where-Object { $_.Name -ceq $Name })
    }

    function Get-SwitchInterface([string] $Switch) {
        # The index of the host's own interface on a switch of vmproxy's, found by its address: its name can be
        # changed. Nothing while it is being made. It can change: never cache it.
        $Port = @{ ManagementOS = $true; SwitchName = $Switch; ComputerName = (Get-ThisComputer) }
        $Macs = @(Hyper-V\Get-VMNetworkAdapter @Port | ForEach-Object { [string]$_.MacAddress })
        $Found = @(NetAdapter\Get-NetAdapter | Where-Object { $Macs -contains "$($_.MacAddress)".Replace('-', '') })
        if ($Found.Count) { [int]$Found[0].InterfaceIndex }
    }

    function Get-ManualAddress([int] $Interface, [string] $Store) {
        @(Get-IPv4Address $Store |
            Where-Object { $_.InterfaceIndex -eq $Interface -and [string]$_.PrefixOrigin -eq 'Manual' })
    }

    function Remove-ManualAddress([int] $Interface) {
        foreach ($Store in 'ActiveStore', 'PersistentStore') {
            foreach ($Old in Get-ManualAddress $Interface $Store) {
                $Which = @{ IPAddress = $Old.IPAddress; InterfaceIndex = $Interface; PolicyStore = $Store }
                try {
                    NetTCPIP\Remove-NetIPAddress @Which -Confirm:$false
                } catch {
                    # It may go with another one.
                    if ($_.FullyQualifiedErrorId -notlike 'CmdletizationQuery_NotFound*') { throw }
                }
            }
        }
    }

    function Remove-Mapping([string] $Nat) {
        foreach ($Old in @(NetNat\Get-NetNatStaticMapping | Where-Object { $_.NatName -ceq $Nat })) {
            NetNat\Remove-NetNatStaticMapping -NatName $Nat -StaticMappingID $Old.StaticMappingID -Confirm:$false
        }
    }

    function Remove-Nat([string] $Name) {
        if (@(NetNat\Get-NetNat | Where-Object { $_.Name -ceq $Name }).Count) {
            NetNat\Remove-NetNat -Name $Name -Confirm:$false
        }
    }

    function Find-EqualRoute($Route, [string] $Store) {
        $Via = if ($Route.via) { $Route.via } else { '0.0.0.0' }
        Get-IPv4Route $Store | Where-Object { $_.DestinationPrefix -eq $Route.prefix -and $_.NextHop -eq $Via }
    }

    function Remove-EqualRoute($Route, [string] $Store) {
        # By the object: the index of an interface that is gone finds nothing. Emits why one was not removed.
        foreach ($Found in @(Find-EqualRoute $Route $Store)) {
            try {
                $Found | NetTCPIP\Remove-NetRoute -Confirm:$false
            } catch {
                if (Test-Denied $_) { throw }
                $_.Exception.Message
            }
        }
    }

    function Find-Route([string] $Address) {
        # Find-NetRoute returns the source address first, then the route.
        NetTCPIP\Find-NetRoute -RemoteIPAddress $Address |
            Where-Object { $_.DestinationPrefix } | Select-Object -First 1
    }

    function Get-NextHop([string] $Address) {
        # Nothing where there is no route, or none is needed.
        try { $Next = (Find-Route $Address).NextHop } catch { return $null }
        if ($Next -and $Next -ne '0.0.0.0') { [string]$Next }
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
