# Set whether an interface of the host forwards packets of others. One that is gone does not.
param($Data, $Session)
. $Session.Lib
$All = @(NetTCPIP\Get-NetIPInterface -AddressFamily IPv4 | Where-Object { $_.InterfaceAlias -ceq $Data.alias })
if (-not $All.Count) {
    if ($Data.forwarding -eq 'Enabled') { throw "there is no interface $($Data.alias) any more" }
    return
}
$All | NetTCPIP\Set-NetIPInterface -Forwarding $Data.forwarding
foreach ($Interface in $All) {
    $Seen = NetTCPIP\Get-NetIPInterface -InterfaceIndex $Interface.InterfaceIndex -AddressFamily IPv4
    if ("$($Seen.Forwarding)" -ne $Data.forwarding) {
        throw "forwarding on $($Data.alias) was set, but it is $($Seen.Forwarding)"
    }
}
