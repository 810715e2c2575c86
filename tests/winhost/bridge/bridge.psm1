# Between the functions of the generated modules and the engine, tests/winhost/engine.py: a line of
# JSON with the bound parameters goes there, a line with objects and errors comes back.

using namespace System.Management.Automation
using namespace System.Text.Json

$script:Types = [Reflection.Assembly]::LoadFrom("$PSScriptRoot/Windows.Modules.dll")
$script:Root = $script:Types.GetType('Microsoft.HyperV.PowerShell.VirtualizationObject')
$script:CimRoot = $script:Types.GetType('Microsoft.Management.Infrastructure.CimInstance')
$script:Internal = [Reflection.BindingFlags] 'Instance,NonPublic'
$script:Enums = @{}
$script:Exceptions = @{}
$script:Reader = $null

function Connect-Engine {
    $socket = [Net.Sockets.Socket]::new('Unix', 'Stream', 'Unspecified')
    $socket.Connect([Net.Sockets.UnixDomainSocketEndPoint]::new([Environment]::GetEnvironmentVariable('WINHOST_ENGINE')))
    $stream = [Net.Sockets.NetworkStream]::new($socket, $true)
    $script:Reader = [IO.StreamReader]::new($stream)
    $script:Writer = [IO.StreamWriter]::new($stream, [Text.UTF8Encoding]::new($false))
    $script:Writer.AutoFlush = $true
}

function Send-Request([string] $Line) {
    if ($null -eq $script:Reader) { Connect-Engine }
    $script:Writer.Write($Line + "`n")
    $answer = $script:Reader.ReadLine()
    if ($null -eq $answer) { $script:Reader = $null; throw [IO.IOException]::new('the emulated host is gone') }
    [JsonDocument]::Parse($answer).RootElement
}

# --- to the engine

function ConvertTo-Request($Value) {
    if ($Value -is [psobject]) { $base = $Value.PSObject.BaseObject } else { $base = $Value }
    if ($null -eq $base -or $base -is [string] -or $base -is [bool]) { return $base }
    if ($base -is [SwitchParameter]) { return [bool] $base }
    if ($script:Root.IsInstanceOfType($base)) {
        $type = if ($script:CimRoot.IsInstanceOfType($base)) { $Value.PSObject.TypeNames[0] } else { $base.GetType().FullName }
        return @{ '$type' = $type; '$ref' = $script:Root.GetField('id', $script:Internal).GetValue($base) }
    }
    if ($base -is [enum]) { return $base.ToString() }
    if ($base -is [timespan]) { return $base.TotalSeconds }
    if ($base -is [datetime]) { return $base.ToString('o') }
    if ($base -is [valuetype] -and $base -isnot [guid]) { return $base }
    if ($base -is [Collections.IDictionary]) {
        $table = @{}
        foreach ($key in $base.Keys) { $table["$key"] = ConvertTo-Request $base[$key] }
        return $table
    }
    if ($base -is [Collections.IEnumerable]) {
        return , @(foreach ($one in $base) { ConvertTo-Request $one })
    }
    if ($base -is [PSCustomObject]) {
        $table = @{}
        foreach ($property in $Value.PSObject.Properties) { $table[$property.Name] = ConvertTo-Request $property.Value }
        return $table
    }
    "$base"
}

function Format-Request([string] $Cmdlet, $Bound, [string] $Set) {
    $parameters = @{}
    foreach ($name in $Bound.Keys) {
        if ([Cmdlet]::CommonParameters.Contains($name) -or $name -eq 'WhatIf' -or $name -eq 'Confirm') { continue }
        $parameters[$name] = ConvertTo-Request $Bound[$name]
    }
    if ($Set -eq '__AllParameterSets') { $Set = '' }
    [JsonSerializer]::Serialize(@{ cmdlet = $Cmdlet; parameters = $parameters; set = $Set }, [hashtable])
}

# --- from the engine

function ConvertFrom-Answer([JsonElement] $Element) {
    switch ($Element.ValueKind) {
        'String' { return $Element.GetString() }
        'True' { return $true }
        'False' { return $false }
        'Number' {
            $number = 0
            if ($Element.TryGetInt32([ref] $number)) { return $number }
            $long = [long] 0
            if ($Element.TryGetInt64([ref] $long)) { return $long }
            return $Element.GetDouble()
        }
        'Object' { return ConvertFrom-Typed $Element }
    }
}

