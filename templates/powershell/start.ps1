# Start the VM from any state.
param($Data, $Session)
. $Session.Lib
$Vm = Wait-StableState (Get-ManagedVM $Data)
switch ([string]$Vm.State) {
    'Running' { }
    'Starting' { }
    'Paused' { Hyper-V\Resume-VM -VM $Vm }
    default { Hyper-V\Start-VM -VM $Vm }
}
