# Check what was brought and make the base image of it: a VHDX, or a gzip'd one. The base has its name only
# when it is whole. Emits now and then how far it is.
param($Data, $Session)
. $Session.Lib

function Test-Start([string] $Path, [byte[]] $Expected) {
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
    $Unpacking = New-Object IO.Compression.GZipStream $Packed, ([IO.Compression.CompressionMode]::Decompress)
    $Draft = [IO.File]::Create($Data.draft)
    try {
        $Buffer = New-Object byte[] 1048576
        $Next = 128MB
        while ($Count = $Unpacking.Read($Buffer, 0, $Buffer.Length)) {
            $Draft.Write($Buffer, 0, $Count)
            if ($Draft.Position -ge $Next) {
                @{ unpacked = [long]$Draft.Position }
                $Next = $Draft.Position + 128MB
            }
        }
    } finally {
        $Draft.Dispose()
        $Unpacking.Dispose()
    }
}

$Seen = (Get-FileHash -LiteralPath $Data.part -Algorithm SHA256).Hash.ToLowerInvariant()
if ($Seen -cne $Data.sha256) {
    Remove-Whole $Data.part
    throw "the image that was brought has the SHA-256 $Seen, expected $($Data.sha256)"
}
if (Test-Start $Data.part (0x1f, 0x8b)) {
    try { Expand-Part } catch { Exit-FullDisk $Data.draft $_ }
    Remove-Whole $Data.part
} else {
    [IO.File]::Move($Data.part, $Data.draft)
}
if (-not (Test-Start $Data.draft ([Text.Encoding]::ASCII.GetBytes('vhdxfile')))) {
    Remove-Whole $Data.draft
    throw 'the image that was brought is not a VHDX'
}
[IO.File]::Move($Data.draft, $Data.base)
