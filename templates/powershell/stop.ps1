# Shut the VM down through the guest; when that fails, switch it off.
param($Data, $Session)
. $Session.Lib
$Vm = Get-OurVM $Data
switch ([string]$Vm.State) {
    'Off' { }
    'Saved' { Hyper-V\Remove-VMSavedState -VM $Vm }
    default {
        try { Hyper-V\Stop-VM -VM $Vm -Force }
        catch { Hyper-V\Stop-VM -VM $Vm -TurnOff -Force }
    }
}
