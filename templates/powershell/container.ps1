# Connect from inside a container that runs, by the curl.exe that its image has. Emits one answer per connection, or
# what runs when there is no such container.
param($Data, $Session)
. $Session.Lib
$Seconds = 5

function Find-Tool([string] $Name) {
    Get-Command $Name -CommandType Application -ErrorAction SilentlyContinue | Select-Object -First 1
}

function Invoke-Tool($Tool, [string[]] $Words) {
    # What a program writes to stderr would be an error here.
    $ErrorActionPreference = 'Continue'
    $Said = @(& $Tool.Path $Words 2>&1 | ForEach-Object { "$_" })
    @{ said = $Said; code = $LASTEXITCODE }
}

function Get-ContainerOfCri($Said) {
    foreach ($Item in (ConvertFrom-Json ($Said -join "`n")).containers) {
        @{ id = [string]$Item.id; name = [string]$Item.metadata.name }
    }
}

function Get-ContainerOfDocker($Said) {
    foreach ($Line in $Said) {
        $Id, $Name = $Line.Split(' ', 2)
        @{ id = $Id; name = $Name }
    }
}

function Get-Container {
    # Emits those of each runtime that answers, or why none does.
    $Problems = @()
    $Listed = @(
        @{ name = 'crictl.exe'; words = 'ps', '-o', 'json'; read = ${function:Get-ContainerOfCri} }
        @{ name = 'docker.exe'; words = 'ps', '--no-trunc', '--format', '{{.ID}} {{.Names}}'
            read = ${function:Get-ContainerOfDocker} }
    )
    foreach ($Runtime in $Listed) {
        $Tool = Find-Tool $Runtime.name
        if (-not $Tool) { $Problems += "$($Runtime.name) is not on the PATH of this account"; continue }
        $Answer = Invoke-Tool $Tool $Runtime.words
        if ($Answer.code -ne 0) { $Problems += "$($Runtime.name): $($Answer.said -join ' ')"; continue }
        $Works = $true
        & $Runtime.read $Answer.said | ForEach-Object { $_.tool = $Tool; $_ }
    }
    if (-not $Works) { throw ($Problems -join '; ') }
}

function Test-FromContainer($Container, $Item) {
    # Whatever the port speaks: the time at which TCP was connected is not 0 then.
    $Url = "http://$($Item.address):$($Item.port)/"
    $Curl = @('curl.exe', '--silent', '--output', 'NUL', '--max-time', $Seconds, '--write-out', 'connect=%{time_connect}')
    $Answer = Invoke-Tool $Container.tool (@('exec', $Container.id) + $Curl + $Url)
    $Said = $Answer.said -join ' '
    # crictl.exe says it only in words.
    $Code = if ($Said -match 'exit code (\d+)') { [int]$Matches[1] } else { $Answer.code }
    if ($Said -match 'connect=(\d+\.\d+)' -and [double]::Parse($Matches[1], [cultureinfo]::InvariantCulture) -gt 0) {
        return @{ ok = $true; ms = 1000 * [double]::Parse($Matches[1], [cultureinfo]::InvariantCulture) }
    }
    $Why = @{ 7 = 'ConnectionRefused'; 28 = 'TimedOut' }[$Code]
    if (-not $Why) { $Why = "curl.exe in the container ended with ${Code}: $Said" }
    @{ ok = $false; error = $Why }
}

$Running = @(Get-Container)
$Found = @($Running | Where-Object { $_.name -ceq $Data.container })
if (-not $Found.Count) { $Found = @($Running | Where-Object { $_.id.StartsWith($Data.container) }) }
if ($Found.Count -ne 1) {
    return @{ running = @($Running | ForEach-Object { "$($_.name) ($($_.id.Substring(0, 12)))" }) }
}
foreach ($Item in @($Data.connections)) {
    $Answer = Test-FromContainer $Found[0] $Item
    $Answer.via = Get-NextHop $Item.address
    $Answer
}
