# Give the lock back. A folder with nothing in it but the lock and empty folders goes, too.
param($Data, $Session)
. $Session.Lib
if ($Session.Lock) {
    $Session.Lock.Dispose()
    $Session.Lock = $null
    $Files = Get-ChildItem -LiteralPath $Data.directory -Recurse -Force -File
    $Left = @($Files | Where-Object { $_.FullName -ne $Data.lock })
    if ($Left.Count -eq 0) { Remove-Whole $Data.directory }
}
