# Receive the image from the controller: lines of base64 on stdin, ended by an empty line. Emits the number
# of bytes received, first and after each line, so that a transfer resumes where an earlier run stopped.
param($Data, $Session)
. $Session.Lib
$Part = New-Object IO.FileStream $Data.part, 'Append', 'Write', 'Read'
try {
    while ($true) {
        @{ have = [long]$Part.Position }
        $Line = Read-InputLine
        if ($Line -eq '') { break }
        $Bytes = [Convert]::FromBase64String($Line)
        $Part.Write($Bytes, 0, $Bytes.Length)
        $Part.Flush()
    }
} catch {
    Stop-WithFileError $Data.part $_
} finally {
    $Part.Dispose()
}
