# Write the marker into the VM's Notes.
param($Data, $Session)
. $Session.Lib
Set-Marker (Get-ManagedVM $Data) $Data.marker
