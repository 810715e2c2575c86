# Shut the VM down through the guest; if that fails, turn it off.
param($Data, $Session)
. $Session.Lib
$Vm = Wait-StableState (Get-ManagedVM $Data)
switch ([string]$Vm.State) {
    'Off' { }
    'Saved' { Hyper-V\Remove-VMSavedState -VM $Vm }
    default {
        try { Hyper-V\Stop-VM -VM $Vm -Force }
        catch { Stop-AtOnce $Vm }
    }
}
