# Compiles a class of static fields and methods, written in the syntax of PowerShell's classes, to IL: every
# expression has one static type, and none is looked up while it runs. What it does not know, it refuses.

using namespace System.Management.Automation.Language
using namespace System.Reflection
using namespace System.Reflection.Emit

$script:Any = [BindingFlags] 'Public,NonPublic,Static,Instance'
$script:IL = $null
$script:Variables = @{}
$script:Fields = @{}
$script:Methods = @{}
$script:Class = ''
$script:Spaces = @()
$script:Returns = $null

function Stop-Compiling($Ast, [string] $Why) {
    throw "line $($Ast.Extent.StartLineNumber): $Why in $($Ast.Extent.Text)"
}

function Find-Type($Name) {
    $found = $Name.GetReflectionType()
    foreach ($space in $script:Spaces) { if (-not $found) { $found = "$space.$($Name.FullName)" -as [type] } }
    if (-not $found) { throw "there is no type $Name" }
    $found
}

# Where code goes that is only asked for its type.
class Nowhere {
    [void] Emit($Code) {}
    [void] Emit($Code, $Operand) {}
    [void] MarkLabel($Label) {}
    [object] DefineLabel() { return $null }
    [object] DeclareLocal($Of) { return $null }
}

# --- values

function Convert-Top([type] $From, [type] $To, $Ast) {
    if ($From -eq $To -or $To -eq [void]) { return }
    if ($To.IsValueType -and -not $From.IsValueType) { $script:IL.Emit([OpCodes]::Unbox_Any, $To) }
    elseif ($From.IsValueType -and -not $To.IsValueType) { $script:IL.Emit([OpCodes]::Box, $From) }
    elseif ($From -eq [int] -and $To -eq [long]) { $script:IL.Emit([OpCodes]::Conv_I8) }
    elseif ($From.IsValueType) { Stop-Compiling $Ast "$From is no $To" }
    elseif (-not $To.IsAssignableFrom($From)) { $script:IL.Emit([OpCodes]::Castclass, $To) }
}

function Push-As($Ast, [type] $To) { Convert-Top (Push-Value $Ast) $To $Ast }

# A receiver: for a value type its address.
function Push-Receiver($Ast) {
    $of = Push-Value $Ast
    if ($of.IsValueType) {
        $copy = $script:IL.DeclareLocal($of)
        $script:IL.Emit([OpCodes]::Stloc, $copy)
        $script:IL.Emit([OpCodes]::Ldloca, $copy)
    }
    $of
}

function Push-Call([MethodBase] $Method, [type] $Of) {
    $code = if ($Method.IsStatic -or $Of.IsValueType) { [OpCodes]::Call } else { [OpCodes]::Callvirt }
    if ($Of.IsValueType -and -not $Method.IsStatic -and $Method.DeclaringType -ne $Of) {
        $script:IL.Emit([OpCodes]::Constrained, $Of)
        $code = [OpCodes]::Callvirt
    }
    $script:IL.Emit($code, $Method)
    $Method.ReturnType
}

# Also those of the interfaces that an interface is made of.
function Find-Method([type] $Of, [string] $Name, [type[]] $Arguments) {
    foreach ($one in @($Of) + @($Of.GetInterfaces())) {
        $found = $one.GetMethod($Name, $script:Any, $null, $Arguments, $null)
        if ($found) { return $found }
    }
}

function Get-StaticType($Ast) {
    if ($Ast -is [ConvertExpressionAst] -and $Ast.Type.TypeName.Name -eq 'ref') {
        return $script:Variables[$Ast.Child.VariablePath.UserPath].LocalType.MakeByRefType()
    }
    $kept = $script:IL
    $script:IL = [Nowhere]::new()
    try { Push-Value $Ast } finally { $script:IL = $kept }
}

function Push-Arguments($Arguments, $Types) {
    for ($i = 0; $i -lt $Types.Count; $i++) {
        if ($Types[$i].IsByRef) {
            $script:IL.Emit([OpCodes]::Ldloca, $script:Variables[$Arguments[$i].Child.VariablePath.UserPath])
        } else { Push-As $Arguments[$i] $Types[$i] }
    }
}

