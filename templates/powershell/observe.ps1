# Observes the host and its VM; changes nothing. Emits one object.
param($Data, $Session)
. $Session.Lib

function Get-HostFact {
    $System = CimCmdlets\Get-CimInstance -ClassName Win32_OperatingSystem
    $VMHost = Hyper-V\Get-VMHost -ComputerName (Get-ThisComputer)
    [ordered]@{
        freeMemory = [long]$System.FreePhysicalMemory * 1KB
        freeDisk = [long](Get-FreeSpace $Data.directory)
        macMinimum = [string]$VMHost.MacAddressMinimum
        macMaximum = [string]$VMHost.MacAddressMaximum
    }
}

function Get-AdapterFact($Adapter) {
    $Vlan = Hyper-V\Get-VMNetworkAdapterVlan -VMNetworkAdapter $Adapter
    [ordered]@{
        mac = [string]$Adapter.MacAddress
        dynamicMac = [bool]$Adapter.DynamicMacAddressEnabled
        switch = [string]$Adapter.SwitchName
        spoofing = [string]$Adapter.MacAddressSpoofing
        iovWeight = [int]$Adapter.IovWeight
        vlanMode = [string]$Vlan.OperationMode
        vlan = [int]$Vlan.AccessVlanId
    }
}

function Get-FirmwareFact($Vm) {
    if ($Vm.Generation -ne 2) { return $null }
    $Firmware = Hyper-V\Get-VMFirmware -VM $Vm
    # Entries for files are what the guest's own boot loader has added.
    $First = @($Firmware.BootOrder | Where-Object { [string]$_.BootType -ne 'File' })[0]
    $OnDrive = [string]$First.BootType -eq 'Drive'
    [ordered]@{
        secureBoot = [string]$Firmware.SecureBoot
        template = [string]$Firmware.SecureBootTemplateId
        firstBoot = if ($OnDrive) { Get-BaseDisk $First.Device.Path } else { [string]$First.BootType }
    }
}

function Get-DriveFact($Drives) {
    foreach ($Drive in $Drives) {
        # One on a file share may be none of ours to see.
        $Exists = $Drive.Path -and (Test-Path -LiteralPath $Drive.Path -ErrorAction SilentlyContinue)
        [ordered]@{ path = Get-BaseDisk $Drive.Path; exists = [bool]$Exists }
    }
}

function Get-VMFact($Vm) {
    $Automatic = $Vm.PSObject.Properties['AutomaticCheckpointsEnabled']
    [ordered]@{
        state = [string]$Vm.State
        generation = [int]$Vm.Generation
        cpus = [long]$Vm.ProcessorCount
        memory = [long]$Vm.MemoryStartup
        dynamicMemory = [bool]$Vm.DynamicMemoryEnabled
        start = [string]$Vm.AutomaticStartAction
        startDelay = [int]$Vm.AutomaticStartDelay
        stop = [string]$Vm.AutomaticStopAction
        checkpoints = [string]$Vm.CheckpointType
        automaticCheckpoints = if ($Automatic) { [bool]$Automatic.Value } else { $false }
        notes = [string]$Vm.Notes
        path = [string]$Vm.ConfigurationLocation
        firmware = Get-FirmwareFact $Vm
        com1 = [string](Hyper-V\Get-VMComPort -VM $Vm -Number 1).Path
        disks = @(Get-DriveFact @(Hyper-V\Get-VMHardDiskDrive -VM $Vm))
        dvds = @(Get-DriveFact @(Hyper-V\Get-VMDvdDrive -VM $Vm))
        adapters = @(Hyper-V\Get-VMNetworkAdapter -VM $Vm | ForEach-Object { Get-AdapterFact $_ })
        services = @(Hyper-V\Get-VMIntegrationService -VM $Vm | ForEach-Object {
            [ordered]@{ id = [string]$_.Id; enabled = [bool]$_.Enabled }
        })
    }
}

