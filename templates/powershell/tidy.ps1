# Remove leftovers of earlier runs: partial downloads, images and disks that no VM uses, folders of deleted
# VMs. Emits whether the image `base` exists, the size of its partial download, and the free space.
param($Data, $Session)
. $Session.Lib
if (New-Folder $Data.directory) { Protect-Folder $Data.directory }
New-Folder $Data.images | Out-Null

function Get-ForeignFile($Folder) {
    # A file that neither vmproxy nor Hyper-V puts into the folder of a VM.
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
    $InUse = @($Used | Where-Object { "$_\".StartsWith($Inside, 'OrdinalIgnoreCase') })
    if ($InUse.Count -eq 0) {
        $IsOurs = $Folder.Name -like 'vmproxy-*' -and -not (Get-ForeignFile $Folder)
        if ($IsOurs) { Remove-PathWithRetry $Folder.FullName }
        continue
    }
    # A differencing disk needs its parent, which no VM lists.
    if (Get-ChildItem -LiteralPath $Folder.FullName -Filter '*.avhdx' -Recurse -Force) { continue }
    foreach ($File in Get-ChildItem -LiteralPath $Folder.FullName -File -Force) {
        $IsOurs = $File.Name -like 'disk-*.vhdx' -or $File.Name -like 'seed-*.iso'
        if ($IsOurs -and $Used -notcontains $File.FullName) { Remove-PathWithRetry $File.FullName }
    }
}
$Disks = @($Used | Where-Object { $_ } | ForEach-Object { [IO.Path]::GetFileName($_) })
foreach ($File in Get-ChildItem -LiteralPath $Data.images -File -Force) {
    if ($File.Name -notmatch '^[0-9a-f]{64}\.(vhdx|draft|part|curl)$') { continue }
    if ($Wanted -contains $File.FullName -or $Disks -contains "disk-$($File.Name)") { continue }
    Remove-PathWithRetry $File.FullName
}
$Part = if ($Data.part) { Get-Item -LiteralPath $Data.part -ErrorAction SilentlyContinue }
[ordered]@{
    base = [bool]($Data.base -and (Test-Path -LiteralPath $Data.base))
    part = if ($Part) { [long]$Part.Length } else { 0 }
    free = [long](Get-FreeSpace $Data.directory)
}
