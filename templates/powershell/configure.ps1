# Apply VM settings: those in `settings`, which differ or belong to a new VM. hosts/hyperv/settings.py declares
# them, and which of them need the VM off. `own`: by what the VM's own adapter, disk and seed are known.
param($Data, $Session)
. $Session.Lib
$Vm = Get-ManagedVM $Data
$Wanted = @{}
foreach ($Property in $Data.settings.PSObject.Properties) { $Wanted[$Property.Name] = $Property.Value }

function Set-IntegrationService([string] $Id, [bool] $On) {
    # By id, because names are localized.
    foreach ($Service in Hyper-V\Get-VMIntegrationService -VM $Vm) {
        if ("$($Service.Id)" -notlike "*$Id") { continue }
        if ($On) {
            Hyper-V\Enable-VMIntegrationService -VMIntegrationService $Service
        } else {
            Hyper-V\Disable-VMIntegrationService -VMIntegrationService $Service
        }
    }
}

function Get-AdapterInOrder {
    # The VM's own adapter has its address, or at least a static one. hosts/hyperv/seen.py knows it likewise.
    $All = @(Hyper-V\Get-VMNetworkAdapter -VM $Vm)
    $Mac = $Data.own.mac.Replace(':', '')
    $All | Where-Object { $_.MacAddress -eq $Mac }
    $All | Where-Object { $_.MacAddress -ne $Mac -and -not $_.DynamicMacAddressEnabled }
    $All | Where-Object { $_.MacAddress -ne $Mac -and $_.DynamicMacAddressEnabled }
}

function Get-Adapter {
    $Adapters = @(Get-AdapterInOrder)
    if ($Adapters.Count) { return $Adapters[0] }
    Hyper-V\Add-VMNetworkAdapter -VM $Vm -SwitchName $Wanted.switch -Passthru
}

$Changed = "a drive of VM $($Data.vm) was changed meanwhile: run it again"

