# [Net.Dns] of the host: by its own rules for names and its hosts file. What the stand-in has by itself asks this
# machine's servers. A part of the module DnsClient.
class EmulatedDns {
    static [Type] $Engine
    static [Type] $Before

    static [Net.IPAddress[]] GetHostAddresses([string] $Name) {
        $asked = @{ cmdlet = '[Net.Dns]::GetHostAddresses'; set = ''; parameters = @{ Name = $Name } }
        $way = [EmulatedDns]::Engine
        $line = ConvertTo-Json $asked -Compress
        $answer = ConvertFrom-Json ($way::Ask($line).ToString())
        if ($answer.error) { throw [Net.Sockets.SocketException]::new([int] $answer.error.id) }
        return [Net.IPAddress[]] @($answer.outputs | ForEach-Object { [Net.IPAddress] $_.value })
    }

    static [Net.IPHostEntry] GetHostEntry([string] $Name) {
        $own = [EmulatedDns]::Before
        return $own::GetHostEntry($Name)
    }

    static [string] GetHostName() {
        $own = [EmulatedDns]::Before
        return $own::GetHostName()
    }
}

$types = [psobject].Assembly.GetType('System.Management.Automation.TypeAccelerators')
$builtin = $types.GetField('builtinTypeAccelerators', [Reflection.BindingFlags] 'Static,NonPublic').GetValue($null)
[EmulatedDns]::Engine = [Reflection.Assembly]::LoadFrom("$PSScriptRoot/../../Windows.Engine.dll").GetType('Windows.Engine')
[EmulatedDns]::Before = $builtin['Net.Dns']
$builtin['Net.Dns'] = $builtin['System.Net.Dns'] = [EmulatedDns]
