# Collects facts that may prevent vmproxy from working on this host, or conflict with it; changes nothing.
# Each fact is {"value"} or {"error"}: a fact that cannot be read does not hide the others.
param($Data, $Session)
. $Session.Lib

function Get-Fact([scriptblock] $Look) {
    try { @{ value = (& $Look) } } catch { @{ error = $_.Exception.Message } }
}

function Get-SystemPolicy([string] $Name) {
    $Key = 'HKLM:\SOFTWARE\Microsoft\Windows\CurrentVersion\Policies\System'
    $Value = (Get-ItemProperty -LiteralPath $Key).$Name
    if ($null -eq $Value) { 0 } else { [int]$Value }
}

function Get-Interface {
    $Index = Get-OnLinkInterface $Data.address
    $Interface = NetTCPIP\Get-NetIPInterface -InterfaceIndex $Index -AddressFamily IPv4
    [ordered]@{
        alias = [string]$Interface.InterfaceAlias
        mtu = [long]$Interface.NlMtu
        forwarding = [string]$Interface.Forwarding
    }
}

function Get-SwitchFact {
    $Switches = @(Hyper-V\Get-VMSwitch -ComputerName (Get-ThisComputer) | Where-Object { $_.Name -ceq $Data.switch })
    if ($Switches.Count -ne 1) { return $null }
    # Server 2016 lacks it.
    $Coalescing = $Switches[0].PSObject.Properties['SoftwareRscEnabled']
    [ordered]@{
        type = [string]$Switches[0].SwitchType
        coalescing = if ($Coalescing) { [bool]$Coalescing.Value } else { $false }
        nat = [bool]@(NetNat\Get-NetNat).Count
    }
}

function Get-FilteringExtension {
    # Of an SDN: it blocks a port that it has no profile for. Windows' own filtering platform is known by its id, as
    # names are localized.
    @(Hyper-V\Get-VMSwitchExtension -VMSwitchName $Data.switch -ComputerName (Get-ThisComputer) |
        Where-Object { $_.Enabled -and "$($_.ExtensionType)" -in 'Forwarding', 'Filter' -and
            "$($_.Id)" -ne 'E7C3B2F0-F3C5-48DF-AF2B-10FED6D72E7A' } |
        ForEach-Object { [string]$_.Name })
}

function Get-PortRule {
    # Access control lists on the VM's port: they may drop packets whose source is not the VM.
    $Vm = Get-VMByName $Data.vm
    if ($null -eq $Vm) { return 0 }
    $Adapters = @(Hyper-V\Get-VMNetworkAdapter -VM $Vm)
    $Rules = @($Adapters | ForEach-Object { $_.AclList; $_.ExtendedAclList } | Where-Object { $_ })
    $Rules.Count
}

function Test-HnsRuns {
    # Its cmdlets fail where it does not run.
    $Service = Get-Service -Name hns -ErrorAction SilentlyContinue
    "$($Service.Status)" -eq 'Running'
}

function Get-HnsSwitch {
    # The kinds of network, of those that HNS makes a switch of their own for, on the site's switch.
    if (-not (Get-Command Get-HnsNetwork -ErrorAction SilentlyContinue)) { return @() }
    if (-not (Test-HnsRuns)) { return @() }
    @(Get-HnsNetwork | Where-Object { $_.Name -eq $Data.switch -or $_.SwitchName -eq $Data.switch } |
        ForEach-Object { [string]$_.Type } | Where-Object { $_ -notin 'Transparent', 'ICS' })
}

function Get-HnsLoadBalancer {
    # Only hosts with containers have this cmdlet.
    if (-not (Get-Command Get-HnsPolicyList -ErrorAction SilentlyContinue)) { return @() }
    if (-not (Test-HnsRuns)) { return @() }
    $Policies = @(Get-HnsPolicyList | ForEach-Object { $_.Policies })
    @($Policies | ForEach-Object { $_.VIPs } | Where-Object { $_ } | ForEach-Object { [string]$_ })
}

function Get-HyperVFeature {
    if (Get-Command Get-WindowsFeature -ErrorAction SilentlyContinue) {
        return [string](Get-WindowsFeature -Name Hyper-V).InstallState
    }
    [string](Get-WindowsOptionalFeature -Online -FeatureName Microsoft-Hyper-V).State
}

$Me = [Security.Principal.WindowsIdentity]::GetCurrent()
$Principal = New-Object Security.Principal.WindowsPrincipal $Me
$Names = 'vmms', 'ClusSvc', 'RemoteAccess', 'kubeproxy', 'kube-proxy', 'antrea-agent'
$Programs = 'kube-proxy.exe', 'antrea-agent.exe', 'flanneld.exe', 'calico-node.exe', 'kubelet.exe'
[ordered]@{
    powershell = Get-Fact { $PSVersionTable.PSVersion.ToString() }
    user = Get-Fact { [string]$Me.Name }
    administrator = Get-Fact { $Principal.IsInRole([Security.Principal.WindowsBuiltInRole]::Administrator) }
    remoteAccounts = Get-Fact { Get-SystemPolicy 'LocalAccountTokenFilterPolicy' }
    time = Get-Fact { [DateTime]::UtcNow.ToString('o') }
    feature = Get-Fact { Get-HyperVFeature }
    services = Get-Fact {
        # Not of all services: one that cannot be read would be an error.
        @(Get-Service -Name $Names -ErrorAction SilentlyContinue |
            ForEach-Object { [ordered]@{ name = [string]$_.Name; status = [string]$_.Status } })
    }
    programs = Get-Fact {
        @(CimCmdlets\Get-CimInstance -ClassName Win32_Process | Where-Object { $Programs -contains $_.Name } |
            ForEach-Object { [string]$_.Name })
    }
    switch = Get-Fact { Get-SwitchFact }
    extensions = Get-Fact { @(Get-FilteringExtension) }
    portRules = Get-Fact { [int](Get-PortRule) }
    redirects = Get-Fact { [string](NetTCPIP\Get-NetIPv4Protocol).IcmpRedirects }
    hnsSwitch = Get-Fact { @(Get-HnsSwitch) }
    balancers = Get-Fact { @(Get-HnsLoadBalancer) }
    interface = Get-Fact { Get-Interface }
    defaultRoutes = Get-Fact {
        @(Get-IPv4Route 'ActiveStore' | Where-Object { $_.DestinationPrefix -eq '0.0.0.0/0' } |
            ForEach-Object { [string]$_.NextHop })
    }
    hypervisor = Get-Fact { [bool](CimCmdlets\Get-CimInstance -ClassName Win32_ComputerSystem).HypervisorPresent }
    secureBoot = Get-Fact {
        @((Hyper-V\Get-VMHost -ComputerName (Get-ThisComputer)).SecureBootTemplates | ForEach-Object { [string]$_.Id })
    }
    macPool = Get-Fact {
        $VMHost = Hyper-V\Get-VMHost -ComputerName (Get-ThisComputer)
        [ordered]@{
            macMinimum = [string]$VMHost.MacAddressMinimum
            macMaximum = [string]$VMHost.MacAddressMaximum
        }
    }
    adapters = Get-Fact {
        @(Hyper-V\Get-VMNetworkAdapter -ComputerName (Get-ThisComputer) -All |
            ForEach-Object { [ordered]@{ vm = [string]$_.VMName; mac = [string]$_.MacAddress } })
    }
}
