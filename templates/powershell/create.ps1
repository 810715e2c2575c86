# Create the VM from a full copy of the base image and the seed, replacing an earlier one.
# configure.ps1 applies its settings afterwards, before its first start. Emits {"send": "seed"} once, then reads
# the seed as one line of base64.
param($Data, $Session)
. $Session.Lib
$Mac = $Data.mac.Replace(':', '')
$Taken = @(Hyper-V\Get-VMNetworkAdapter -ComputerName (Get-ThisComputer) -All |
    Where-Object { $_.MacAddress -eq $Mac -and $_.VMName -cne $Data.vm })
if ($Taken.Count) {
    $Owner = if ($Taken[0].VMName) { $Taken[0].VMName } else { 'the host itself' }
    throw "the MAC address $($Data.mac) is already used by an adapter of $Owner"
}
$Known = [IO.File]::ReadAllText($Data.record).Trim()
if ((Get-FileHash -LiteralPath $Data.base -Algorithm SHA256).Hash -ne $Known) {
    Remove-PathWithRetry $Data.base
    throw "the base image $($Data.base) was changed after it was unpacked, and is now removed: run it again"
}

Remove-ManagedVM $Data
New-Folder $Data.folder | Out-Null
[IO.File]::WriteAllText($Data.pending, $Data.marker)
try {
    Invoke-WithPatience { [IO.File]::Copy($Data.base, $Data.disk, $true) }
} catch {
    Stop-WithFileError $Data.disk $_
}
$Attributes = [string][IO.File]::GetAttributes($Data.disk)
if ($Attributes -match 'SparseFile|Compressed|Encrypted') {
    throw "Hyper-V cannot use $($Data.disk): it is $Attributes (run compact /u or cipher /d on its folder)"
}
@{ send = 'seed' }
[IO.File]::WriteAllBytes($Data.seed, [Convert]::FromBase64String((Read-InputLine)))

$New = @{
    Name = $Data.vm
    Generation = 2
    MemoryStartupBytes = $Data.memory
    VHDPath = $Data.disk
    SwitchName = $Data.switch
    Path = $Data.directory
}
$Vm = Invoke-WithPatience { Hyper-V\New-VM -ComputerName (Get-ThisComputer) @New }
Set-Marker $Vm $Data.marker
Remove-Item -LiteralPath $Data.pending -Force
Hyper-V\Add-VMDvdDrive -VM $Vm -ControllerNumber 0 -ControllerLocation 1 -Path $Data.seed
