# Observes the host's containers: HNS' networks, the endpoints of one, the interfaces that they pass; changes nothing.
# Emits one object; `networks` is null where HNS is not there or does not run.
param($Data, $Session)
. $Session.Lib

function Test-Hns {
    # The cmdlets are there on hosts with containers only, and fail where the service does not run.
    if (-not (Get-Command Get-HnsNetwork -ErrorAction SilentlyContinue)) { return $false }
    $Service = Get-Service -Name hns -ErrorAction SilentlyContinue
    "$($Service.Status)" -eq 'Running'
}

function Get-SubnetFact($Subnet) {
    [ordered]@{
        prefix = [string]$Subnet.AddressPrefix
        gateway = [string]$Subnet.GatewayAddress
    }
}

function Get-NetworkFact($Network) {
    [ordered]@{
        name = [string]$Network.Name
        type = [string]$Network.Type
        subnets = @($Network.Subnets | Where-Object { $_ } | ForEach-Object { Get-SubnetFact $_ })
    }
}

function Get-EndpointFact($Endpoint) {
    [ordered]@{
        name = [string]$Endpoint.Name
        address = [string]$Endpoint.IPAddress
        gateway = [string]$Endpoint.GatewayAddress
        remote = [bool]$Endpoint.IsRemoteEndpoint
        policies = @($Endpoint.Policies | Where-Object { $_ })
    }
}

function Get-InterfaceFact {
    $Addresses = @(NetTCPIP\Get-NetIPAddress -AddressFamily IPv4)
    foreach ($Interface in NetTCPIP\Get-NetIPInterface -AddressFamily IPv4) {
        $Own = @($Addresses | Where-Object { $_.InterfaceIndex -eq $Interface.InterfaceIndex })
        [ordered]@{
            alias = [string]$Interface.InterfaceAlias
            forwarding = [string]$Interface.Forwarding
            addresses = @($Own | ForEach-Object { [string]$_.IPAddress })
        }
    }
}

function Get-Rival {
    @(CimCmdlets\Get-CimInstance -ClassName Win32_Process | Where-Object { $_.Name -eq 'kube-proxy.exe' } |
        ForEach-Object { [string]$_.Name })
}

$Networks = $null
$Endpoints = @()
if (Test-Hns) {
    $All = @(Get-HnsNetwork | Where-Object { $_ })
    $Networks = @{ items = @($All | ForEach-Object { Get-NetworkFact $_ }) }
    $Ids = @($All | Where-Object { $_.Name -ceq $Data.network } | ForEach-Object { [string]$_.ID })
    $Endpoints = @(Get-HnsEndpoint | Where-Object { $_ -and $Ids -contains [string]$_.VirtualNetwork })
}
[ordered]@{
    networks = $Networks
    endpoints = @($Endpoints | ForEach-Object { Get-EndpointFact $_ })
    interfaces = @(Get-InterfaceFact)
    rivals = @(Get-Rival)
}
