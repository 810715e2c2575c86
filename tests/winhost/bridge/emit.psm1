# Makes an assembly of the types of Windows' modules: enums, classes whose properties are read from
# a dictionary, exceptions. Run once for each set of tables; input and output: tests/winhost/modules.py.

using namespace System.Reflection
using namespace System.Reflection.Emit

$script:Made = @{}

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
    $fields = foreach ($field in @('id', [string]), @('text', [string]), @('values', [Collections.Generic.Dictionary[string, object]])) {
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
    $super = if ($Exception.base) { $script:Constructors[$Exception.base] } else { [Exception].GetConstructor(@([string])) }
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

function New-WindowsAssembly([string] $From, [string] $To) {
    $wanted = [IO.File]::ReadAllText($From) | ConvertFrom-Json
    $script:Made, $script:Constructors, $script:Values = @{}, @{}, @{}
    $builder = [PersistedAssemblyBuilder]::new([AssemblyName]::new('Windows.Modules'), [object].Assembly)
    $module = $builder.DefineDynamicModule('Windows.Modules')
    foreach ($enum in $wanted.enums.PSObject.Properties) { Add-Enum $module $enum.Name $enum.Value }
    foreach ($class in $wanted.classes) { Add-Class $module $class }
    foreach ($class in $wanted.classes) { Add-Properties $class }
    foreach ($exception in $wanted.exceptions) { Add-Exception $module $exception }
    foreach ($made in @($script:Made.Values)) { if ($made -is [TypeBuilder]) { $null = $made.CreateType() } }
    $builder.Save($To)
}

Export-ModuleMember -Function New-WindowsAssembly
