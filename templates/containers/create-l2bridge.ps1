# Creates an l2bridge network of HNS, for a host that has none yet. A person runs it, vmproxy never does.
#
# READ THIS FIRST. HNS takes the network card for the virtual switch of the new network and moves its address to a
# virtual adapter. Every connection through the card breaks, RDP and WinRM included; now and then the address or
# persistent routes are lost on the way. Run it at the console, or be able to get there. Do not run it if flannel,
# Calico, Docker or another agent creates the network: let them.
#
# With containers.gateway: vm in the site file, the network's gateway is the VM, and the host gets no endpoint. With
# Docker, that is: docker network create -d l2bridge --subnet SUBNET --gateway GATEWAY NAME
#
# create-l2bridge.json and hnscall.ps1 belong beside it, in a folder that only administrators can write to: the work
# is done by a scheduled task as SYSTEM, which ends well when the connection to you does not.
#
#   .\create-l2bridge.ps1             checks the host and says what would be done
#   .\create-l2bridge.ps1 -Accept     does it; create-l2bridge.result.json says how it ended
#
# Exit codes: 0 done, or started; 1 refused or failed; 3 nothing done, as -Accept is missing.
param([switch] $Accept, [switch] $Detached)
$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'
$Task = 'vmproxy-create-l2bridge'
$ResultFile = Join-Path $PSScriptRoot 'create-l2bridge.result.json'
. (Join-Path $PSScriptRoot 'hnscall.ps1')
$Wanted = ConvertFrom-Json ([IO.File]::ReadAllText((Join-Path $PSScriptRoot 'create-l2bridge.json')))

function Save-Result($Result) {
    $Text = ConvertTo-Json -InputObject $Result -Depth 6
    [IO.File]::WriteAllText($ResultFile, $Text, (New-Object Text.UTF8Encoding $false))
}

function Test-Administrator {
    $Me = New-Object Security.Principal.WindowsPrincipal ([Security.Principal.WindowsIdentity]::GetCurrent())
    $Me.IsInRole([Security.Principal.WindowsBuiltInRole]::Administrator)
}

function Get-Card {
    # The network card with the host's address; none if a virtual adapter has the address, or nothing.
    $Address = Get-NetIPAddress -AddressFamily IPv4 | Where-Object { $_.IPAddress -eq $Wanted.management }
    if (-not $Address) { throw "no adapter of this host has the address $($Wanted.management)" }
    $Adapter = Get-NetAdapter | Where-Object { $_.ifIndex -eq @($Address)[0].InterfaceIndex }
    $Kinds = 'vEthernet*', 'Hyper-V Virtual Ethernet Adapter*'
    if ($Kinds | Where-Object { $Adapter.Name -like $_ -or $Adapter.InterfaceDescription -like $_ }) {
        throw "$($Wanted.management) is the address of a virtual adapter, so a virtual switch has the network card" +
            ' already. HNS needs a card without a switch: use another one, or remove that switch'
    }
    $Adapter
}

function Assert-NoSwitch($Card) {
    # The Hyper-V module may not be installed; then no one but HNS makes switches.
    if (-not (Get-Command Get-VMSwitch -ErrorAction SilentlyContinue)) { return }
    $Other = Get-VMSwitch | Where-Object { $_.NetAdapterInterfaceDescription -eq $Card.InterfaceDescription }
    if ($Other) {
        throw "the virtual switch $(@($Other)[0].Name) has the network card $($Card.Name): HNS needs a card without one"
    }
}

function Assert-NoNetwork {
    foreach ($Other in @(Get-HnsNetwork)) {
        if ($Other.Name -eq $Wanted.network) {
            throw "HNS has a network named $($Wanted.network) already, of the type $($Other.Type): it may be" +
                " flannel's or Docker's. Use it, or choose another name"
        }
        if (@($Other.Subnets | ForEach-Object { $_.AddressPrefix }) -contains $Wanted.subnet) {
            throw "HNS's network $($Other.Name) has the subnet $($Wanted.subnet) already"
        }
    }
}

function Get-CheckedCard {
    if (-not (Test-Administrator)) { throw 'run it as an administrator' }
    if ([int](Get-CimInstance -ClassName Win32_OperatingSystem).BuildNumber -lt 17763) {
        throw 'an l2bridge network with a subnet of its own needs Windows Server 2019 or later'
    }
    $Service = Get-Service -Name hns -ErrorAction SilentlyContinue
    if (-not $Service -or [string]$Service.Status -ne 'Running') {
        throw 'the service hns does not run: install the feature Containers (Install-WindowsFeature Containers)'
    }
    Assert-NoNetwork
    $Card = Get-Card
    Assert-NoSwitch $Card
    $Card
}

function Get-PersistentRoute {
    # Get-NetRoute fails if the store is empty.
    @(Get-NetRoute -AddressFamily IPv4 -PolicyStore PersistentStore -ErrorAction SilentlyContinue |
        ForEach-Object { "$($_.DestinationPrefix) via $($_.NextHop)" })
}

