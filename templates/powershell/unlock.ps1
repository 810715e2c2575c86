# Release the lock. If only the lock file and empty folders are left, remove them, and also vmproxy's folder
# if vmproxy created it.
param($Data, $Session)
. $Session.Lib
if ($Session.Lock) {
    $Created = $Session.Lock.Length -gt 0
    $Session.Lock.Dispose()
    $Session.Lock = $null
    $Files = Get-ChildItem -LiteralPath $Data.directory -Recurse -Force -File
    $Left = @($Files | Where-Object { $_.FullName -ne $Data.lock })
    if ($Left.Count -eq 0) {
        if ($Created) {
            Set-FolderUnfinished $Data.unfinished
            Remove-PathWithRetry $Data.directory
            Remove-PathWithRetry $Data.unfinished
        } else {
            Get-ChildItem -LiteralPath $Data.directory -Force | ForEach-Object { Remove-PathWithRetry $_.FullName }
        }
    }
}