function ConvertFrom-Typed([JsonElement] $Element) {
    $kind = $Element.GetProperty('$').GetString()
    if ($kind -eq 'item') { return New-Emulated $Element }
    $value = $Element.GetProperty('value')
    switch -Wildcard ($kind) {
        'list' { return , @(foreach ($one in $value.EnumerateArray()) { ConvertFrom-Answer $one }) }
        'table' {
            $table = @{}
            foreach ($one in $value.EnumerateObject()) { $table[$one.Name] = ConvertFrom-Answer $one.Value }
            return $table
        }
        'guid' { return [guid] $value.GetString() }
        'version' { return [version] $value.GetString() }
        'timespan' { return [timespan]::FromSeconds($value.GetDouble()) }
        'datetime' { return [datetime]::Parse($value.GetString(), [cultureinfo]::InvariantCulture, 'RoundtripKind') }
        'enum:*' { return Find-Member $kind.Substring(5) $value.GetString() }
        'cimenum' { return Get-CimMember $value[0].GetInt32() $value[1].GetString() }
        default { return [LanguagePrimitives]::ConvertTo((ConvertFrom-Answer $value), [type] $kind) }
    }
}

function Find-Member([string] $Name, [string] $Member) {
    foreach ($space in 'Microsoft.HyperV.PowerShell.', 'Microsoft.Vhd.PowerShell.', '') {
        $type = $script:Types.GetType("$space$Name")
        if ($type) { return [enum]::Parse($type, $Member) }
    }
    [enum]::Parse([type] $Name, $Member)
}

# An enum that has this one number: its ToString is the text, its JSON the number, as CIM's are.
function Get-CimMember([int] $Number, [string] $Text) {
    $key = "$Number $Text"
    if (-not $script:Enums.ContainsKey($key)) {
        $name = [Reflection.AssemblyName]::new("Cim$($script:Enums.Count)")
        $module = [Reflection.Emit.AssemblyBuilder]::DefineDynamicAssembly($name, 'Run').DefineDynamicModule('Cim')
        $enum = $module.DefineEnum("Microsoft.PowerShell.Cmdletization.GeneratedTypes.$Text", 'Public', [int])
        $null = $enum.DefineLiteral($Text, $Number)
        $script:Enums[$key] = [enum]::ToObject($enum.CreateType(), $Number)
    }
    $script:Enums[$key]
}

function New-Emulated([JsonElement] $Element) {
    $name = $Element.GetProperty('type').GetString()
    $type = $script:Types.GetType($name)
    if ($type) { return New-HyperVObject $type $Element }
    New-CimObject $name $Element
}

function Get-Default([type] $Type) {
    if ($Type.IsValueType -and -not [Nullable]::GetUnderlyingType($Type)) { return [Activator]::CreateInstance($Type) }
    if ($Type.IsArray) { return , [array]::CreateInstance($Type.GetElementType(), 0) }
}

function New-HyperVObject([type] $Type, [JsonElement] $Element) {
    $values = [Collections.Generic.Dictionary[string, object]]::new()
    $sent = $Element.GetProperty('properties')
    foreach ($property in $Type.GetProperties()) {
        $one = [JsonElement]::new()
        if ($sent.TryGetProperty($property.Name, [ref] $one) -and $one.ValueKind -ne 'Null') {
            $value = ConvertFrom-Answer $one
            if (-not $property.PropertyType.IsInstanceOfType($value)) { $value = [LanguagePrimitives]::ConvertTo($value, $property.PropertyType) }
            if ($value -is [psobject]) { $value = $value.PSObject.BaseObject }
            $values[$property.Name] = $value
        } else { $values[$property.Name] = Get-Default $property.PropertyType }
    }
    foreach ($one in $sent.EnumerateObject()) {
        if (-not $values.ContainsKey($one.Name)) { throw [MissingMemberException]::new($Type.FullName, $one.Name) }
    }
    $id = $Element.GetProperty('id').GetString()
    $text = if ($values.ContainsKey('Name')) { "$($Type.Name) (Name = '$($values['Name'])') [Id = '$id']" } else { $Type.FullName }
    [Activator]::CreateInstance($Type, @($id, $text, $values))
}

