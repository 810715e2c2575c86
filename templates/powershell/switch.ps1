# Make the VM's own switch (`create`), and set what is in `settings`: what differs. It is an Internal one: no network
# card of the host is touched. Its name is the VM's; `mark` in its Notes makes it vmproxy's.
param($Data, $Session)
. $Session.Lib
$Wanted = @{}
foreach ($Property in $Data.settings.PSObject.Properties) { $Wanted[$Property.Name] = $Property.Value }

function New-OwnSwitch {
    # The host's network can be busy for moments.
    for ($Try = 1; -not @(Get-OwnSwitch $Data.vm).Count; $Try++) {
        $Made = @{ Name = $Data.vm; SwitchType = 'Internal'; Notes = $Data.mark; ComputerName = (Get-ThisComputer) }
        try {
            Hyper-V\New-VMSwitch @Made | Out-Null
        } catch {
            if ($Try -ge 3 -or (Test-Denied $_)) { throw }
            Start-Sleep -Seconds 2
        }
    }
}

function Wait-Interface {
    # Windows makes the host's interface on a new switch with a delay.
    for ($Try = 1; ; $Try++) {
        $Index = Get-SwitchInterface $Data.vm
        if ($Index) { return $Index }
        if ($Try -ge 60) { throw "the host has no interface on switch $($Data.vm)" }
        Start-Sleep -Milliseconds 500
    }
}

function Set-HostAddress([int] $Index, $Address) {
    # In both stores, as without -PolicyStore; DHCP refuses an address that lasts.
    $Interface = @{ InterfaceIndex = $Index; AddressFamily = 'IPv4' }
    NetTCPIP\Set-NetIPInterface @Interface -Dhcp Disabled
    Remove-ManualAddress $Index
    NetTCPIP\New-NetIPAddress @Interface -IPAddress $Address.address -PrefixLength $Address.length | Out-Null
}

function Add-Mapping($Mapping) {
    # From outside to the VM, whichever address of the host is used, but for one machine only.
    $New = @{
        NatName = $Data.vm
        Protocol = 'TCP'
        ExternalIPAddress = '0.0.0.0/0'
        ExternalPort = $Mapping.port
        RemoteExternalIPAddressPrefix = $Mapping.from
        InternalIPAddress = $Mapping.to
        InternalPort = $Mapping.toPort
    }
    NetNat\Add-NetNatStaticMapping @New | Out-Null
}

if ($Data.create) { New-OwnSwitch }
$Switches = @(Get-OwnSwitch $Data.vm)
if ($Switches.Count -ne 1) { throw "there are $($Switches.Count) switches named $($Data.vm)" }
if ("$($Switches[0].Notes)" -split '\s+' -cnotcontains $Data.mark) {
    throw "switch $($Data.vm) has no $($Data.mark) in its Notes: vmproxy does not change it"
}
$Index = Wait-Interface
if ($Wanted.ContainsKey('dnsRegistration')) {
    # Else the address would be found in the domain's DNS, where nobody reaches it.
    DnsClient\Set-DnsClient -InterfaceIndex $Index -RegisterThisConnectionsAddress $false
}
if ($Wanted.ContainsKey('metric')) {
    NetTCPIP\Set-NetIPInterface -InterfaceIndex $Index -AddressFamily IPv4 -InterfaceMetric $Wanted.metric
}
if ($Wanted.ContainsKey('address')) { Set-HostAddress $Index $Wanted.address }
if ($Wanted.ContainsKey('forwarding')) {
    NetTCPIP\Set-NetIPInterface -InterfaceIndex $Index -AddressFamily IPv4 -Forwarding $Wanted.forwarding
}
if ($Wanted.ContainsKey('mapping') -or $Wanted.ContainsKey('nat')) { Remove-Mapping $Data.vm }
if ($Wanted.ContainsKey('nat')) {
    Remove-Nat $Data.vm
    if ($Wanted.nat) { NetNat\New-NetNat -Name $Data.vm -InternalIPInterfaceAddressPrefix $Wanted.nat | Out-Null }
}
if ($Data.mapping -and ($Wanted.ContainsKey('mapping') -or $Wanted.ContainsKey('nat'))) { Add-Mapping $Data.mapping }
