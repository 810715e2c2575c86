# Remove the VM with its disk and seed.
param($Data, $Session)
. $Session.Lib
Remove-ManagedVM $Data
