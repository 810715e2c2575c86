# Remove what is left of earlier runs: parts, images and disks that no VM uses, folders of VMs that are gone.
# Emits what stands ready for the image `base` and how much space is free.
param($Data, $Session)
. $Session.Lib
if (New-Folder $Data.directory) { Protect-Folder $Data.directory }
New-Folder $Data.images | Out-Null

function Get-Foreign($Folder) {
    # What neither vmproxy nor Hyper-V puts into the folder of a VM.
    Get-ChildItem -LiteralPath $Folder.FullName -Recurse -Force -File | Where-Object {
        $_.Name -notmatch '^(disk-[0-9a-f]+\.a?vhdx|seed-[0-9a-f]+\.iso|pending\.txt)$' -and
        $_.Extension -notin '.vmcx', '.vmrs', '.vmgs', '.bin', '.vsv', '.xml'
    } | Select-Object -First 1
}

$Used = @(foreach ($Vm in Hyper-V\Get-VM) {
    Hyper-V\Get-VMHardDiskDrive -VM $Vm | ForEach-Object { $_.Path }
    Hyper-V\Get-VMDvdDrive -VM $Vm | ForEach-Object { $_.Path }
    $Vm.ConfigurationLocation
})
$Wanted = @($Data.base, $Data.part | Where-Object { $_ })
foreach ($Folder in Get-ChildItem -LiteralPath $Data.directory -Directory -Force) {
    if ($Folder.FullName -eq $Data.images) { continue }
    $Inside = $Folder.FullName + '\'
    $Lives = @($Used | Where-Object { "$_\".StartsWith($Inside, 'OrdinalIgnoreCase') })
    if ($Lives.Count -eq 0) {
        if ($Folder.Name -like 'vmproxy-*' -and -not (Get-Foreign $Folder)) { Remove-Whole $Folder.FullName }
        continue
    }
    # A differencing disk needs the one below it, which no VM names.
    if (Get-ChildItem -LiteralPath $Folder.FullName -Filter '*.avhdx' -Recurse -Force) { continue }
    foreach ($File in Get-ChildItem -LiteralPath $Folder.FullName -File -Force) {
        $Made = $File.Name -like 'disk-*.vhdx' -or $File.Name -like 'seed-*.iso'
        if ($Made -and $Used -notcontains $File.FullName) { Remove-Whole $File.FullName }
    }
}
$Disks = @($Used | Where-Object { $_ } | ForEach-Object { [IO.Path]::GetFileName($_) })
foreach ($File in Get-ChildItem -LiteralPath $Data.images -File -Force) {
    if ($File.Name -notmatch '^[0-9a-f]{64}\.(vhdx|draft|part|curl)$') { continue }
    if ($Wanted -contains $File.FullName -or $Disks -contains "disk-$($File.Name)") { continue }
    Remove-Whole $File.FullName
}
$Part = if ($Data.part) { Get-Item -LiteralPath $Data.part -ErrorAction SilentlyContinue }
[ordered]@{
    base = [bool]($Data.base -and (Test-Path -LiteralPath $Data.base))
    part = if ($Part) { [long]$Part.Length } else { 0 }
    free = [long](Get-FreeSpace $Data.directory)
}
