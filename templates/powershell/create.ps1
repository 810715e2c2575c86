# Create the VM from a full copy of the base image and the seed, replacing an earlier one.
# configure.ps1 applies its settings afterwards, before its first start.
param($Data, $Session)
. $Session.Lib
$Mac = $Data.mac.Replace(':', '')
$Taken = @(Hyper-V\Get-VMNetworkAdapter -All |
    Where-Object { $_.MacAddress -eq $Mac -and $_.VMName -cne $Data.vm })
if ($Taken.Count) { throw "the MAC address $($Data.mac) is already used by an adapter of $($Taken[0].VMName)" }

Remove-ManagedVM $Data
New-Folder $Data.folder | Out-Null
[IO.File]::WriteAllText($Data.pending, $Data.marker)
try { [IO.File]::Copy($Data.base, $Data.disk) } catch { Stop-WithFileError $Data.disk $_ }
$Attributes = [string][IO.File]::GetAttributes($Data.disk)
if ($Attributes -match 'SparseFile|Compressed|Encrypted') {
    throw "Hyper-V cannot use $($Data.disk): it is $Attributes (run compact /u or cipher /d on its folder)"
}
$Packed = New-Object IO.MemoryStream (, [Convert]::FromBase64String($Data.seedData))
$Decompressor = New-Object IO.Compression.GZipStream $Packed, ([IO.Compression.CompressionMode]::Decompress)
$Seed = [IO.File]::Create($Data.seed)
try { $Decompressor.CopyTo($Seed) } finally { $Seed.Dispose() }

$New = @{
    Name = $Data.vm
    Generation = 2
    MemoryStartupBytes = $Data.memory
    VHDPath = $Data.disk
    SwitchName = $Data.switch
    Path = $Data.directory
}
$Vm = Hyper-V\New-VM @New
Set-Marker $Vm $Data.marker
Remove-Item -LiteralPath $Data.pending -Force
Hyper-V\Add-VMDvdDrive -VM $Vm -ControllerNumber 0 -ControllerLocation 1 -Path $Data.seed
