# Makes the assemblies of Windows' modules: one of types (enums, classes whose properties are read from a
# dictionary, exceptions), one of engine.ps1, and one of cmdlets for each module of compiled ones. Run once for
# each set of tables; input and output: tests/winhost/modules.py.

using namespace System.Management.Automation
using namespace System.Reflection
using namespace System.Reflection.Emit

Import-Module $PSScriptRoot/compile.psm1

$script:Made = @{}
$script:Live = 'Microsoft.HyperV.PowerShell.VirtualMachine', 'Microsoft.HyperV.PowerShell.VMNetworkAdapter'

function Find-EmittedType([string] $Name) {
    if ($Name.EndsWith('[]')) { return (Find-EmittedType $Name.Substring(0, $Name.Length - 2)).MakeArrayType() }
    if ($Name.EndsWith('?')) { return [Nullable`1].MakeGenericType((Find-EmittedType $Name.TrimEnd('?'))) }
    if ($script:Made.ContainsKey($Name)) { return $script:Made[$Name] }
    $found = [type]::GetType("System.$Name")
    if ($found) { $found } else { [object] }
}

function Add-Enum($Module, [string] $Name, $Members) {
    $enum = $Module.DefineEnum($Name, 'Public', [int])
    foreach ($member in $Members.PSObject.Properties) { $null = $enum.DefineLiteral($member.Name, [int] $member.Value) }
    $script:Made[$Name] = $enum.CreateType()
}

function Add-Root($Module, [string] $Name) {
    $root = $Module.DefineType($Name, 'Public,Class')
    $values = [Collections.Generic.Dictionary[string, object]]
    $fields = foreach ($field in @('id', [string]), @('text', [string]), @('values', $values)) {
        $root.DefineField($field[0], $field[1], 'Assembly')
    }
    $new = $root.DefineConstructor('Public', 'Standard', [type[]] @($fields.FieldType))
    $il = $new.GetILGenerator()
    $il.Emit([OpCodes]::Ldarg_0)
    $il.Emit([OpCodes]::Call, [object].GetConstructor(@()))
    foreach ($i in 0..2) {
        $il.Emit([OpCodes]::Ldarg_0)
        $il.Emit([OpCodes]::Ldarg, [int16] ($i + 1))
        $il.Emit([OpCodes]::Stfld, $fields[$i])
    }
    $il.Emit([OpCodes]::Ret)
    $il = $root.DefineMethod('ToString', 'Public,Virtual,HideBySig', [string], @()).GetILGenerator()
    $il.Emit([OpCodes]::Ldarg_0)
    $il.Emit([OpCodes]::Ldfld, $fields[1])
    $il.Emit([OpCodes]::Ret)
    $script:Made[$Name] = $root
    $script:Constructors[$Name] = $new
    $script:Values[$Name] = $fields[2]
}

function Add-Class($Module, $Class) {
    if (-not $Class.base) { return Add-Root $Module $Class.name }
    $type = $Module.DefineType($Class.name, 'Public,Class', $script:Made[$Class.base])
    $root = $Class.base
    $arguments = [type[]] @([string], [string], [Collections.Generic.Dictionary[string, object]])
    $new = $type.DefineConstructor('Public', 'Standard', $arguments)
    $il = $new.GetILGenerator()
    foreach ($code in 'Ldarg_0', 'Ldarg_1', 'Ldarg_2', 'Ldarg_3') { $il.Emit([OpCodes]::$code) }
    $il.Emit([OpCodes]::Call, $script:Constructors[$root])
    $il.Emit([OpCodes]::Ret)
    $script:Made[$Class.name] = $type
    $script:Constructors[$Class.name] = $new
    $script:Values[$Class.name] = $script:Values[$root]
}

function Add-Properties($Class) {
    $get = [Collections.Generic.Dictionary[string, object]].GetMethod('get_Item')
    foreach ($property in $Class.properties.PSObject.Properties) {
        $of = Find-EmittedType $property.Value
        $type = $script:Made[$Class.name]
        $getter = $type.DefineMethod("get_$($property.Name)", 'Public,HideBySig,SpecialName', $of, @())
        $il = $getter.GetILGenerator()
        if ($Class.name -in $script:Live) {
            $il.Emit([OpCodes]::Ldsfld, $script:Fresh)
            $il.Emit([OpCodes]::Ldarg_0)
            $il.Emit([OpCodes]::Callvirt, [Action[object]].GetMethod('Invoke'))
        }
        $il.Emit([OpCodes]::Ldarg_0)
        $il.Emit([OpCodes]::Ldfld, $script:Values[$Class.name])
        $il.Emit([OpCodes]::Ldstr, $property.Name)
        $il.Emit([OpCodes]::Callvirt, $get)
        $il.Emit([OpCodes]::Unbox_Any, $of)
        $il.Emit([OpCodes]::Ret)
        $type.DefineProperty($property.Name, 'None', $of, $null).SetGetMethod($getter)
    }
}

function Add-Exception($Module, $Exception) {
    $base = if ($Exception.base) { $script:Made[$Exception.base] } else { [Exception] }
    $super = [Exception].GetConstructor(@([string]))
    if ($Exception.base) { $super = $script:Constructors[$Exception.base] }
    $type = $Module.DefineType($Exception.name, 'Public,Class', $base)
    $new = $type.DefineConstructor('Public', 'Standard', [type[]] @([string]))
    $il = $new.GetILGenerator()
    $il.Emit([OpCodes]::Ldarg_0)
    $il.Emit([OpCodes]::Ldarg_1)
    $il.Emit([OpCodes]::Call, $super)
    $il.Emit([OpCodes]::Ret)
    $script:Made[$Exception.name] = $type
    $script:Constructors[$Exception.name] = $new
}

# What a live object calls: a field that bridge.psm1 sets.
function Add-Bridge($Module) {
    $type = $Module.DefineType('Windows.Bridge', 'Public,Class,Abstract,Sealed')
    $script:Fresh = $type.DefineField('Fresh', [Action[object]], 'Public,Static')
    $script:Made['Windows.Bridge'] = $type
}

function New-WindowsAssembly([string] $From, [string] $To) {
    $wanted = [IO.File]::ReadAllText($From) | ConvertFrom-Json
    $script:Made, $script:Constructors, $script:Values = @{}, @{}, @{}
    $builder = [PersistedAssemblyBuilder]::new([AssemblyName]::new('Windows.Modules'), [object].Assembly)
    $friend = [Runtime.CompilerServices.InternalsVisibleToAttribute]
    $builder.SetCustomAttribute((New-Attribute $friend @('Windows.Engine') @{}))
    $module = $builder.DefineDynamicModule('Windows.Modules')
    foreach ($enum in $wanted.enums.PSObject.Properties) { Add-Enum $module $enum.Name $enum.Value }
    foreach ($class in $wanted.classes) { Add-Class $module $class }
    Add-Bridge $module
    foreach ($class in $wanted.classes) { Add-Properties $class }
    foreach ($exception in $wanted.exceptions) { Add-Exception $module $exception }
    foreach ($made in @($script:Made.Values)) { if ($made -is [TypeBuilder]) { $null = $made.CreateType() } }
    $builder.Save($To)
}

function New-Attribute([type] $Type, $Arguments, [hashtable] $Named) {
    $fit = @($Type.GetConstructors() | Where-Object { $_.GetParameters().Count -eq $Arguments.Count })
    $properties = [PropertyInfo[]] @($Named.Keys | ForEach-Object { $Type.GetProperty($_) })
    [CustomAttributeBuilder]::new($fit[0], [object[]] $Arguments, $properties, [object[]] @($Named.Values))
}

function Add-Parameter($Type, $Parameter) {
    $of = [type] $Parameter.type
    $name = $Parameter.name
    $field = $Type.DefineField("_$name", $of, 'Private')
    $getter = $Type.DefineMethod("get_$name", 'Public,HideBySig,SpecialName', $of, @())
    $il = $getter.GetILGenerator()
    $il.Emit([OpCodes]::Ldarg_0)
    $il.Emit([OpCodes]::Ldfld, $field)
    $il.Emit([OpCodes]::Ret)
    $setter = $Type.DefineMethod("set_$name", 'Public,HideBySig,SpecialName', $null, [type[]] @($of))
    $il = $setter.GetILGenerator()
    $il.Emit([OpCodes]::Ldarg_0)
    $il.Emit([OpCodes]::Ldarg_1)
    $il.Emit([OpCodes]::Stfld, $field)
    $il.Emit([OpCodes]::Ret)
    $property = $Type.DefineProperty($name, 'None', $of, $null)
    $property.SetGetMethod($getter)
    $property.SetSetMethod($setter)
    foreach ($one in $Parameter.sets) {
        $named = @{}
        foreach ($key in $one.PSObject.Properties) {
            $named[$key.Name] = if ($key.Value -is [long]) { [int] $key.Value } else { $key.Value }
        }
        $property.SetCustomAttribute((New-Attribute ([ParameterAttribute]) @() $named))
    }
    if ($Parameter.aliases) {
        $property.SetCustomAttribute((New-Attribute ([AliasAttribute]) @(, [string[]] $Parameter.aliases) @{}))
    }
    if ($Parameter.values) {
        $property.SetCustomAttribute((New-Attribute ([ValidateSetAttribute]) @(, [string[]] $Parameter.values) @{}))
    }
    if ($Parameter.object) {
        $property.SetCustomAttribute((New-Attribute ([PSTypeNameAttribute]) @($Parameter.object) @{}))
    }
}

function Add-Cmdlet($Module, $Run, $Cmdlet) {
    $base = [PSCmdlet]
    $type = $Module.DefineType($Cmdlet.class, 'Public,Class', $base)
    $named = @{ SupportsShouldProcess = $Cmdlet.asks }
    if ($Cmdlet.default) { $named['DefaultParameterSetName'] = $Cmdlet.default }
    if ($Cmdlet.impact) { $named['ConfirmImpact'] = [ConfirmImpact] $Cmdlet.impact }
    $type.SetCustomAttribute((New-Attribute ([CmdletAttribute]) @($Cmdlet.verb, $Cmdlet.noun) $named))
    foreach ($parameter in $Cmdlet.parameters) { Add-Parameter $type $parameter }
    $method = $type.DefineMethod('ProcessRecord', 'Family,Virtual,HideBySig', $null, @())
    $il = $method.GetILGenerator()
    $record = $il.DeclareLocal([ErrorRecord])
    $end = $il.DefineLabel()
    # Asked for here it is the caller's; later it would be that of the code in bridge.psm1.
    $il.Emit([OpCodes]::Ldarg_0)
    $il.Emit([OpCodes]::Call, $base.GetProperty('SessionState').GetGetMethod())
    $il.Emit([OpCodes]::Pop)
    $il.Emit([OpCodes]::Ldarg_0)
    $il.Emit([OpCodes]::Call, $Run)
    $il.Emit([OpCodes]::Stloc, $record)
    $il.Emit([OpCodes]::Ldloc, $record)
    $il.Emit([OpCodes]::Brfalse, $end)
    $il.Emit([OpCodes]::Ldarg_0)
    $il.Emit([OpCodes]::Ldloc, $record)
    $il.Emit([OpCodes]::Call, $base.GetMethod('ThrowTerminatingError'))
    $il.MarkLabel($end)
    $il.Emit([OpCodes]::Ret)
    $null = $type.CreateType()
}

function New-EngineAssembly([string] $From, [string] $Types, [string] $To) {
    $null = [Assembly]::LoadFrom($Types), [Assembly]::Load('System.Text.Json')
    $builder = [PersistedAssemblyBuilder]::new([AssemblyName]::new('Windows.Engine'), [object].Assembly)
    Add-CompiledClass $builder.DefineDynamicModule('Windows.Engine') $From 'Windows.Engine'
    $builder.Save($To)
}

function New-DnsAssembly([string] $From, [string] $Engine, [string] $To) {
    $null = [Assembly]::LoadFrom($Engine), [Assembly]::Load('System.Text.Json')
    $builder = [PersistedAssemblyBuilder]::new([AssemblyName]::new('Windows.Dns'), [object].Assembly)
    Add-CompiledClass $builder.DefineDynamicModule('Windows.Dns') $From 'Windows.Dns'
    $builder.Save($To)
}

function New-CmdletAssembly([string] $From, [string] $Engine, [string] $Folder) {
    $run = [Assembly]::LoadFrom($Engine).GetType('Windows.Engine').GetMethod('Run')
    foreach ($one in ([IO.File]::ReadAllText($From) | ConvertFrom-Json).PSObject.Properties) {
        $builder = [PersistedAssemblyBuilder]::new([AssemblyName]::new("Windows.$($one.Name)"), [object].Assembly)
        $module = $builder.DefineDynamicModule("Windows.$($one.Name)")
        foreach ($cmdlet in $one.Value) { Add-Cmdlet $module $run $cmdlet }
        $builder.Save("$Folder/Windows.$($one.Name).dll")
    }
}

Export-ModuleMember -Function New-WindowsAssembly, New-EngineAssembly, New-DnsAssembly, New-CmdletAssembly
