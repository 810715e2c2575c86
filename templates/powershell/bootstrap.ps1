# Runs the frames read from stdin; exits after 'idle' milliseconds without one. First line: {"mark", "idle"}.
# A frame is one line {"id", "script", "data"}; each object that its script emits is returned as one line.
$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'
$Session = @{ Reader = New-Object IO.StreamReader ([Console]::OpenStandardInput()) }
$Idle = 60000
$Count = 0
function Read-Frame {
    $Waiting = $Session.Reader.ReadLineAsync()
    if (-not $Waiting.Wait($Idle) -or $null -eq $Waiting.Result) { exit 0 }
    ConvertFrom-Json $Waiting.Result
}
function Write-Frame($Answer) {
    $script:Count++
    $Answer.n = $script:Count
    $Json = ConvertTo-Json -InputObject $Answer -Depth 12 -Compress
    $Json = [regex]::Replace($Json, '[^ -~]', { param($One) '\u{0:x4}' -f [int][char]$One.Value })
    [Console]::Out.WriteLine($First.mark + $Json)
}
function Get-Failure($Record) {
    @{
        type = $Record.Exception.GetType().FullName
        id = $Record.FullyQualifiedErrorId
        category = "$($Record.CategoryInfo.Category)"
        code = '{0:x8}' -f $Record.Exception.GetBaseException().HResult
        message = $Record.Exception.Message
        position = "$($Record.InvocationInfo.PositionMessage)"
    }
}
$First = Read-Frame
$Idle = $First.idle
while ($true) {
    $Frame = Read-Frame
    try {
        & ([ScriptBlock]::Create($Frame.script)) $Frame.data $Session |
            ForEach-Object { Write-Frame @{ id = $Frame.id; line = $_ } }
        Write-Frame @{ id = $Frame.id; done = $true }
    } catch {
        Write-Frame @{ id = $Frame.id; error = (Get-Failure $_) }
    }
}
