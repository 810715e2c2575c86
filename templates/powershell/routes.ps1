# Observes the host's IPv4 routes and addresses; changes nothing. Emits one object.
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

[ordered]@{
    routes = @(Get-RouteFact)
    addresses = @(NetTCPIP\Get-NetIPAddress -AddressFamily IPv4 | ForEach-Object {
        [ordered]@{
            address = [string]$_.IPAddress
            length = [int]$_.PrefixLength
            interface = [int]$_.InterfaceIndex
        }
    })
}