function Push-Invocation($Ast) {
    $name = $Ast.Member.Value
    $arguments = @($Ast.Arguments | Where-Object { $null -ne $_ })
    if ($Ast.Static -and $Ast.Expression.TypeName.Name -eq $script:Class) {
        $own = $script:Methods[$name]
        if (-not $own) { Stop-Compiling $Ast 'no such method' }
        Push-Arguments $arguments $own.Types
        $script:IL.Emit([OpCodes]::Call, $own.Builder)
        return $own.Returns
    }
    $types = [type[]] @($arguments | ForEach-Object { Get-StaticType $_ })
    $of = if ($Ast.Static) { Find-Type $Ast.Expression.TypeName } else { Push-Receiver $Ast.Expression }
    if ($name -eq 'new') { $method = $of.GetConstructor($types) }
    else { $method = Find-Method $of $name $types }
    if (-not $method) { Stop-Compiling $Ast "$of has no $name($types)" }
    Push-Arguments $arguments @($method.GetParameters() | ForEach-Object { $_.ParameterType })
    if ($name -ne 'new') { return Push-Call $method $of }
    $script:IL.Emit([OpCodes]::Newobj, $method)
    $of
}

function Push-Member($Ast) {
    $name = $Ast.Member.Value
    if ($Ast.Static -and $Ast.Expression.TypeName.Name -eq $script:Class) {
        $script:IL.Emit([OpCodes]::Ldsfld, $script:Fields[$name])
        return $script:Fields[$name].FieldType
    }
    $of = if ($Ast.Static) { Find-Type $Ast.Expression.TypeName } else { Push-Receiver $Ast.Expression }
    foreach ($one in @($of) + @($of.GetInterfaces())) {
        $property = $one.GetProperty($name, $script:Any)
        if ($property) { return Push-Call $property.GetMethod $of }
        $field = $one.GetField($name, $script:Any)
        if (-not $field) { continue }
        if ($field.IsLiteral) { $script:IL.Emit([OpCodes]::Ldc_I4, [int] $field.GetRawConstantValue()) }
        else { $script:IL.Emit($(if ($Ast.Static) { [OpCodes]::Ldsfld } else { [OpCodes]::Ldfld }), $field) }
        return $field.FieldType
    }
    Stop-Compiling $Ast "$of has no $name"
}

function Push-Variable($Ast) {
    $name = $Ast.VariablePath.UserPath
    if ($name -eq 'null') { $script:IL.Emit([OpCodes]::Ldnull); return [object] }
    if ($name -in 'true', 'false') { $script:IL.Emit([OpCodes]::Ldc_I4, [int] ($name -eq 'true')); return [bool] }
    $variable = $script:Variables[$name]
    if ($variable -is [LocalBuilder]) { $script:IL.Emit([OpCodes]::Ldloc, $variable); return $variable.LocalType }
    if (-not $variable) { Stop-Compiling $Ast 'no such variable' }
    $script:IL.Emit([OpCodes]::Ldarg, [int16] $variable.Index)
    $variable.Type
}

function Push-Binary($Ast) {
    $operator = "$($Ast.Operator)"
    if ($operator -eq 'Is') {
        Push-As $Ast.Left ([object])
        $script:IL.Emit([OpCodes]::Isinst, (Find-Type $Ast.Right.TypeName))
        $script:IL.Emit([OpCodes]::Ldnull)
        $script:IL.Emit([OpCodes]::Cgt_Un)
        return [bool]
    }
    if ($operator -in 'And', 'Or') {
        $end = $script:IL.DefineLabel()
        Push-As $Ast.Left ([bool])
        $script:IL.Emit([OpCodes]::Dup)
        $script:IL.Emit($(if ($operator -eq 'And') { [OpCodes]::Brfalse } else { [OpCodes]::Brtrue }), $end)
        $script:IL.Emit([OpCodes]::Pop)
        Push-As $Ast.Right ([bool])
        $script:IL.MarkLabel($end)
        return [bool]
    }
    $of = Push-Value $Ast.Left
    Push-As $Ast.Right $of
    if ($of -eq [string] -and $operator -in 'Plus', 'Ceq') {
        $name = if ($operator -eq 'Plus') { 'Concat' } else { 'Equals' }
        return Push-Call ([string].GetMethod($name, [type[]] @([string], [string]))) ([string])
    }
    switch ($operator) {
        'Plus' { $script:IL.Emit([OpCodes]::Add); return $of }
        'Minus' { $script:IL.Emit([OpCodes]::Sub); return $of }
        'Divide' { $script:IL.Emit([OpCodes]::Div); return $of }
        'Ilt' { $script:IL.Emit([OpCodes]::Clt); return [bool] }
        'Ieq' { $script:IL.Emit([OpCodes]::Ceq); return [bool] }
        'Ine' { $script:IL.Emit([OpCodes]::Ceq); Push-Not; return [bool] }
    }
    Stop-Compiling $Ast "-$operator is not known"
}

function Push-Not {
    $script:IL.Emit([OpCodes]::Ldc_I4_0)
    $script:IL.Emit([OpCodes]::Ceq)
}

