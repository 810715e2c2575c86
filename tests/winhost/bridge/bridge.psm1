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
$script:Changes = 0
$script:Mark = '$read'
$script:Paths = 'Path', 'VHDPath', 'DestinationPath', 'ParentPath'

function Connect-Engine {
    $socket = [Net.Sockets.Socket]::new('Unix', 'Stream', 'Unspecified')
    $path = [Environment]::GetEnvironmentVariable('WINHOST_ENGINE')
    $socket.Connect([Net.Sockets.UnixDomainSocketEndPoint]::new($path))
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
        $type = $base.GetType().FullName
        if ($script:CimRoot.IsInstanceOfType($base)) { $type = $Value.PSObject.TypeNames[0] }
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

function Join-Here([string] $Here, [string] $Path) {
    if (-not $Path -or $Path -match '^([A-Za-z]:|[\\/])') { return $Path }
    $joined = "$Here\$Path" -replace '/', '\' -replace '\\\.(?=\\|$)'
    while ($joined -match '\\[^\\]+\\\.\.(?=\\|$)') {
        $joined = $joined.Remove($joined.IndexOf($Matches[0]), $Matches[0].Length)
    }
    $joined
}

# Hyper-V's cmdlets take a relative path from where PowerShell is.
function Resolve-FromHere([PSCmdlet] $Cmdlet, [string] $Name, $Value) {
    if ($Name -notin $script:Paths -or $Cmdlet.MyInvocation.MyCommand.ModuleName -ne 'Hyper-V') { return $Value }
    $here = $Cmdlet.SessionState.Path.CurrentFileSystemLocation.Path.TrimEnd('\')
    $paths = @(foreach ($one in @($Value)) { Join-Here $here $one })
    if ($Value -is [array]) { return , $paths }
    $paths[0]
}

function Format-Request([PSCmdlet] $Cmdlet, $Bound) {
    $set = if ($Cmdlet.ParameterSetName -eq '__AllParameterSets') { '' } else { $Cmdlet.ParameterSetName }
    $parameters = @{}
    foreach ($name in $Bound.Keys) {
        if ([Cmdlet]::CommonParameters.Contains($name) -or $name -eq 'WhatIf' -or $name -eq 'Confirm') { continue }
        $parameters[$name] = ConvertTo-Request (Resolve-FromHere $Cmdlet $name $Bound[$name])
    }
    $request = @{ cmdlet = $Cmdlet.MyInvocation.MyCommand.Name; parameters = $parameters; set = $set }
    [JsonSerializer]::Serialize($request, [hashtable])
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
    $null  # nothing at all would be an object of PowerShell's
}

function New-HyperVObject([type] $Type, [JsonElement] $Element) {
    $values = [Collections.Generic.Dictionary[string, object]]::new()
    $sent = $Element.GetProperty('properties')
    foreach ($property in $Type.GetProperties()) {
        $one = [JsonElement]::new()
        if ($sent.TryGetProperty($property.Name, [ref] $one) -and $one.ValueKind -ne 'Null') {
            $value = ConvertFrom-Answer $one
            $of = $property.PropertyType
            if (-not $of.IsInstanceOfType($value)) { $value = [LanguagePrimitives]::ConvertTo($value, $of) }
            if ($value -is [psobject]) { $value = $value.PSObject.BaseObject }
            $values[$property.Name] = $value
        } else { $values[$property.Name] = Get-Default $property.PropertyType }
    }
    foreach ($one in $sent.EnumerateObject()) {
        if (-not $values.ContainsKey($one.Name)) { throw [MissingMemberException]::new($Type.FullName, $one.Name) }
    }
    $values[$script:Mark] = New-Mark
    $id = $Element.GetProperty('id').GetString()
    $text = $Type.FullName
    if ($values.ContainsKey('Name')) { $text = "$($Type.Name) (Name = '$($values['Name'])') [Id = '$id']" }
    [Activator]::CreateInstance($Type, @($id, $text, $values))
}

# Hyper-V's objects show what is now. Each notes when it was read: after how many changes made here, and when.
function New-Mark { , [long[]] @($script:Changes, [Diagnostics.Stopwatch]::GetTimestamp()) }

function Update-HyperVObject($Object) {
    $values = $script:Root.GetField('values', $script:Internal).GetValue($Object)
    $mark = $values[$script:Mark]
    $age = [Diagnostics.Stopwatch]::GetTimestamp() - $mark[1]
    $young = $age -lt [Diagnostics.Stopwatch]::Frequency / 4
    if ($mark[0] -eq $script:Changes -and $young) { return }
    $values[$script:Mark] = New-Mark
    $ref = ConvertTo-Request $Object
    $answer = Send-Request ([JsonSerializer]::Serialize(@{ refresh = $ref }, [hashtable]))
    $item = $answer.GetProperty('item')
    if ($item.ValueKind -eq 'Null') { $values['IsDeleted'] = $true; return }
    $new = $script:Root.GetField('values', $script:Internal).GetValue((ConvertFrom-Answer $item))
    foreach ($name in @($new.Keys)) { $values[$name] = $new[$name] }
}

$script:Types.GetType('Windows.Bridge').GetField('Fresh').SetValue($null, [Action[object]] {
    param($Object)
    Update-HyperVObject $Object
})

function New-CimObject([string] $Name, [JsonElement] $Element) {
    $id = $Element.GetProperty('id').GetString()
    $class = $Name -replace '^.*[#/]'
    $text = "$class (InstanceID = `"$id`")"
    $none = [Collections.Generic.Dictionary[string, object]]::new()
    $object = [psobject]::AsPSObject([Activator]::CreateInstance($script:CimRoot, @($id, $text, $none)))
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
        $described = [pscustomobject] @{ CimClassName = $class; CimSystemProperties = $system }
        $object.PSObject.Properties.Add([PSNoteProperty]::new('CimClass', $described))
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

function New-Record([JsonElement] $Error_) {
    $exception = New-Exception $Error_.GetProperty('exception').GetString() $Error_.GetProperty('message').GetString()
    $target = ConvertFrom-Answer $Error_.GetProperty('target')
    $id, $category = foreach ($name in 'id', 'category') { $Error_.GetProperty($name).GetString() }
    [ErrorRecord]::new($exception, $id, $category, $target)
}

# Sends a call and hands out what comes back; gives the record of the error that ends it, if one does.
function Invoke-Engine([PSCmdlet] $Cmdlet, $Bound) {
    if ($Cmdlet.MyInvocation.MyCommand.Name -notlike 'Get-*') { $script:Changes++ }
    $answer = Send-Request (Format-Request $Cmdlet $Bound)
    foreach ($output in $answer.GetProperty('outputs').EnumerateArray()) {
        $one = [JsonElement]::new()
        if ($output.TryGetProperty('error', [ref] $one)) { $Cmdlet.WriteError((New-Record $one)) }
        elseif ($output.TryGetProperty('warning', [ref] $one)) { $Cmdlet.WriteWarning($one.GetString()) }
        else { $Cmdlet.WriteObject((ConvertFrom-Answer $output.GetProperty('value'))) }
    }
    $last = $answer.GetProperty('error')
    if ($last.ValueKind -eq 'Null') { return }
    $record = New-Record $last
    if ($last.GetProperty('terminating').GetBoolean()) { return $record }
    $Cmdlet.WriteError($record)
}

# Asks as ShouldProcess does; where nobody can answer, the error is the cmdlet's own: it is given back.
function Test-Consent([PSCmdlet] $Cmdlet, $Bound) {
    if ($Bound['Force'] -and -not $Bound.ContainsKey('Confirm') -and -not $Bound['WhatIf']) { return $true }
    try { return $Cmdlet.ShouldProcess((Get-Target $Bound)) }
    catch [MethodInvocationException] {
        return [ErrorRecord]::new($_.Exception.InnerException, 'InvalidOperation', 'InvalidOperation', $null)
    }
}

function Invoke-Cmdlet([PSCmdlet] $Cmdlet, $Bound) {
    if ($Cmdlet.MyInvocation.MyCommand.Parameters.ContainsKey('WhatIf')) {
        $consent = Test-Consent $Cmdlet $Bound
        if ($consent -is [ErrorRecord]) { return $consent }
        if (-not $consent) { return }
    }
    Invoke-Engine $Cmdlet $Bound
}

# For functions; compiled cmdlets call Run.
function Invoke-Emulated([PSCmdlet] $Cmdlet, $Bound) {
    $record = Invoke-Cmdlet $Cmdlet $Bound
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

$script:Types.GetType('Windows.Bridge').GetField('Run').SetValue($null, [Func[PSCmdlet, ErrorRecord]] {
    param($Cmdlet)
    $bound = $Cmdlet.MyInvocation.BoundParameters
    Set-CallerPreference $Cmdlet $bound
    Invoke-Cmdlet $Cmdlet $bound
})

function Get-Target($Bound) {
    foreach ($name in 'VM', 'Name', 'VMName', 'InputObject', 'DestinationPrefix', 'IPAddress', 'Path') {
        if (-not $Bound.ContainsKey($name)) { continue }
        return @(foreach ($one in @($Bound[$name])) { if ($one.Name) { $one.Name } else { "$one" } }) -join ', '
    }
    "$env:COMPUTERNAME"
}

Export-ModuleMember -Function Invoke-Emulated
