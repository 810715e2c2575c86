# Set or remove rules for names (NRPT) of this host itself, never a policy's. Only those with our comment are removed.
param($Data, $Session)
. $Session.Lib

function Get-OwnRule {
    @(DnsClient\Get-DnsClientNrptRule | Where-Object { $_.Comment -ceq $Data.comment })
}

foreach ($Name in @($Data.remove)) {
    foreach ($Rule in @(Get-OwnRule | Where-Object { $_.Name -eq $Name })) {
        DnsClient\Remove-DnsClientNrptRule -Name $Rule.Name -Force
    }
}
if ($Data.add) {
    $Added = @{
        Namespace = [string[]]@($Data.add.namespaces)
        NameServers = [string[]]@($Data.add.servers)
        DisplayName = $Data.display
        Comment = $Data.comment
    }
    DnsClient\Add-DnsClientNrptRule @Added | Out-Null
}
$Left = @(Get-OwnRule | ForEach-Object { [string]$_.Name } | Where-Object { @($Data.remove) -contains $_ })
if ($Left.Count) { throw "the rule for names is still there after its removal: $($Left -join ', ')" }
# What was looked up before, or was not found, would be answered from the cache.
DnsClient\Clear-DnsClientCache