function Push-Array($Ast) {
    $script:IL.Emit([OpCodes]::Ldc_I4, $Ast.Elements.Count)
    $script:IL.Emit([OpCodes]::Newarr, [object])
    for ($i = 0; $i -lt $Ast.Elements.Count; $i++) {
        $script:IL.Emit([OpCodes]::Dup)
        $script:IL.Emit([OpCodes]::Ldc_I4, $i)
        Push-As $Ast.Elements[$i] ([object])
        $script:IL.Emit([OpCodes]::Stelem, [object])
    }
    [object[]]
}

function Push-Index($Ast) {
    $of = Push-Receiver $Ast.Target
    if ($of.IsArray) {
        Push-As $Ast.Index ([int])
        $script:IL.Emit([OpCodes]::Ldelem, $of.GetElementType())
        return $of.GetElementType()
    }
    $get = Find-Method $of 'get_Item' @(Get-StaticType $Ast.Index)
    Push-As $Ast.Index $get.GetParameters()[0].ParameterType
    Push-Call $get $of
}

# Puts the value of an expression on the stack; gives its type.
function Push-Value($Ast) {
    switch ($Ast.GetType().Name) {
        'PipelineAst' { return Push-Value $Ast.PipelineElements[0] }
        'CommandExpressionAst' { return Push-Value $Ast.Expression }
        'ParenExpressionAst' { return Push-Value $Ast.Pipeline }
        'StringConstantExpressionAst' { $script:IL.Emit([OpCodes]::Ldstr, $Ast.Value); return [string] }
        'ConstantExpressionAst' { $script:IL.Emit([OpCodes]::Ldc_I4, [int] $Ast.Value); return [int] }
        'VariableExpressionAst' { return Push-Variable $Ast }
        'MemberExpressionAst' { return Push-Member $Ast }
        'InvokeMemberExpressionAst' { return Push-Invocation $Ast }
        'BinaryExpressionAst' { return Push-Binary $Ast }
        'IndexExpressionAst' { return Push-Index $Ast }
        'ArrayLiteralAst' { return Push-Array $Ast }
        'UnaryExpressionAst' { Push-As $Ast.Child ([bool]); Push-Not; return [bool] }
        'ConvertExpressionAst' { $to = Find-Type $Ast.Type.TypeName; Push-As $Ast.Child $to; return $to }
        'TypeExpressionAst' {
            $script:IL.Emit([OpCodes]::Ldtoken, (Find-Type $Ast.TypeName))
            return Push-Call ([type].GetMethod('GetTypeFromHandle')) ([type])
        }
    }
    Stop-Compiling $Ast "$($Ast.GetType().Name) is not known"
}

# --- statements

function Add-Assignment($Ast) {
    $left = $Ast.Left
    if ($left -is [IndexExpressionAst]) {
        $of = Push-Receiver $left.Target
        $set = $of.GetMethod('set_Item')
        Push-As $left.Index $set.GetParameters()[0].ParameterType
        Push-As $Ast.Right $set.GetParameters()[1].ParameterType
        return $script:IL.Emit([OpCodes]::Callvirt, $set)
    }
    if ($left -is [MemberExpressionAst] -and -not $left.Static) {
        $set = (Push-Receiver $left.Expression).GetProperty($left.Member.Value).SetMethod
        Push-As $Ast.Right $set.GetParameters()[0].ParameterType
        return $script:IL.Emit([OpCodes]::Callvirt, $set)
    }
    if ($left -is [MemberExpressionAst]) {
        Push-As $Ast.Right $script:Fields[$left.Member.Value].FieldType
        return $script:IL.Emit([OpCodes]::Stsfld, $script:Fields[$left.Member.Value])
    }
    if ($left -is [ConvertExpressionAst]) { $variable, $of = $left.Child, (Find-Type $left.Type.TypeName) }
    else { $variable, $of = $left, (Get-StaticType $Ast.Right) }
    $name = $variable.VariablePath.UserPath
    if (-not $script:Variables.ContainsKey($name)) { $script:Variables[$name] = $script:IL.DeclareLocal($of) }
    Push-As $Ast.Right $script:Variables[$name].LocalType
    $script:IL.Emit([OpCodes]::Stloc, $script:Variables[$name])
}

function Add-If($Ast) {
    $end = $script:IL.DefineLabel()
    foreach ($clause in $Ast.Clauses) {
        $next = $script:IL.DefineLabel()
        Push-As $clause.Item1 ([bool])
        $script:IL.Emit([OpCodes]::Brfalse, $next)
        foreach ($one in $clause.Item2.Statements) { Add-Statement $one }
        $script:IL.Emit([OpCodes]::Br, $end)
        $script:IL.MarkLabel($next)
    }
    if ($Ast.ElseClause) { foreach ($one in $Ast.ElseClause.Statements) { Add-Statement $one } }
    $script:IL.MarkLabel($end)
}

