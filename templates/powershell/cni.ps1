# The CNI configuration of the host's container network: one file in the container runtime's folder, known as
# vmproxy's by its two labels. `action`: observe emits one object; write and remove change only a file that is
# vmproxy's, or write one where there is none.
param($Data, $Session)
. $Session.Lib
$Part = "$($Data.path).part"  # no name that a runtime reads

function Get-Sha256([byte[]] $Bytes) {
    $Algorithm = [Security.Cryptography.SHA256]::Create()
    try {
        [BitConverter]::ToString($Algorithm.ComputeHash($Bytes)).Replace('-', '').ToLowerInvariant()
    } finally {
        $Algorithm.Dispose()
    }
}

function Test-OwnText([string] $Text) {
    # What is no JSON is not vmproxy's.
    try { $List = ConvertFrom-Json $Text } catch { return $false }
    if ($List -isnot [Management.Automation.PSCustomObject]) { return $false }
    foreach ($Label in $Data.labels.PSObject.Properties) {
        $Found = $List.PSObject.Properties[$Label.Name]
        if ($null -eq $Found -or $Found.Value -isnot [string] -or $Found.Value -cne $Label.Value) { return $false }
    }
    $true
}

function Get-FileFact {
    # None if there is nothing by that name.
    if (-not (Test-Path -LiteralPath $Data.path)) { return $null }
    $Item = Get-Item -LiteralPath $Data.path -Force
    if ($Item.PSIsContainer -or (Test-Link $Item)) { return [ordered]@{ sha256 = ''; ours = $false } }
    $Bytes = [IO.File]::ReadAllBytes($Data.path)
    $Text = (New-Object Text.UTF8Encoding $false).GetString($Bytes)
    [ordered]@{ sha256 = Get-Sha256 $Bytes; ours = Test-OwnText $Text }
}

function Get-OtherFile([string] $Folder) {
    # The runtime takes the first of them all, in alphabetical order.
    Get-ChildItem -LiteralPath $Folder -File -Force |
        Where-Object { $_.Extension -in '.conf', '.conflist', '.json' -and $_.FullName -ne $Data.path } |
        ForEach-Object { [string]$_.Name }
}

function Assert-NotForeign($Seen) {
    if ($Seen -and -not $Seen.ours) {
        throw "$($Data.path) is not vmproxy's: it does not have its labels. vmproxy does not change it"
    }
}

function Write-Configuration {
    Assert-NotForeign (Get-FileFact)
    $Bytes = (New-Object Text.UTF8Encoding $false).GetBytes($Data.content)
    try {
        [IO.File]::WriteAllBytes($Part, $Bytes)
        if (Test-Path -LiteralPath $Data.path) {
            Invoke-WithPatience { [IO.File]::Replace($Part, $Data.path, [NullString]::Value) }
        } else {
            Invoke-WithPatience { [IO.File]::Move($Part, $Data.path) }
        }
    } catch {
        Stop-WithFileError $Data.path $_
    } finally {
        Remove-PathWithRetry $Part
    }
    $Seen = Get-FileFact
    if ($null -eq $Seen -or $Seen.sha256 -ne (Get-Sha256 $Bytes)) {
        throw "$($Data.path) was written, but does not have the content that was written"
    }
}

$Folder = Split-Path $Data.path
$IsThere = Test-Path -LiteralPath $Folder -PathType Container
if ($Data.action -eq 'observe') {
    [ordered]@{
        folder = [bool]$IsThere
        file = Get-FileFact
        others = @(if ($IsThere) { Get-OtherFile $Folder })
    }
} elseif ($Data.action -eq 'write') {
    if (-not $IsThere) {
        throw "the folder $Folder does not exist: no container runtime reads CNI configurations there"
    }
    Write-Configuration
} elseif ($Data.action -eq 'remove') {
    Assert-NotForeign (Get-FileFact)
    Remove-PathWithRetry $Data.path
    Remove-PathWithRetry $Part
} else {
    throw "no such action: $($Data.action)"
}
