# A part of the module DnsClient: [Net.Dns] is the host's (dns.ps1).
$types = [psobject].Assembly.GetType('System.Management.Automation.TypeAccelerators')
$builtin = $types.GetField('builtinTypeAccelerators', [Reflection.BindingFlags] 'Static,NonPublic').GetValue($null)
$null = [Reflection.Assembly]::LoadFrom("$PSScriptRoot/../../Windows.Engine.dll")
$dns = [Reflection.Assembly]::LoadFrom("$PSScriptRoot/../../Windows.Dns.dll").GetType('Windows.Dns')
$builtin['Net.Dns'] = $builtin['System.Net.Dns'] = $dns
