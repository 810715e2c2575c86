# Lock vmproxy's folder: this process alone holds the lock file open, until it ends. Emits whether it holds
# the lock. The file contains one byte if vmproxy created the folder. A folder that contains other files is
# refused, because vmproxy sets its rights and removes what earlier runs left in it. So is a folder that is a
# link or has another owner: every user may create a folder in C:\ProgramData before vmproxy does.
param($Data, $Session)
. $Session.Lib
$Created = New-Folder $Data.directory
if ((Get-Item -LiteralPath $Data.directory -Force).Attributes -band [IO.FileAttributes]::ReparsePoint) {
    throw "the folder $($Data.directory) is a link: use the folder that it points to"
}
$Acl = Get-Acl -LiteralPath $Data.directory
$Owner = $Acl.GetOwner([Security.Principal.SecurityIdentifier]).Value
$Me = [Security.Principal.WindowsIdentity]::GetCurrent().User.Value
if ('S-1-5-32-544', 'S-1-5-18', $Me -notcontains $Owner) {
    throw "the folder $($Data.directory) belongs to $($Acl.Owner), who could always read and change its" +
        ' contents: use another folder, or take ownership of this one (takeown.exe /A /F FOLDER)'
}
if ($Created) {
    Protect-Folder $Data.directory
} elseif (-not (Test-Path -LiteralPath $Data.lock) -and (Get-ChildItem -LiteralPath $Data.directory -Force)) {
    throw "the folder $($Data.directory) contains files that are not vmproxy's: use a separate one" +
        ' (if the folder is vmproxy''s, create an empty file vmproxy.lock in it)'
}
try {
    $Session.Lock = New-Object IO.FileStream $Data.lock, 'OpenOrCreate', 'ReadWrite', 'None'
} catch {
    # Only a file that another process holds open causes a plain IOException.
    if ($_.Exception.GetBaseException().GetType() -ne [IO.IOException]) { throw }
    @{ held = $false }
    return
}
if ($Created) { $Session.Lock.WriteByte(1); $Session.Lock.Flush() }
@{ held = $true }
