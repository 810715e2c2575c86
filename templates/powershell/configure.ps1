# Apply the wanted VM settings: those that can change at any time, and with `cold` also those that need
# the VM off.
param($Data, $Session)
. $Session.Lib
$Vm = Get-ManagedVM $Data
$Wanted = $Data.settings

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

Protect-Folder $Data.directory
$Actions = @{
    AutomaticStartAction = $Wanted.start
    AutomaticStartDelay = $Wanted.startDelay
    CheckpointType = $Wanted.checkpoints
}
if ((Get-Command Hyper-V\Set-VM).Parameters.ContainsKey('AutomaticCheckpointsEnabled')) {
    # Server 2016 lacks it.
    $Actions.AutomaticCheckpointsEnabled = [bool]$Wanted.automaticCheckpoints
}
# Only what differs: a Windows build may accept one of them only while the VM is off.
foreach ($Name in @($Actions.Keys)) {
    if ("$($Vm.$Name)" -eq "$($Actions[$Name])") { $Actions.Remove($Name) }
}
if ($Actions.Count) { Hyper-V\Set-VM -VM $Vm @Actions }
Set-IntegrationService '2497F4DE-E9FA-4204-80E4-4B75C46419C0' $Wanted.timeSync
Set-IntegrationService '9F8233AC-BE49-4C79-8EE3-E7E1985B2077' $Wanted.guestShutdown

$Adapters = @(Hyper-V\Get-VMNetworkAdapter -VM $Vm)
if ($Adapters.Count -eq 0) {
    $Adapters = @(Hyper-V\Add-VMNetworkAdapter -VM $Vm -SwitchName $Wanted.switch -Passthru)
}
$Adapter = $Adapters[0]
if ($Adapter.SwitchName -cne $Wanted.switch) {
    Hyper-V\Connect-VMNetworkAdapter -VMNetworkAdapter $Adapter -SwitchName $Wanted.switch
}
$Spoofing = if ($Wanted.macSpoofing) { 'On' } else { 'Off' }
Hyper-V\Set-VMNetworkAdapter -VMNetworkAdapter $Adapter -MacAddressSpoofing $Spoofing
if ($Wanted.vlan) {
    Hyper-V\Set-VMNetworkAdapterVlan -VMNetworkAdapter $Adapter -Access -VlanId $Wanted.vlan
} else {
    Hyper-V\Set-VMNetworkAdapterVlan -VMNetworkAdapter $Adapter -Untagged
}

if ($Data.cold) {
    $Size = @{ MemoryStartupBytes = $Wanted.memory; ProcessorCount = $Wanted.cpus }
    Hyper-V\Set-VM -VM $Vm -StaticMemory @Size -AutomaticStopAction $Wanted.stop
    Hyper-V\Set-VMNetworkAdapter -VMNetworkAdapter $Adapter -StaticMacAddress $Wanted.mac.Replace(':', '')
    $Disk = @(Hyper-V\Get-VMHardDiskDrive -VM $Vm)[0]
    $Firmware = @{ EnableSecureBoot = 'On'; SecureBootTemplateId = $Wanted.secureBoot }
    Hyper-V\Set-VMFirmware -VM $Vm @Firmware -FirstBootDevice $Disk
    Hyper-V\Set-VMComPort -VM $Vm -Number 1 -Path $Wanted.com1
}