function Get-ConfigurationFact($Card) {
    # What to set again by hand if it is lost.
    $Own = @{ InterfaceIndex = $Card.ifIndex; AddressFamily = 'IPv4' }
    [ordered]@{
        adapter = [string]$Card.Name
        addresses = @(Get-NetIPAddress @Own | ForEach-Object { "$($_.IPAddress)/$($_.PrefixLength)" })
        gateways = @(Get-NetRoute @Own -DestinationPrefix 0.0.0.0/0 -ErrorAction SilentlyContinue |
            ForEach-Object { [string]$_.NextHop })
        dns = @((Get-DnsClientServerAddress @Own).ServerAddresses)
        persistentRoutes = Get-PersistentRoute
    }
}

function Wait-Management([string] $Id) {
    # The card's address moves to the new virtual adapter, which takes up to a minute.
    for ($Try = 1; $Try -le 120; $Try++) {
        $Network = Invoke-Hns 'GET' "/networks/$Id"
        $Moved = Get-NetIPAddress -AddressFamily IPv4 -ErrorAction SilentlyContinue |
            Where-Object { $_.IPAddress -eq $Wanted.management }
        if ($Network.ManagementIP -eq $Wanted.management -and $Moved) { return }
        Start-Sleep -Milliseconds 500
    }
    throw "after a minute, the network has the address '$($Network.ManagementIP)', not $($Wanted.management)"
}

function New-HostEndpoint([string] $NetworkId) {
    # Through it, containers reach the host's routes: their default gateway. Compartment 1 is the host's own.
    $Endpoint = Invoke-Hns 'POST' '/endpoints' @{
        Name = $Wanted.endpoint.name
        VirtualNetwork = $NetworkId
        IPAddress = $Wanted.endpoint.address
    }
    Invoke-Hns 'POST' "/endpoints/$($Endpoint.ID)/attach" @{ SystemType = 'Host'; CompartmentId = 1 } | Out-Null
}

function New-L2Bridge($Card) {
    # Without its endpoint, or without the host's address, the network is of no use: take it away again.
    $Network = Invoke-Hns 'POST' '/networks' @{
        Name = $Wanted.network
        Type = 'L2Bridge'
        NetworkAdapterName = [string]$Card.Name
        Subnets = @(@{ AddressPrefix = $Wanted.subnet; GatewayAddress = $Wanted.gateway })
    }
    try {
        Wait-Management $Network.ID
        if ($Wanted.endpoint) { New-HostEndpoint $Network.ID }
    } catch {
        $Problem = $_.Exception.Message
        try {
            Invoke-Hns 'DELETE' "/networks/$($Network.ID)" | Out-Null
        } catch {
            $Problem += ". The network is still there: $($_.Exception.Message)"
        }
        throw $Problem
    }
}

function Invoke-Work {
    $Result = [ordered]@{ state = 'running'; error = $null; before = $null; lostRoutes = @() }
    Save-Result $Result
    try {
        $Card = Get-CheckedCard
        $Result.before = Get-ConfigurationFact $Card
        Save-Result $Result
        New-L2Bridge $Card
        $Result.state = 'done'
    } catch {
        $Result.state = 'failed'
        $Result.error = $_.Exception.Message
    } finally {
        if ($Result.before) {
            $Now = Get-PersistentRoute
            $Result.lostRoutes = @($Result.before.persistentRoutes | Where-Object { $Now -notcontains $_ })
        }
        Save-Result $Result
        Unregister-ScheduledTask -TaskName $Task -Confirm:$false -ErrorAction SilentlyContinue
    }
    $Result.state -eq 'done'
}

function Start-Work {
    # Nothing triggers the task but this.
    $Script = Join-Path $PSScriptRoot 'create-l2bridge.ps1'
    $Arguments = "-NoProfile -NonInteractive -ExecutionPolicy Bypass -File `"$Script`" -Detached"
    $Registered = @{
        TaskName = $Task
        Action = New-ScheduledTaskAction -Execute 'powershell.exe' -Argument $Arguments
        Principal = New-ScheduledTaskPrincipal -UserId 'S-1-5-18' -LogonType ServiceAccount -RunLevel Highest
        Settings = New-ScheduledTaskSettingsSet -AllowStartIfOnBatteries -DontStopIfGoingOnBatteries
        Force = $true
    }
    Register-ScheduledTask @Registered | Out-Null
    if (Test-Path -LiteralPath $ResultFile) { Remove-Item -LiteralPath $ResultFile -Force }
    Start-ScheduledTask -TaskName $Task
}

if ($Detached) {
    if (Invoke-Work) { exit 0 }
    exit 1
}
try {
    $Card = Get-CheckedCard
    "HNS takes the network card $($Card.Name), with the address $($Wanted.management), for the l2bridge network" +
        " $($Wanted.network) ($($Wanted.subnet))."
    if (-not $Wanted.endpoint) {
        "The containers' gateway is the VM at $($Wanted.gateway), and the host gets no endpoint. EXPERIMENTAL: this" +
            ' has never been seen on a real Windows host.'
    }
    'Connections through it break, RDP and WinRM included. Be at the console, or be able to get there.'
    if (-not $Accept) {
        'Nothing was done. To do it: .\create-l2bridge.ps1 -Accept'
        exit 3
    }
    Start-Work
    "It runs as the scheduled task $Task; how it ended is in $ResultFile."
} catch {
    [Console]::Error.WriteLine("cannot create the network $($Wanted.network): $($_.Exception.Message)")
    exit 1
}
