# Start the VM, whatever state it is in.
param($Data, $Session)
. $Session.Lib
$Vm = Get-OurVM $Data
switch ([string]$Vm.State) {
    'Running' { }
    'Starting' { }
    'Paused' { Hyper-V\Resume-VM -VM $Vm }
    default { Hyper-V\Start-VM -VM $Vm }
}
