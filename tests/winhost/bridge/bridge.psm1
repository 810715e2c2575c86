# What of the way between cmdlets and the engine is done by script, as it is seldom needed: asking for consent,
# and exceptions of types that are nowhere. The rest is compiled, from engine.ps1.

using namespace System.Management.Automation

$script:Types = [Reflection.Assembly]::LoadFrom("$PSScriptRoot/Windows.Modules.dll")
$script:Engine = [Reflection.Assembly]::LoadFrom("$PSScriptRoot/Windows.Engine.dll").GetType('Windows.Engine')
$script:Internal = [Reflection.BindingFlags] 'Instance,NonPublic'
$script:Exceptions = @{}

function New-Exception([string] $Name, [string] $Message) {
    $type = $Name -as [type]
    if (-not $type) { $type = $script:Exceptions[$Name] }
    if (-not $type) {
        $assembly = [Reflection.AssemblyName]::new($Name)
        $module = [Reflection.Emit.AssemblyBuilder]::DefineDynamicAssembly($assembly, 'Run').DefineDynamicModule('E')
        $builder = $module.DefineType($Name, 'Public', [Exception])
        $il = $builder.DefineConstructor('Public', 'Standard', [type[]] @([string])).GetILGenerator()
        $il.Emit([Reflection.Emit.OpCodes]::Ldarg_0)
        $il.Emit([Reflection.Emit.OpCodes]::Ldarg_1)
        $il.Emit([Reflection.Emit.OpCodes]::Call, [Exception].GetConstructor(@([string])))
        $il.Emit([Reflection.Emit.OpCodes]::Ret)
        $type = $script:Exceptions[$Name] = $builder.CreateType()
    }
    [Activator]::CreateInstance($type, @($Message))
}

# Asks as ShouldProcess does; where nobody can answer, the error is the cmdlet's own: it is given back.
function Test-Consent([PSCmdlet] $Cmdlet, $Bound) {
    if ($Bound['Force'] -and -not $Bound.ContainsKey('Confirm') -and -not $Bound['WhatIf']) { return $true }
    try { return $Cmdlet.ShouldProcess((Get-Target $Bound)) }
    catch [MethodInvocationException] {
        return [ErrorRecord]::new($_.Exception.InnerException, 'InvalidOperation', 'InvalidOperation', $null)
    }
}

# For functions; compiled cmdlets call the engine themselves.
function Invoke-Emulated([PSCmdlet] $Cmdlet) {
    $record = $script:Engine::Run($Cmdlet)
    if ($record) { $Cmdlet.ThrowTerminatingError($record) }
}

# A compiled cmdlet goes by its caller's preferences; while code of this module runs, PowerShell would ask
# this module for them. (A module's function sees only global ones.)
function Set-CallerPreference([PSCmdlet] $Cmdlet, $Bound) {
    $runtime, $variables = $Cmdlet.CommandRuntime, $Cmdlet.SessionState.PSVariable
    if (-not $Bound.ContainsKey('ErrorAction')) {
        $preference = [ActionPreference] $variables.GetValue('ErrorActionPreference')
        $runtime.GetType().GetProperty('ErrorAction', $script:Internal).SetValue($runtime, $preference)
    }
    if (-not $Bound.ContainsKey('WarningAction')) {
        $preference = [ActionPreference] $variables.GetValue('WarningPreference')
        $runtime.GetType().GetProperty('WarningPreference', $script:Internal).SetValue($runtime, $preference)
    }
    $impact = [ConfirmImpact] $variables.GetValue('ConfirmPreference')
    $runtime.GetType().GetField('_confirmPreference', $script:Internal).SetValue($runtime, $impact)
    $runtime.GetType().GetField('_isConfirmPreferenceCached', $script:Internal).SetValue($runtime, $true)
}

function Get-Target($Bound) {
    foreach ($name in 'VM', 'Name', 'VMName', 'InputObject', 'DestinationPrefix', 'IPAddress', 'Path') {
        if (-not $Bound.ContainsKey($name)) { continue }
        return @(foreach ($one in @($Bound[$name])) { if ($one.Name) { $one.Name } else { "$one" } }) -join ', '
    }
    "$env:COMPUTERNAME"
}

$script:Engine::Types = $script:Types
$script:Engine::CimRoot = $script:Types.GetType('Microsoft.Management.Infrastructure.CimInstance')
$script:Engine::NewException = [Func[string, string, Exception]] {
    param($Name, $Message)
    New-Exception $Name $Message
}
$script:Engine::AskConsent = [Func[PSCmdlet, object, object]] {
    param($Cmdlet, $Bound)
    if ($Cmdlet.CommandRuntime -and $Cmdlet.MyInvocation.MyCommand.CommandType -eq 'Cmdlet') {
        Set-CallerPreference $Cmdlet $Bound
    }
    $consent = Test-Consent $Cmdlet $Bound
    if ($consent) { $consent }  # $false is as nothing
}
$refresh = $script:Engine.GetMethod('Refresh').CreateDelegate([Action[object]])
$script:Types.GetType('Windows.Bridge').GetField('Fresh').SetValue($null, $refresh)

Export-ModuleMember -Function Invoke-Emulated
