# Take the lock of vmproxy's folder: a file that this process alone holds open, until it ends.
# Emits whether it has it. The file holds a byte when vmproxy made the folder. A folder with other things
# in it is refused: its rights are set, and what earlier runs left in it is removed.
param($Data, $Session)
. $Session.Lib
$Made = New-Folder $Data.directory
if ($Made) {
    Protect-Folder $Data.directory
} elseif (-not (Test-Path -LiteralPath $Data.lock) -and (Get-ChildItem -LiteralPath $Data.directory -Force)) {
    throw "the folder $($Data.directory) has things in it that are not vmproxy's: name one of its own" +
        ' (if it is vmproxy''s: put an empty file vmproxy.lock into it)'
}
try {
    $Session.Lock = New-Object IO.FileStream $Data.lock, 'OpenOrCreate', 'ReadWrite', 'None'
} catch {
    # Only a file that another process holds gives a plain IOException.
    if ($_.Exception.GetBaseException().GetType() -ne [IO.IOException]) { throw }
    @{ held = $false }
    return
}
if ($Made) { $Session.Lock.WriteByte(1); $Session.Lock.Flush() }
@{ held = $true }
