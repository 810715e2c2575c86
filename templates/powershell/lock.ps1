# Take the lock of vmproxy's folder: a file that this process alone holds open, until it ends.
# Emits whether it has it.
param($Data, $Session)
. $Session.Lib
if (New-Folder $Data.directory) { Protect-Folder $Data.directory }
try {
    $Session.Lock = New-Object IO.FileStream $Data.lock, 'OpenOrCreate', 'ReadWrite', 'None'
    @{ held = $true }
} catch {
    # Only a file that another process holds gives a plain IOException.
    if ($_.Exception.GetBaseException().GetType() -ne [IO.IOException]) { throw }
    @{ held = $false }
}
