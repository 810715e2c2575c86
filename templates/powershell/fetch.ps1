# Download the image from its URL to this host. Emits {"send": "url"} once, then reads the URL as one line, because
# it may contain a signature; then emits its progress.
param($Data, $Session)
. $Session.Lib

function Get-PartSize {
    if (Test-Path -LiteralPath $Data.part) { (Get-Item -LiteralPath $Data.part).Length } else { 0 }
}

function Start-Curl($Curl) {
    $Start = New-Object Diagnostics.ProcessStartInfo $Curl.Source
    $Start.Arguments = '--fail --location --silent --show-error --retry 3 --continue-at - ' +
        "$Lenient--output `"$($Data.part)`" --config `"$Options`""
    $Start.UseShellExecute = $false
    $Start.RedirectStandardInput = $true
    $Start.RedirectStandardError = $true
    $Curling = [Diagnostics.Process]::Start($Start)
    $Curling.StandardInput.Close()
    $Curling
}

function Get-CurlVersion {
    $Text = "$(curl.exe --version)"
    if ($Text -match '^curl (\d+\.\d+)') { [Version]$Matches[1] } else { [Version]'7.0' }
}

function Wait-Curl($Curling) {
    $ErrorOutput = $Curling.StandardError.ReadToEndAsync()
    while (-not $Curling.WaitForExit(2000)) { @{ have = [long](Get-PartSize) } }
    if ($Curling.ExitCode -ne 0) { throw "curl.exe: $($ErrorOutput.Result.Trim())" }
}

function Invoke-WebDownload {
    # Server 2016 has no curl.exe, and its .NET does not enable TLS 1.2 by default.
    $Protocols = [Net.ServicePointManager]::SecurityProtocol
    [Net.ServicePointManager]::SecurityProtocol = $Protocols -bor [Net.SecurityProtocolType]::Tls12
    $Client = New-Object Net.WebClient
    $Client.UseDefaultCredentials = -not $Curl  # curl.exe, where it is there, has offered no log-in either
    $Part = [IO.File]::Create($Data.part)
    try {
        $Source = $Client.OpenRead($From)
        $Buffer = New-Object byte[] 1048576
        while ($Count = $Source.Read($Buffer, 0, $Buffer.Length)) {
            $Part.Write($Buffer, 0, $Count)
            if ($Part.Position -ge $Next) {
                @{ have = [long]$Part.Position }
                $Next = $Part.Position + 16MB
            }
        }
    } finally {
        $Part.Dispose()
        $Client.Dispose()
    }
}

@{ send = 'url' }
$From = Read-InputLine
if ((Get-PartSize) -and (Get-FileHash -LiteralPath $Data.part -Algorithm SHA256).Hash -eq $Data.sha256) { return }
# Pass the URL in a file, not on curl's command line: it may contain a signature.
$Options = [IO.Path]::ChangeExtension($Data.part, 'curl')
$Curl = Get-Command curl.exe -CommandType Application -ErrorAction SilentlyContinue | Select-Object -First 1
# An isolated host cannot ask whether a certificate was revoked.
$Lenient = if ($Curl -and (Get-CurlVersion) -ge [Version]'7.70') { '--ssl-revoke-best-effort ' } else { '' }
try {
    if ($Curl) {
        $Url = $From.Replace('\', '\\').Replace('"', '\"')
        [IO.File]::WriteAllText($Options, "url = `"$Url`"`n")
        $Curling = Start-Curl $Curl
        try { Wait-Curl $Curling } catch { $Problem = $_ } finally { if (-not $Curling.HasExited) { $Curling.Kill() } }
    }
    # The system's own proxy and certificate settings may do where curl's do not.
    if ($Problem -and (Get-PartSize)) { throw $Problem }
    if ($Problem) {
        try { Invoke-WebDownload } catch { throw $Problem }
    } elseif (-not $Curl) {
        Invoke-WebDownload
    }
} catch {
    Stop-WithFileError $Data.part $_
} finally {
    Remove-PathWithRetry $Options
}
