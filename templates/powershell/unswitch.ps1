# Remove the VM's own switch, with its NAT network and the host's address on it. What is gone already is fine.
param($Data, $Session)
. $Session.Lib
$Switches = @(Get-OwnSwitch $Data.vm)
foreach ($Switch in $Switches) {
    if ("$($Switch.Notes)" -split '\s+' -cnotcontains $Data.mark) {
        throw "switch $($Data.vm) has no $($Data.mark) in its Notes: vmproxy does not remove it"
    }
}
$Others = @(Get-EveryVM | Where-Object { @($_.NetworkAdapters.SwitchName) -ccontains $Data.vm } |
    ForEach-Object { [string]$_.Name })
if ($Switches.Count -and $Others.Count) {
    throw "switch $($Data.vm) is used by other VMs, connect them to another one: $($Others -join ', ')"
}
Remove-Mapping $Data.vm
Remove-Nat $Data.vm
$Index = if ($Switches.Count) { Get-SwitchInterface $Data.vm }
if ($Index) { Remove-ManualAddress $Index }  # what lasts would be left of it
foreach ($Switch in $Switches) { Hyper-V\Remove-VMSwitch -VMSwitch $Switch -Force }
