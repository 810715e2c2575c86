# Give the lock back. When nothing is left but the lock and empty folders, these go, and so does vmproxy's
# folder when vmproxy made it.
param($Data, $Session)
. $Session.Lib
if ($Session.Lock) {
    $Made = $Session.Lock.Length -gt 0
    $Session.Lock.Dispose()
    $Session.Lock = $null
    $Files = Get-ChildItem -LiteralPath $Data.directory -Recurse -Force -File
    $Left = @($Files | Where-Object { $_.FullName -ne $Data.lock })
    if ($Left.Count -eq 0) {
        if ($Made) {
            Remove-Whole $Data.directory
        } else {
            Get-ChildItem -LiteralPath $Data.directory -Force | ForEach-Object { Remove-Whole $_.FullName }
        }
    }
}
