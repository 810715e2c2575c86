# Look names up as this host's applications do, by both of Windows' ways: the DNS client, and GetAddrInfo. Emits one
# answer per name.
param($Data, $Session)
. $Session.Lib

function Get-LookUpError($Problem) {
    $Inner = $Problem.Exception.GetBaseException()
    if ($Inner -is [Net.Sockets.SocketException]) { return [string]$Inner.SocketErrorCode }
    # By its id, as texts are localized.
    ($Problem.FullyQualifiedErrorId -split ',')[0]
}

function Find-ByDnsClient([string] $Name) {
    # -Server would bypass the rules.
    $Ask = @{ Name = $Name; Type = 'A'; DnsOnly = $true; NoHostsFile = $true; QuickTimeout = $true }
    $Found = @(DnsClient\Resolve-DnsName @Ask | Where-Object { "$($_.Type)" -eq 'A' })
    @($Found | ForEach-Object { [string]$_.IPAddress })
}

function Find-ByAddrInfo([string] $Name) {
    # The type by its name, when it is asked: tests put another resolver in its place meanwhile.
    $Found = @(([type]'Net.Dns')::GetHostAddresses($Name) | Where-Object { "$($_.AddressFamily)" -eq 'InterNetwork' })
    @($Found | ForEach-Object { [string]$_ })
}

function Get-Answer([scriptblock] $Look) {
    try { @{ addresses = @(& $Look) } } catch { @{ error = Get-LookUpError $_ } }
}

foreach ($Name in @($Data.names)) {
    [ordered]@{
        name = [string]$Name
        dnsClient = Get-Answer { Find-ByDnsClient $Name }
        addrInfo = Get-Answer { Find-ByAddrInfo $Name }
    }
}
