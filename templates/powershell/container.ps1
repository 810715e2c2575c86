# Connect from inside a container that runs, by the curl.exe that its image has. Emits one answer per connection, or
# what runs when there is no such container.
param($Data, $Session)
. $Session.Lib
$Seconds = 5

function Find-Tool([string] $Name) {
    Get-Command $Name -CommandType Application -ErrorAction SilentlyContinue | Select-Object -First 1
}

function Get-ContainerOfCri($Tool) {
    $Shown = (& $Tool.Path ps --state Running -o json) -join "`n"
    if ($LASTEXITCODE -ne 0) { return }
    foreach ($Item in (ConvertFrom-Json $Shown).containers) {
        @{ id = [string]$Item.id; name = [string]$Item.metadata.name; tool = $Tool.Path }
    }
}

function Get-ContainerOfDocker($Tool) {
    $Shown = @(& $Tool.Path ps --no-trunc --format '{{.ID}} {{.Names}}')
    if ($LASTEXITCODE -ne 0) { return }
    foreach ($Line in $Shown) {
        $Id, $Name = "$Line".Split(' ', 2)
        @{ id = $Id; name = $Name; tool = $Tool.Path }
    }
}

function Get-Container {
    if ($Tool = Find-Tool 'crictl.exe') { Get-ContainerOfCri $Tool }
    if ($Tool = Find-Tool 'docker.exe') { Get-ContainerOfDocker $Tool }
}

function Get-NextHop([string] $Address) {
    try { $Next = (Find-Route $Address).NextHop } catch { return $null }
    if ($Next -and $Next -ne '0.0.0.0') { [string]$Next }
}

function Test-FromContainer($Container, $Item) {
    # Whatever the port speaks: the time at which TCP was connected is not 0 then.
    $Url = "http://$($Item.address):$($Item.port)/"
    $Curl = @('curl.exe', '--silent', '--output', 'NUL', '--max-time', $Seconds, '--write-out', 'connect=%{time_connect}')
    # What a program writes to stderr would be an error here.
    $ErrorActionPreference = 'Continue'
    $Said = @(& $Container.tool exec $Container.id $Curl $Url 2>&1 | ForEach-Object { "$_" }) -join ' '
    # crictl.exe says it only in words.
    $Code = if ($Said -match 'exit code (\d+)') { [int]$Matches[1] } else { $LASTEXITCODE }
    if ($Said -match 'connect=(\d+\.\d+)' -and [double]::Parse($Matches[1], [cultureinfo]::InvariantCulture) -gt 0) {
        return @{ ok = $true; ms = 1000 * [double]::Parse($Matches[1], [cultureinfo]::InvariantCulture) }
    }
    $Why = @{ 7 = 'ConnectionRefused'; 28 = 'TimedOut' }[$Code]
    if (-not $Why) { $Why = "curl.exe in the container ended with ${Code}: $Said" }
    @{ ok = $false; error = $Why }
}

$Running = @(Get-Container)
if (-not (Find-Tool 'crictl.exe') -and -not (Find-Tool 'docker.exe')) {
    throw 'there is neither crictl.exe nor docker.exe on the PATH of this account'
}
$Found = @($Running | Where-Object { $_.name -ceq $Data.container -or $_.id.StartsWith($Data.container) })
if ($Found.Count -ne 1) {
    return @{ running = @($Running | ForEach-Object { "$($_.name) ($($_.id.Substring(0, 12)))" }) }
}
foreach ($Item in @($Data.connections)) {
    $Answer = Test-FromContainer $Found[0] $Item
    $Answer.via = Get-NextHop $Item.address
    $Answer
}
