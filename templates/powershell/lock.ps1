# Lock vmproxy's folder: this process alone holds the lock file open, until it ends. Emits whether it holds
# the lock. The lock file contains one byte if vmproxy created the folder; until it does, the file `unfinished`
# beside the folder says so. A folder that contains other files is refused, because vmproxy sets its rights and
# removes what earlier runs left in it. So is a folder that is a link or has another owner: every user may
# create a folder in C:\ProgramData before vmproxy does. The folder is closed to others before anything else is
# put into it, and what others have put in the place of images is removed.
param($Data, $Session)
. $Session.Lib
if (-not (Test-Path -LiteralPath $Data.directory)) {
    New-Folder (Split-Path $Data.directory) | Out-Null
    Set-FolderUnfinished $Data.unfinished
    New-Folder $Data.directory | Out-Null
}
if (Test-Link (Get-Item -LiteralPath $Data.directory -Force)) {
    throw "the folder $($Data.directory) is a link: use the folder that it points to"
}
if (-not (Test-TrustedOwner $Data.directory)) {
    throw "the folder $($Data.directory) belongs to $((Get-Acl -LiteralPath $Data.directory).Owner), who could" +
        ' always read and change its contents: use another folder, or take ownership of this one' +
        ' (takeown.exe /A /F FOLDER)'
}
$IsOurs = Test-OwnFile $Data.unfinished
if (-not (Test-OwnFile $Data.lock)) {
    # A removal that was interrupted leaves empty folders.
    if (Get-ChildItem -LiteralPath $Data.directory -Force -Recurse:$IsOurs -File:$IsOurs) {
        throw "the folder $($Data.directory) contains files that are not vmproxy's: use a separate one" +
            ' (if the folder is vmproxy''s, create an empty file vmproxy.lock in it)'
    }
}
Protect-Folder $Data.directory
try {
    $Session.Lock = New-Object IO.FileStream $Data.lock, 'OpenOrCreate', 'ReadWrite', 'None'
} catch {
    # Another process holds it open: a sharing or lock violation.
    if ($_.Exception.GetBaseException().HResult -notin 0x80070020, 0x80070021) { throw }
    @{ held = $false }
    return
}
if ($IsOurs) {
    $Session.Lock.WriteByte(1)
    $Session.Lock.Flush()
    Remove-Item -LiteralPath $Data.unfinished -Force
}
Remove-PlantedImage $Data.images
@{ held = $true }
