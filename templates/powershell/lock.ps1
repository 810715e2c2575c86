# Take the lock of vmproxy's folder: a file that this process alone holds open, until it ends.
# Emits whether it has it. The file holds a byte when vmproxy made the folder. A folder with other things
# in it is refused: its rights are set, and what earlier runs left in it is removed. So is one that
# somebody else owns, or a link: every user may make a folder in C:\ProgramData before vmproxy does.
param($Data, $Session)
. $Session.Lib
$Made = New-Folder $Data.directory
if ((Get-Item -LiteralPath $Data.directory -Force).Attributes -band [IO.FileAttributes]::ReparsePoint) {
    throw "the folder $($Data.directory) is a link to another place: name that place itself"
}
$Acl = Get-Acl -LiteralPath $Data.directory
$Owner = $Acl.GetOwner([Security.Principal.SecurityIdentifier]).Value
$Me = [Security.Principal.WindowsIdentity]::GetCurrent().User.Value
if ('S-1-5-32-544', 'S-1-5-18', $Me -notcontains $Owner) {
    throw "the folder $($Data.directory) belongs to $($Acl.Owner), who could always read and change what is put" +
        ' there: name another one (if it may be taken: takeown.exe /A /F and its name)'
}
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