function Get-FolderFact([string] $Path) {
    if (-not (Test-Path -LiteralPath $Path)) { return $null }
    # Hyper-V may delete a file meanwhile.
    $Look = @{ LiteralPath = $Path; Recurse = $true; Force = $true; File = $true; ErrorAction = 'SilentlyContinue' }
    $Files = @(Get-ChildItem @Look | ForEach-Object { $_.FullName })
    [ordered]@{
        sddl = [string](Get-Acl -LiteralPath $Path).Sddl
        files = $Files
        exposed = @(Get-ExposedItem $Path)
    }
}

function Get-InterfaceFact([int] $Index) {
    $Interface = NetTCPIP\Get-NetIPInterface -InterfaceIndex $Index -AddressFamily IPv4
    [ordered]@{
        addresses = @(foreach ($Store in 'ActiveStore', 'PersistentStore') {
            Get-ManualAddress $Index $Store | ForEach-Object {
                [ordered]@{ store = $Store; address = [string]$_.IPAddress; length = [int]$_.PrefixLength }
            }
        })
        metric = [int]$Interface.InterfaceMetric
        forwarding = [string]$Interface.Forwarding
        registers = [bool](DnsClient\Get-DnsClient -InterfaceIndex $Index).RegisterThisConnectionsAddress
    }
}

function Get-MappingFact {
    NetNat\Get-NetNatStaticMapping | Where-Object { $_.NatName -ceq $Data.vm } | ForEach-Object {
        [ordered]@{
            protocol = [string]$_.Protocol
            external = [string]$_.ExternalIPAddress
            externalPort = [int]$_.ExternalPort
            remote = [string]$_.RemoteExternalIPAddressPrefix
            internal = [string]$_.InternalIPAddress
            internalPort = [int]$_.InternalPort
        }
    }
}

function Get-OwnSwitchFact($Switches) {
    # Of the switch that has the VM's name, and of the host's NAT networks: Windows allows one.
    if (-not $Data.wantsOwn -and -not $Switches.Count) { return $null }
    $Index = if ($Switches.Count) { Get-SwitchInterface $Data.vm }
    [ordered]@{
        switches = @($Switches | ForEach-Object {
            [ordered]@{ notes = [string]$_.Notes; type = [string]$_.SwitchType }
        })
        interface = if ($Index) { Get-InterfaceFact $Index } else { $null }
        nats = @(NetNat\Get-NetNat | ForEach-Object {
            [ordered]@{ name = [string]$_.Name; prefix = [string]$_.InternalIPInterfaceAddressPrefix }
        })
        mappings = @(Get-MappingFact)
        hostAddresses = @(Get-IPv4Address 'ActiveStore' | ForEach-Object {
            [ordered]@{ address = [string]$_.IPAddress; length = [int]$_.PrefixLength }
        })
    }
}

$Facts = Get-HostFact
# Another VM may be in the middle of its removal, or its storage may be away.
$All = @(Hyper-V\Get-VM -ComputerName (Get-ThisComputer) -ErrorAction SilentlyContinue)
$Pending = if (Test-OwnFile $Data.pending) { [IO.File]::ReadAllText($Data.pending) } else { $null }
$Switches = @(Hyper-V\Get-VMSwitch -ComputerName (Get-ThisComputer))
[ordered]@{
    host = $Facts
    vms = @(Find-VM $Data.vm | ForEach-Object { Get-VMFact $_ })
    marked = @($All | Where-Object { "$($_.Notes)".Contains('[vmproxy]') } | ForEach-Object {
        [ordered]@{ name = [string]$_.Name; notes = [string]$_.Notes }
    })
    pending = $Pending
    nearSwitches = @($Switches | Where-Object { $_.Name -cne $Data.switch } | ForEach-Object { [string]$_.Name })
    switches = @($Switches | Where-Object { $_.Name -ceq $Data.switch } | ForEach-Object {
        [ordered]@{
            id = [string]$_.Id
            type = [string]$_.SwitchType
            managementOS = [bool]$_.AllowManagementOS
        }
    })
    own = Get-OwnSwitchFact @($Switches | Where-Object { $_.Name -ceq $Data.vm })
    folder = Get-FolderFact $Data.directory
}