function Test-OwnDrive($Drive, [string] $Path) {
    (Get-BaseDisk $Drive.Path).Replace('/', '\') -eq $Path
}

function Get-OtherDrive($Drives, [string] $Path) {
    # None where the VM's own is not among them: it must be there under another name.
    $Others = @($Drives | Where-Object { -not (Test-OwnDrive $_ $Path) })
    if ($Others.Count -eq @($Drives).Count) { throw $Changed }
    $Others
}

if ($Wanted.ContainsKey('folderAccess')) {
    Protect-Folder $Data.directory
    foreach ($Item in @(Get-ExposedItem $Data.directory)) { Protect-Folder $Item.path }
}

# Drives are taken from the VM, their files stay. Those of a generation 2 VM come and go while it runs, as do its
# adapters; those of a saved one do not, and there is nothing in it that is worth keeping.
$OfDevices = 'otherDisks', 'otherDvdDrives', 'otherAdapters' | Where-Object { $Wanted.ContainsKey($_) }
if ($OfDevices -and [string]$Vm.State -eq 'Saved') { Hyper-V\Remove-VMSavedState -VM $Vm }
if ($Wanted.ContainsKey('otherDisks')) {
    Get-OtherDrive @(Hyper-V\Get-VMHardDiskDrive -VM $Vm) $Data.own.disk |
        ForEach-Object { Hyper-V\Remove-VMHardDiskDrive -VMHardDiskDrive $_ }
}
if ($Wanted.ContainsKey('otherDvdDrives')) {
    Get-OtherDrive @(Hyper-V\Get-VMDvdDrive -VM $Vm) $Data.own.seed |
        ForEach-Object { Hyper-V\Remove-VMDvdDrive -VMDvdDrive $_ }
}
if ($Wanted.ContainsKey('otherAdapters')) {
    Get-AdapterInOrder | Select-Object -Skip 1 |
        ForEach-Object { Hyper-V\Remove-VMNetworkAdapter -VMNetworkAdapter $_ }
}

$OfVm = @{}
if ($Wanted.ContainsKey('cpus')) { $OfVm.ProcessorCount = $Wanted.cpus }
if ($Wanted.ContainsKey('memory')) { $OfVm.MemoryStartupBytes = $Wanted.memory }
if ($Wanted.ContainsKey('dynamicMemory')) { $OfVm.StaticMemory = $true }
if ($Wanted.ContainsKey('start')) { $OfVm.AutomaticStartAction = $Wanted.start }
if ($Wanted.ContainsKey('startDelay')) { $OfVm.AutomaticStartDelay = $Wanted.startDelay }
if ($Wanted.ContainsKey('stop')) { $OfVm.AutomaticStopAction = $Wanted.stop }
if ($Wanted.ContainsKey('checkpoints')) { $OfVm.CheckpointType = $Wanted.checkpoints }
if ((Get-Command Hyper-V\Set-VM).Parameters.ContainsKey('AutomaticCheckpointsEnabled')) {
    # Server 2016 lacks it.
    if ($Wanted.ContainsKey('automaticCheckpoints')) {
        $OfVm.AutomaticCheckpointsEnabled = $Wanted.automaticCheckpoints
    }
}
if ($OfVm.Count) { Hyper-V\Set-VM -VM $Vm @OfVm }

if ($Wanted.ContainsKey('timeSync')) {
    Set-IntegrationService '2497F4DE-E9FA-4204-80E4-4B75C46419C0' $Wanted.timeSync
}
if ($Wanted.ContainsKey('guestShutdown')) {
    Set-IntegrationService '9F8233AC-BE49-4C79-8EE3-E7E1985B2077' $Wanted.guestShutdown
}

if ($Wanted.ContainsKey('switch')) {
    $Adapter = Get-Adapter
    if ($Adapter.SwitchName -cne $Wanted.switch) {
        Hyper-V\Connect-VMNetworkAdapter -VMNetworkAdapter $Adapter -SwitchName $Wanted.switch
    }
}
if ($Wanted.ContainsKey('macSpoofing')) {
    $Spoofing = if ($Wanted.macSpoofing) { 'On' } else { 'Off' }
    if ([string](Get-Adapter).MacAddressSpoofing -ne $Spoofing) {
        Hyper-V\Set-VMNetworkAdapter -VMNetworkAdapter (Get-Adapter) -MacAddressSpoofing $Spoofing
    }
}
if ($Wanted.ContainsKey('mac')) {
    Hyper-V\Set-VMNetworkAdapter -VMNetworkAdapter (Get-Adapter) -StaticMacAddress $Wanted.mac.Replace(':', '')
}
if ($Wanted.ContainsKey('sriov')) {
    $Weight = if ($Wanted.sriov) { 100 } else { 0 }
    if ((Get-Adapter).IovWeight -ne $Weight) {
        Hyper-V\Set-VMNetworkAdapter -VMNetworkAdapter (Get-Adapter) -IovWeight $Weight
    }
}
if ($Wanted.ContainsKey('vlan')) {
    # A port that a profile locks refuses this even if nothing changes.
    $Vlan = Hyper-V\Get-VMNetworkAdapterVlan -VMNetworkAdapter (Get-Adapter)
    if ($Wanted.vlan) {
        Hyper-V\Set-VMNetworkAdapterVlan -VMNetworkAdapter (Get-Adapter) -Access -VlanId $Wanted.vlan
    } elseif ([string]$Vlan.OperationMode -ne 'Untagged') {
        Hyper-V\Set-VMNetworkAdapterVlan -VMNetworkAdapter (Get-Adapter) -Untagged
    }
}

if ($Wanted.ContainsKey('secureBoot')) {
    Hyper-V\Set-VMFirmware -VM $Vm -EnableSecureBoot On -SecureBootTemplateId $Wanted.secureBoot
}
if ($Wanted.ContainsKey('firstBoot')) {
    $Disk = @(Hyper-V\Get-VMHardDiskDrive -VM $Vm | Where-Object { Test-OwnDrive $_ $Data.own.disk })[0]
    if ($null -eq $Disk) { throw $Changed }
    Hyper-V\Set-VMFirmware -VM $Vm -FirstBootDevice $Disk
}
if ($Wanted.ContainsKey('com1')) { Hyper-V\Set-VMComPort -VM $Vm -Number 1 -Path $Wanted.com1 }
