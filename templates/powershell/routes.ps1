# The host's IPv4 routes and addresses; nothing is changed. Emits one object.
param($Data, $Session)
. $Session.Lib

function Get-RouteFacts {
    foreach ($Store in 'ActiveStore', 'PersistentStore') {
        Get-Routes $Store | ForEach-Object {
            [ordered]@{
                store = $Store
                prefix = [string]$_.DestinationPrefix
                via = [string]$_.NextHop
            }
        }
    }
}

[ordered]@{
    routes = @(Get-RouteFacts)
    addresses = @(NetTCPIP\Get-NetIPAddress -AddressFamily IPv4 | ForEach-Object {
        [ordered]@{ address = [string]$_.IPAddress; length = [int]$_.PrefixLength }
    })
}
