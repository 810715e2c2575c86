# Fetch the image from its URL onto this host. Emits now and then how far it is.
param($Data, $Session)
. $Session.Lib

function Get-Size {
    if (Test-Path -LiteralPath $Data.part) { (Get-Item -LiteralPath $Data.part).Length } else { 0 }
}

function Start-Curl($Curl) {
    $Start = New-Object Diagnostics.ProcessStartInfo $Curl.Source
    $Start.Arguments = '--fail --location --silent --show-error --retry 3 --continue-at - ' +
        "--output `"$($Data.part)`" --config `"$Options`""
    $Start.UseShellExecute = $false
    $Start.RedirectStandardInput = $true
    $Start.RedirectStandardError = $true
    $Curling = [Diagnostics.Process]::Start($Start)
    $Curling.StandardInput.Close()
    $Curling
}

function Wait-Curl($Curling) {
    $Told = $Curling.StandardError.ReadToEndAsync()
    while (-not $Curling.WaitForExit(2000)) { @{ have = [long](Get-Size) } }
    if ($Curling.ExitCode -ne 0) { throw "curl.exe: $($Told.Result.Trim())" }
}

function Read-WebClient {
    # Server 2016 has no curl.exe, and .NET there does not offer TLS 1.2 by itself.
    $Protocols = [Net.ServicePointManager]::SecurityProtocol
    [Net.ServicePointManager]::SecurityProtocol = $Protocols -bor [Net.SecurityProtocolType]::Tls12
    $Client = New-Object Net.WebClient
    $Client.UseDefaultCredentials = $true
    $Part = [IO.File]::Create($Data.part)
    try {
        $Source = $Client.OpenRead($Data.url)
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

if ((Get-Size) -and (Get-FileHash -LiteralPath $Data.part -Algorithm SHA256).Hash -eq $Data.sha256) { return }
# In a file, not on its command line: a URL may hold a signature.
$Options = [IO.Path]::ChangeExtension($Data.part, 'curl')
$Curl = Get-Command curl.exe -CommandType Application -ErrorAction SilentlyContinue | Select-Object -First 1
try {
    if ($Curl) {
        $Url = $Data.url.Replace('\', '\\').Replace('"', '\"')
        [IO.File]::WriteAllText($Options, "url = `"$Url`"`n")
        $Curling = Start-Curl $Curl
        try { Wait-Curl $Curling } finally { if (-not $Curling.HasExited) { $Curling.Kill() } }
    } else {
        Read-WebClient
    }
} catch {
    Exit-FullDisk $Data.part $_
} finally {
    Remove-Whole $Options
}
