# Set or remove a route through the VM, in both stores.
param($Data, $Session)
. $Session.Lib
$Stores = 'ActiveStore', 'PersistentStore'
foreach ($Unwanted in @($Data.remove)) {
    foreach ($Store in $Stores) {
        foreach ($Route in @(Get-IPv4Route $Store)) {
            $Next = if ($Route.NextHop -eq '0.0.0.0') { '' } else { $Route.NextHop }
            if ($Route.DestinationPrefix -eq $Unwanted.prefix -and $Next -eq $Unwanted.via) {
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