function Add-While($Ast) {
    $top, $end = $script:IL.DefineLabel(), $script:IL.DefineLabel()
    $script:IL.MarkLabel($top)
    Push-As $Ast.Condition ([bool])
    $script:IL.Emit([OpCodes]::Brfalse, $end)
    foreach ($one in $Ast.Body.Statements) { Add-Statement $one }
    $script:IL.Emit([OpCodes]::Br, $top)
    $script:IL.MarkLabel($end)
}

function Add-ForEach($Ast) {
    $top, $end = $script:IL.DefineLabel(), $script:IL.DefineLabel()
    $of = Push-Receiver $Ast.Condition
    $enumerator = Push-Call (Find-Method $of 'GetEnumerator' @()) $of
    $at = $script:IL.DeclareLocal($enumerator)
    $script:IL.Emit([OpCodes]::Stloc, $at)
    $load = if ($enumerator.IsValueType) { [OpCodes]::Ldloca } else { [OpCodes]::Ldloc }
    $script:IL.MarkLabel($top)
    $script:IL.Emit($load, $at)
    $null = Push-Call (Find-Method $enumerator 'MoveNext' @()) $enumerator
    $script:IL.Emit([OpCodes]::Brfalse, $end)
    $script:IL.Emit($load, $at)
    $one = Push-Call (Find-Method $enumerator 'get_Current' @()) $enumerator
    $script:Variables[$Ast.Variable.VariablePath.UserPath] = $script:IL.DeclareLocal($one)
    $script:IL.Emit([OpCodes]::Stloc, $script:Variables[$Ast.Variable.VariablePath.UserPath])
    foreach ($statement in $Ast.Body.Statements) { Add-Statement $statement }
    $script:IL.Emit([OpCodes]::Br, $top)
    $script:IL.MarkLabel($end)
}

function Add-Statement($Ast) {
    switch ($Ast.GetType().Name) {
        'AssignmentStatementAst' { return Add-Assignment $Ast }
        'IfStatementAst' { return Add-If $Ast }
        'WhileStatementAst' { return Add-While $Ast }
        'ForEachStatementAst' { return Add-ForEach $Ast }
        'ThrowStatementAst' { $null = Push-Value $Ast.Pipeline; return $script:IL.Emit([OpCodes]::Throw) }
        'ReturnStatementAst' {
            if ($Ast.Pipeline) { Push-As $Ast.Pipeline $script:Returns }
            return $script:IL.Emit([OpCodes]::Ret)
        }
        'PipelineAst' {
            if ((Push-Value $Ast) -ne [void]) { $script:IL.Emit([OpCodes]::Pop) }
            return
        }
    }
    Stop-Compiling $Ast "$($Ast.GetType().Name) is not known"
}

function Add-Body($Member) {
    $own = $script:Methods[$Member.Name]
    $script:IL = $own.Builder.GetILGenerator()
    $script:Returns = $own.Returns
    $script:Variables = @{}
    for ($i = 0; $i -lt $own.Types.Count; $i++) {
        $script:Variables[$Member.Parameters[$i].Name.VariablePath.UserPath] = @{ Index = $i; Type = $own.Types[$i] }
    }
    foreach ($one in $Member.Body.EndBlock.Statements) { Add-Statement $one }
    if ($own.Returns -eq [void]) { $script:IL.Emit([OpCodes]::Ret) }
}

# The class of the file, into the module.
function Add-CompiledClass($Module, [string] $File, [string] $Name) {
    $errors = $null
    $tree = [Parser]::ParseFile($File, [ref] $null, [ref] $errors)
    if ($errors) { throw "${File}: $errors" }
    $script:Spaces = @($tree.UsingStatements.Name.Value)
    $ast = $tree.EndBlock.Statements[0]
    $type = $Module.DefineType($Name, 'Public,Class,Abstract,Sealed')
    $script:Class, $script:Fields, $script:Methods = $ast.Name, @{}, @{}
    foreach ($field in $ast.Members | Where-Object { $_ -is [PropertyMemberAst] }) {
        $of = Find-Type $field.PropertyType.TypeName
        $script:Fields[$field.Name] = $type.DefineField($field.Name, $of, 'Public,Static')
    }
    $methods = @($ast.Members | Where-Object { $_ -is [FunctionMemberAst] })
    foreach ($method in $methods) {
        $types = [type[]] @($method.Parameters | ForEach-Object { Find-Type $_.Attributes[0].TypeName })
        $returns = Find-Type $method.ReturnType.TypeName
        $builder = $type.DefineMethod($method.Name, 'Public,Static', $returns, $types)
        $script:Methods[$method.Name] = @{ Builder = $builder; Types = $types; Returns = $returns }
    }
    foreach ($method in $methods) { Add-Body $method }
    $null = $type.CreateType()
}

Export-ModuleMember -Function Add-CompiledClass