function New-CimObject([string] $Name, [JsonElement] $Element) {
    $id = $Element.GetProperty('id').GetString()
    $class = $Name -replace '^.*[#/]'
    $text = "$class (InstanceID = `"$id`")"
    $object = [psobject]::AsPSObject([Activator]::CreateInstance($script:CimRoot, @($id, $text, [Collections.Generic.Dictionary[string, object]]::new())))
    $names = $object.PSObject.TypeNames
    $names.Clear()
    $names.Add($Name)
    if ($Name.Contains('#')) { $names.Add(($Name -replace '#.*/', '#')); $names.Add(($Name -replace '#.*')) }
    foreach ($property in $Element.GetProperty('properties').EnumerateObject()) {
        $object.PSObject.Properties.Add([PSNoteProperty]::new($property.Name, (ConvertFrom-Answer $property.Value)))
    }
    if ($Name.Contains('#')) {
        $namespace = $Name -replace '^.*?#' -replace '/[^/]*$'
        $system = [pscustomobject] @{ Namespace = $namespace; ServerName = $env:COMPUTERNAME; ClassName = $class }
        $object.PSObject.Properties.Add([PSNoteProperty]::new('CimClass', [pscustomobject] @{ CimClassName = $class; CimSystemProperties = $system }))
        $object.PSObject.Properties.Add([PSNoteProperty]::new('CimSystemProperties', $system))
    }
    $object
}

# --- errors

function New-Exception([string] $Name, [string] $Message) {
    $type = $script:Types.GetType($Name)
    if (-not $type) { $type = $Name -as [type] }
    if (-not $type) { $type = $script:Exceptions[$Name] }
    if (-not $type) {
        $module = [Reflection.Emit.AssemblyBuilder]::DefineDynamicAssembly([Reflection.AssemblyName]::new($Name), 'Run').DefineDynamicModule('E')
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

function New-Record([JsonElement] $Error_) {
    $exception = New-Exception $Error_.GetProperty('exception').GetString() $Error_.GetProperty('message').GetString()
    $target = ConvertFrom-Answer $Error_.GetProperty('target')
    [ErrorRecord]::new($exception, $Error_.GetProperty('id').GetString(), $Error_.GetProperty('category').GetString(), $target)
}

# A compiled cmdlet's error id ends with its class, a function's with its name.
function Set-Suffix([ErrorRecord] $Record, [string] $Class) {
    if (-not $Class) { return }
    $field = [ErrorRecord].GetField('_serializedFullyQualifiedErrorId', $script:Internal)
    $field.SetValue($Record, "$($Record.FullyQualifiedErrorId -replace ',.*'),$Class")
}

function Invoke-Emulated([PSCmdlet] $Cmdlet, $Bound, [string] $Class) {
    $name = $Cmdlet.MyInvocation.MyCommand.Name
    Set-CallerPreference $Cmdlet $Bound $Class
    $answer = Send-Request (Format-Request $name $Bound $Cmdlet.ParameterSetName)
    foreach ($output in $answer.GetProperty('outputs').EnumerateArray()) {
        $one = [JsonElement]::new()
        if ($output.TryGetProperty('error', [ref] $one)) {
            $record = New-Record $one
            Set-Suffix $record $Class
            $Cmdlet.WriteError($record)
        } elseif ($output.TryGetProperty('warning', [ref] $one)) { $Cmdlet.WriteWarning($one.GetString()) }
        else { $Cmdlet.WriteObject((ConvertFrom-Answer $output.GetProperty('value'))) }
    }
    $last = $answer.GetProperty('error')
    if ($last.ValueKind -eq 'Null') { return }
    $record = New-Record $last
    Set-Suffix $record $Class
    if ($last.GetProperty('terminating').GetBoolean()) { $Cmdlet.ThrowTerminatingError($record) }
    $Cmdlet.WriteError($record)
}

# A compiled cmdlet goes by its caller's preferences; a module's function sees only global ones.
function Set-CallerPreference([PSCmdlet] $Cmdlet, $Bound, [string] $Class) {
    if (-not $Class) { return }
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

# Asks as ShouldProcess does; where nobody can answer, the error is the cmdlet's own.
function Confirm-Emulated([PSCmdlet] $Cmdlet, $Bound, [string] $Class) {
    if ($Bound['Force'] -and -not $Bound.ContainsKey('Confirm') -and -not $Bound['WhatIf']) { return $true }
    Set-CallerPreference $Cmdlet $Bound $Class
    try { return $Cmdlet.ShouldProcess((Get-Target $Bound)) }
    catch [MethodInvocationException] {
        $record = [ErrorRecord]::new($_.Exception.InnerException, 'InvalidOperation', 'InvalidOperation', $null)
        Set-Suffix $record $Class
        $Cmdlet.ThrowTerminatingError($record)
    }
}

function Get-Target($Bound) {
    foreach ($name in 'VM', 'Name', 'VMName', 'InputObject', 'DestinationPrefix', 'IPAddress', 'Path') {
        if ($Bound.ContainsKey($name)) { return (@($Bound[$name]) | ForEach-Object { if ($_.Name) { $_.Name } else { "$_" } }) -join ', ' }
    }
    "$env:COMPUTERNAME"
}

Export-ModuleMember -Function Invoke-Emulated, Confirm-Emulated
