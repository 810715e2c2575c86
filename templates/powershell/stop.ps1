# Shut the VM down through the guest; if that fails, turn it off.
param($Data, $Session)
. $Session.Lib
$Vm = Get-ManagedVM $Data
switch ([string]$Vm.State) {
    'Off' { }
    'Saved' { Hyper-V\Remove-VMSavedState -VM $Vm }
    default {
        try { Hyper-V\Stop-VM -VM $Vm -Force }
        catch { Hyper-V\Stop-VM -VM $Vm -TurnOff -Force }
    }
}
