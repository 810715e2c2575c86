# Observes the host's IPv4 routes and addresses, and its rules for names; changes nothing. Emits one object.
param($Data, $Session)
. $Session.Lib

function Get-RouteFact {
    foreach ($Store in 'ActiveStore', 'PersistentStore') {
        Get-IPv4Route $Store | ForEach-Object {
            [ordered]@{
                store = $Store
                prefix = [string]$_.DestinationPrefix
                via = [string]$_.NextHop
                interface = [int]$_.InterfaceIndex
            }
        }
    }
}

function Get-NameRuleFact {
    # The host's own; a policy's are elsewhere.
    DnsClient\Get-DnsClientNrptRule | ForEach-Object {
        [ordered]@{
            name = [string]$_.Name
            namespaces = @($_.Namespace | ForEach-Object { [string]$_ })
            servers = @($_.NameServers | ForEach-Object { [string]$_ })
            comment = [string]$_.Comment
        }
    }
}

function Get-NamePolicy {
    # While this key exists, also when it is empty, Windows ignores the host's own rules.
    $Key = 'HKLM:\SOFTWARE\Policies\Microsoft\Windows NT\DNSClient\DnsPolicyConfig'
    if (Test-Path -LiteralPath $Key) { $Key }
}

[ordered]@{
    routes = @(Get-RouteFact)
    addresses = @(NetTCPIP\Get-NetIPAddress -AddressFamily IPv4 | ForEach-Object {
        [ordered]@{
            address = [string]$_.IPAddress
            length = [int]$_.PrefixLength
            interface = [int]$_.InterfaceIndex
        }
    })
    nameRules = @(Get-NameRuleFact)
    namePolicy = Get-NamePolicy
    dnsServer = "$((Get-Service -Name DNS -ErrorAction SilentlyContinue).Status)" -eq 'Running'
}
