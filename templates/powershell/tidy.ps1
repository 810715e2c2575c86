# Remove leftovers of earlier runs: partial downloads, images and disks that no VM uses, folders of deleted
# VMs. Emits whether the image `base` exists, the size of its partial download, and the free space.
param($Data, $Session)
. $Session.Lib
if (New-Folder $Data.directory) { Protect-Folder $Data.directory }
$HyperV = '.vmcx', '.vmrs', '.vmgs', '.bin', '.vsv', '.xml', '.rct', '.mrt'
New-Folder $Data.images | Out-Null

function Get-ForeignFile($Folder) {
    # A file that neither vmproxy nor Hyper-V puts into the folder of a VM.
    Get-ChildItem -LiteralPath $Folder.FullName -Recurse -Force -File | Where-Object {
        $_.Name -notmatch '^(disk-[0-9a-f]+(_[0-9a-f-]{36}|-AutoRecovery)*\.a?vhdx|seed-[0-9a-f]+\.iso|pending\.txt)$' -and
        $_.Extension -notin $HyperV
    } | Select-Object -First 1
}

function Test-Registered($Folder) {
    # A VM's configuration that this host's Hyper-V does not list may be another node's of a cluster.
    $Files = Get-ChildItem -LiteralPath $Folder.FullName -Recurse -Force -File -Filter '*.vmcx'
    $Folder.FullName -ne $Data.folder -and [bool]$Files
}

$Used = @(foreach ($Vm in Get-EveryVM) { Get-UsedFile $Vm })
$Wanted = @($Data.base, $Data.part | Where-Object { $_ })
foreach ($Folder in Get-ChildItem -LiteralPath $Data.directory -Directory -Force) {
    if ($Folder.FullName -eq $Data.images) { continue }
    $Inside = $Folder.FullName + '\'
    $InUse = @($Used | Where-Object { "$_\".StartsWith($Inside, 'OrdinalIgnoreCase') })
    if ($InUse.Count -eq 0) {
        $IsOurs = $Folder.Name -like 'vmproxy-*' -and -not (Test-Registered $Folder) -and
            -not (Get-ForeignFile $Folder)
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
$Disks = @($Used | Where-Object { $_ } | ForEach-Object { [IO.Path]::GetFileName((Get-BaseDisk $_)) })
foreach ($File in Get-ChildItem -LiteralPath $Data.images -File -Force) {
    if ($File.Name -notmatch '^[0-9a-f]{64}\.(vhdx|sha256|draft|part|curl)$') { continue }
    $Base = $File.FullName -replace '\.sha256$', '.vhdx'
    if ($Wanted -contains $Base -or $Disks -contains "disk-$([IO.Path]::GetFileName($Base))") { continue }
    Remove-PathWithRetry $File.FullName
}
$Part = if ($Data.part) { Get-Item -LiteralPath $Data.part -ErrorAction SilentlyContinue }
[ordered]@{
    base = [bool]($Data.base -and (Test-Path -LiteralPath $Data.base))
    part = if ($Part) { [long]$Part.Length } else { 0 }
    free = [long](Get-FreeSpace $Data.directory)
}
