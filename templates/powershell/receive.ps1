# Take the image from the controller: lines of base64 on stdin, an empty one at the end. Emits how many
# bytes are there, first and after each line: it goes on where an earlier run stopped.
param($Data, $Session)
. $Session.Lib
$Part = New-Object IO.FileStream $Data.part, 'Append', 'Write', 'Read'
try {
    while ($true) {
        @{ have = [long]$Part.Position }
        $Line = $Session.Reader.ReadLineAsync()
        $Came = $Line.Wait($Idle) -and $null -ne $Line.Result
        if (-not $Came) { throw 'the controller sends nothing any more' }
        if ($Line.Result -eq '') { break }
        $Bytes = [Convert]::FromBase64String($Line.Result)
        $Part.Write($Bytes, 0, $Bytes.Length)
        $Part.Flush()
    }
} catch {
    Exit-FullDisk $Data.part $_
} finally {
    $Part.Dispose()
}
