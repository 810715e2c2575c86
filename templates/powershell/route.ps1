# Set a route by way of the VM, or take one away, in both stores.
param($Data, $Session)
. $Session.Lib
$Stores = 'ActiveStore', 'PersistentStore'
foreach ($Gone in @($Data.remove)) {
    foreach ($Store in $Stores) {
        foreach ($Route in @(Get-Routes $Store)) {
            $Next = if ($Route.NextHop -eq '0.0.0.0') { '' } else { $Route.NextHop }
            if ($Route.DestinationPrefix -eq $Gone.prefix -and $Next -eq $Gone.via) {
                $Old = @{
                    DestinationPrefix = $Route.DestinationPrefix
                    InterfaceIndex = $Route.InterfaceIndex
                    NextHop = $Route.NextHop
                    PolicyStore = $Store
                }
                NetTCPIP\Remove-NetRoute @Old -Confirm:$false
            }
        }
    }
}
if ($Data.add) {
    $New = $Data.add
    # Without -PolicyStore it goes to both stores.
    $Added = @{ DestinationPrefix = $New.prefix; InterfaceIndex = Get-OnLink $New.via; NextHop = $New.via }
    NetTCPIP\New-NetRoute @Added | Out-Null
    foreach ($Store in $Stores) {
        $There = @(Get-Routes $Store | Where-Object { $_.DestinationPrefix -eq $New.prefix })
        if ($There.Count -ne 1 -or $There[0].NextHop -ne $New.via) {
            throw "the route $($New.prefix) was set, but $Store has $($There.NextHop -join ', ')"
        }
    }
    $Way = Get-Way $New.sample
    if ($Way.NextHop -ne $New.via) {
        throw "the route $($New.prefix) is set, but $($New.sample) goes by $($Way.NextHop)"
    }
}
