# Runs the frames read from stdin; exits after 'idle' milliseconds without one. First line: {"mark", "idle"}.
# A frame is one line {"id", "script", "data"}; each object that its script emits is returned as one line.
if ("$($ExecutionContext.SessionState.LanguageMode)" -ne 'FullLanguage') {
    "LanguageMode: $($ExecutionContext.SessionState.LanguageMode)"
    exit 3
}
$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'
$Input8 = New-Object Text.UTF8Encoding $false
$Session = @{ Reader = New-Object IO.StreamReader ([Console]::OpenStandardInput()), $Input8, $false, 131072 }
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
    $Base = $Record.Exception.GetBaseException()
    $IsParse = $Base -is [Management.Automation.ParseException]
    @{
        type = $Record.Exception.GetType().FullName
        id = if ($IsParse) { $Base.ErrorRecord.FullyQualifiedErrorId } else { $Record.FullyQualifiedErrorId }
        category = "$($Record.CategoryInfo.Category)"
        code = '{0:x8}' -f $Base.HResult
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
