# Set or remove a route through the VM, in both stores.
param($Data, $Session)
. $Session.Lib
$Stores = 'ActiveStore', 'PersistentStore'

function Remove-Orphan($Route) {
    # The route of an interface that is gone, which no cmdlet removes: `route delete` removes the registry's entry.
    $There = @(NetTCPIP\Get-NetIPInterface -AddressFamily IPv4 | ForEach-Object { [int]$_.InterfaceIndex })
    $Left = @(Find-EqualRoute $Route 'PersistentStore' | Where-Object { $There -notcontains [int]$_.InterfaceIndex })
    if ($Left.Count) {
        $Via = if ($Route.via) { $Route.via } else { '0.0.0.0' }
        route.exe delete $Route.network mask $Route.mask $Via | Out-Null
    }
}

foreach ($Unwanted in @($Data.remove)) {
    $Why = @($Stores | ForEach-Object { Remove-EqualRoute $Unwanted $_ }) -join ' '
    Remove-Orphan $Unwanted
    foreach ($Store in $Stores) {
        if (@(Find-EqualRoute $Unwanted $Store).Count) {
            throw "the route $($Unwanted.prefix) via $($Unwanted.via) is still in $Store after its removal: $Why"
        }
    }
}
if ($Data.add) {
    $New = $Data.add
    # Without -PolicyStore, New-NetRoute writes to both stores.
    $Added = @{
        DestinationPrefix = $New.prefix
        InterfaceIndex = Get-OnLinkInterface $New.via
        NextHop = $New.via
    }
    NetTCPIP\New-NetRoute @Added | Out-Null
    foreach ($Store in $Stores) {
        $Found = @(Get-IPv4Route $Store | Where-Object { $_.DestinationPrefix -eq $New.prefix })
        if ($Found.Count -ne 1 -or $Found[0].NextHop -ne $New.via) {
            throw "the route $($New.prefix) was set, but $Store contains $($Found.NextHop -join ', ')"
        }
    }
    $Used = Find-Route $New.sample
    if ($Used.NextHop -ne $New.via) {
        throw "the route $($New.prefix) is set, but packets to $($New.sample) go via $($Used.NextHop)"
    }
}
