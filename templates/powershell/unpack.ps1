# Verify the transferred file, a VHDX or a gzip-compressed one, and create the base image from it. The base
# gets its final name only when it is complete, and its SHA-256 is kept beside it: create.ps1 checks it.
# Emits its progress.
param($Data, $Session)
. $Session.Lib

function Test-FileHeader([string] $Path, [byte[]] $Expected) {
    $File = [IO.File]::OpenRead($Path)
    try {
        $Seen = New-Object byte[] $Expected.Length
        $Count = $File.Read($Seen, 0, $Seen.Length)
        $Count -eq $Seen.Length -and [BitConverter]::ToString($Seen) -eq [BitConverter]::ToString($Expected)
    } finally {
        $File.Dispose()
    }
}

function Expand-Part {
    $Packed = [IO.File]::OpenRead($Data.part)
    $Decompressor = New-Object IO.Compression.GZipStream $Packed, ([IO.Compression.CompressionMode]::Decompress)
    $Draft = [IO.File]::Create($Data.draft)
    try {
        $Buffer = New-Object byte[] 1048576
        $Next = 128MB
        while ($Count = $Decompressor.Read($Buffer, 0, $Buffer.Length)) {
            $Draft.Write($Buffer, 0, $Count)
            if ($Draft.Position -ge $Next) {
                @{ unpacked = [long]$Draft.Position }
                $Next = $Draft.Position + 128MB
            }
        }
        # The last four bytes tell the length: .NET Framework stops at the end of the first of several members.
        $Tail = New-Object byte[] 4
        $Packed.Seek(-4, [IO.SeekOrigin]::End) | Out-Null
        $Packed.Read($Tail, 0, 4) | Out-Null
        $IsWhole = $Draft.Position % 4GB -eq [BitConverter]::ToUInt32($Tail, 0)
    } finally {
        $Draft.Dispose()
        $Decompressor.Dispose()
    }
    if (-not $IsWhole) {
        Remove-PathWithRetry $Data.draft
        throw 'the transferred image is a gzip file of several members: pack it again with gzip'
    }
}

$Seen = (Get-FileHash -LiteralPath $Data.part -Algorithm SHA256).Hash.ToLowerInvariant()
if ($Seen -cne $Data.sha256) {
    Remove-PathWithRetry $Data.part
    throw "the transferred image has the SHA-256 $Seen, expected $($Data.sha256)"
}
if (Test-FileHeader $Data.part (0x1f, 0x8b)) {
    try { Expand-Part } catch { Stop-WithFileError $Data.draft $_ }
    Remove-PathWithRetry $Data.part
} else {
    Invoke-WithPatience { [IO.File]::Move($Data.part, $Data.draft) }
}
if (-not (Test-FileHeader $Data.draft ([Text.Encoding]::ASCII.GetBytes('vhdxfile')))) {
    Remove-PathWithRetry $Data.draft
    throw 'the transferred image is not a VHDX'
}
Remove-PathWithRetry $Data.base
[IO.File]::WriteAllText($Data.record, (Get-FileHash -LiteralPath $Data.draft -Algorithm SHA256).Hash)
Invoke-WithPatience { [IO.File]::Move($Data.draft, $Data.base) }
