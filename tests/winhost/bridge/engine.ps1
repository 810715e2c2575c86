# The way from a cmdlet to the engine, tests/winhost/engine.py, and back: a line of JSON with the bound
# parameters goes there, a line with objects and errors comes back. compile.psm1 makes an assembly of it.

using namespace System.Collections
using namespace System.Management.Automation
using namespace System.Text.Json
using namespace System.Text.RegularExpressions

class Engine {
    static [IO.StreamReader] $Reader
    static [IO.StreamWriter] $Writer
    static [long] $Changes
    static [Reflection.Assembly] $Types
    static [Type] $CimRoot  # its name is also that of a type of .NET's, which is found first
    static [Hashtable] $Enums
    # What bridge.psm1 does, in script: asks for consent; an exception of a type that is not there yet.
    static [Func[Management.Automation.PSCmdlet, object, object]] $AskConsent
    static [Func[string, string, Exception]] $NewException

    static [void] Connect() {
        $socket = [Net.Sockets.Socket]::new(
            [Net.Sockets.AddressFamily]::Unix, [Net.Sockets.SocketType]::Stream,
            [Net.Sockets.ProtocolType]::Unspecified)
        $path = [Environment]::GetEnvironmentVariable('WINHOST_ENGINE')
        $socket.Connect([Net.Sockets.UnixDomainSocketEndPoint]::new($path))
        $stream = [Net.Sockets.NetworkStream]::new($socket, $true)
        [Engine]::Reader = [IO.StreamReader]::new($stream)
        [Engine]::Writer = [IO.StreamWriter]::new($stream, [Text.UTF8Encoding]::new($false))
        [Engine]::Writer.AutoFlush = $true
    }

    static [JsonElement] Ask([string] $Line) {
        if ([Engine]::Reader -eq $null) { [Engine]::Connect() }
        [Engine]::Writer.Write($Line + "`n")
        $answer = [Engine]::Reader.ReadLine()
        if ($answer -eq $null) {
            [Engine]::Reader = $null
            throw [IO.IOException]::new('the emulated host is gone')
        }
        $options = [JsonDocumentOptions] [Activator]::CreateInstance([JsonDocumentOptions])
        return [JsonDocument]::Parse($answer, $options).RootElement
    }

    # --- to the engine

    static [Utf8JsonWriter] NewWriter([IO.Stream] $To) {
        return [Utf8JsonWriter]::new($To, [JsonWriterOptions] [Activator]::CreateInstance([JsonWriterOptions]))
    }

    static [void] Write([Utf8JsonWriter] $To, [object] $Value) {
        $base = $Value
        if ($Value -is [PSObject]) { $base = ([PSObject] $Value).BaseObject }
        if ($base -eq $null) { $To.WriteNullValue() }
        elseif ($base -is [string]) { $To.WriteStringValue([string] $base) }
        elseif ($base -is [bool]) { $To.WriteBooleanValue([bool] $base) }
        elseif ($base -is [SwitchParameter]) { $To.WriteBooleanValue(([SwitchParameter] $base).IsPresent) }
        elseif ($base -is [Microsoft.HyperV.PowerShell.VirtualizationObject]) {
            [Engine]::WriteReference($To, $Value, [Microsoft.HyperV.PowerShell.VirtualizationObject] $base)
        }
        elseif ($base -is [Enum]) { $To.WriteStringValue($base.ToString()) }
        elseif ($base -is [TimeSpan]) { $To.WriteNumberValue(([TimeSpan] $base).TotalSeconds) }
        elseif ($base -is [DateTime]) { $To.WriteStringValue(([DateTime] $base).ToString('o')) }
        elseif ($base -is [Guid]) { $To.WriteStringValue($base.ToString()) }
        elseif ($base -is [int]) { $To.WriteNumberValue([int] $base) }
        elseif ($base -is [long]) { $To.WriteNumberValue([long] $base) }
        elseif ($base -is [ValueType]) {
            $text = [JsonSerializer]::Serialize($base, $base.GetType(), [JsonSerializerOptions] $null)
            $To.WriteRawValue($text, $false)
        }
        elseif ($base -is [IDictionary]) { [Engine]::WriteTable($To, [IDictionary] $base) }
        elseif ($base -is [IEnumerable]) {
            $To.WriteStartArray()
            foreach ($one in [IEnumerable] $base) { [Engine]::Write($To, $one) }
            $To.WriteEndArray()
        }
        elseif ($base -is [PSCustomObject]) {
            $To.WriteStartObject()
            foreach ($property in [PSObject]::AsPSObject($Value).Properties) {
                $To.WritePropertyName($property.Name)
                [Engine]::Write($To, $property.Value)
            }
            $To.WriteEndObject()
        }
        else { $To.WriteStringValue([string] [LanguagePrimitives]::ConvertTo($base, [string])) }
    }

    static [void] WriteReference(
        [Utf8JsonWriter] $To, [object] $Value, [Microsoft.HyperV.PowerShell.VirtualizationObject] $Base
    ) {
        $type = $Base.GetType().FullName
        if ([Engine]::CimRoot.IsInstanceOfType($Base)) {
            $type = [PSObject]::AsPSObject($Value).TypeNames[0]
        }
        $To.WriteStartObject()
        $To.WriteString('$type', $type)
        $To.WriteString('$ref', $Base.id)
        $To.WriteEndObject()
    }

    static [void] WriteTable([Utf8JsonWriter] $To, [IDictionary] $Table) {
        $To.WriteStartObject()
        foreach ($key in $Table.Keys) {
            $To.WritePropertyName($key.ToString())
            [Engine]::Write($To, $Table[$key])
        }
        $To.WriteEndObject()
    }

    static [string] JoinHere([string] $Here, [string] $Path) {
        if ([string]::IsNullOrEmpty($Path) -or [Regex]::IsMatch($Path, '^([A-Za-z]:|[\\/])')) { return $Path }
        $joined = ($Here + '\' + $Path).Replace('/', '\')
        $joined = [Regex]::Replace($joined, '\\\.(?=\\|$)', '')
        $up = [Regex]::Match($joined, '\\[^\\]+\\\.\.(?=\\|$)')
        while ($up.Success) {
            $joined = $joined.Remove($up.Index, $up.Length)
            $up = [Regex]::Match($joined, '\\[^\\]+\\\.\.(?=\\|$)')
        }
        return $joined
    }

    # Hyper-V's cmdlets take a relative path from where PowerShell is.
    static [object] FromHere([PSCmdlet] $Cmdlet, [string] $Name, [object] $Value) {
        $isPath = $Name -ceq 'Path' -or $Name -ceq 'VHDPath' -or $Name -ceq 'DestinationPath' -or
            $Name -ceq 'ParentPath'
        if ($isPath -and $Cmdlet.MyInvocation.MyCommand.ModuleName -ceq 'Hyper-V') {
            $here = $Cmdlet.SessionState.Path.CurrentFileSystemLocation.Path.TrimEnd('\'.ToCharArray())
            if (-not ($Value -is [Array])) { return [Engine]::JoinHere($here, [Engine]::Text($Value)) }
            $paths = [ArrayList]::new()
            foreach ($one in [Array] $Value) { $paths.Add([Engine]::JoinHere($here, [Engine]::Text($one))) }
            return $paths
        }
        return $Value
    }

    static [string] Text([object] $Value) {
        if ($Value -eq $null) { return '' }
        return [string] [LanguagePrimitives]::ConvertTo($Value, [string])
    }

    static [string] Request([PSCmdlet] $Cmdlet, [IDictionary] $Bound) {
        $bytes = [IO.MemoryStream]::new()
        $to = [Engine]::NewWriter($bytes)
        $to.WriteStartObject()
        $to.WriteString('cmdlet', $Cmdlet.MyInvocation.MyCommand.Name)
        $set = $Cmdlet.ParameterSetName
        if ($set -ceq '__AllParameterSets') { $set = '' }
        $to.WriteString('set', $set)
        $to.WriteStartObject('parameters')
        foreach ($key in $Bound.Keys) {
            $name = [string] $key
            if (-not ([Cmdlet]::CommonParameters.Contains($name) -or $name -ceq 'WhatIf' -or $name -ceq 'Confirm')) {
                $to.WritePropertyName($name)
                [Engine]::Write($to, [Engine]::FromHere($Cmdlet, $name, $Bound[$key]))
            }
        }
        $to.WriteEndObject()
        $to.WriteEndObject()
        $to.Flush()
        return [Text.Encoding]::UTF8.GetString($bytes.ToArray())
    }

    # --- from the engine

    static [object] Read([JsonElement] $From) {
        $kind = $From.ValueKind
        if ($kind -eq [JsonValueKind]::String) { return $From.GetString() }
        if ($kind -eq [JsonValueKind]::True) { return $true }
        if ($kind -eq [JsonValueKind]::False) { return $false }
        if ($kind -eq [JsonValueKind]::Object) { return [Engine]::ReadTyped($From) }
        if ($kind -eq [JsonValueKind]::Number) {
            [int] $number = 0
            if ($From.TryGetInt32([ref] $number)) { return $number }
            [long] $long = 0
            if ($From.TryGetInt64([ref] $long)) { return $long }
            return $From.GetDouble()
        }
        return $null
    }

    static [object] ReadTyped([JsonElement] $From) {
        $kind = $From.GetProperty('$').GetString()
        if ($kind -ceq 'item') { return [Engine]::ReadItem($From) }
        $value = $From.GetProperty('value')
        if ($kind -ceq 'list') {
            $list = [ArrayList]::new()
            foreach ($one in $value.EnumerateArray()) { $list.Add([Engine]::Read($one)) }
            return $list.ToArray()
        }
        if ($kind -ceq 'table') {
            $table = [Hashtable]::new([StringComparer]::OrdinalIgnoreCase)
            foreach ($entry in $value.EnumerateObject()) { $table[$entry.Name] = [Engine]::Read($entry.Value) }
            return $table
        }
        if ($kind -ceq 'guid') { return [Guid]::Parse($value.GetString()) }
        if ($kind -ceq 'version') { return [Version]::new($value.GetString()) }
        if ($kind -ceq 'timespan') { return [TimeSpan]::FromSeconds($value.GetDouble()) }
        if ($kind -ceq 'datetime') {
            return [DateTime]::Parse(
                $value.GetString(), [Globalization.CultureInfo]::InvariantCulture,
                [Globalization.DateTimeStyles]::RoundtripKind)
        }
        if ($kind -ceq 'cimenum') { return [Engine]::CimMember($value[0].GetInt32(), $value[1].GetString()) }
        if ($kind.StartsWith('enum:')) { return [Engine]::Member($kind.Substring(5), $value.GetString()) }
        $to = [Type] [LanguagePrimitives]::ConvertTo($kind, [Type])
        return [LanguagePrimitives]::ConvertTo([Engine]::Read($value), $to)
    }

    static [object] Member([string] $Name, [string] $Member) {
        $type = [Engine]::Types.GetType('Microsoft.HyperV.PowerShell.' + $Name)
        if ($type -eq $null) { $type = [Engine]::Types.GetType('Microsoft.Vhd.PowerShell.' + $Name) }
        if ($type -eq $null) { $type = [Engine]::Types.GetType($Name) }
        if ($type -eq $null) { $type = [Type] [LanguagePrimitives]::ConvertTo($Name, [Type]) }
        return [Enum]::Parse($type, $Member)
    }

    # An enum that has this one number: its ToString is the text, its JSON the number, as CIM's are.
    static [object] CimMember([int] $Number, [string] $Text) {
        $key = $Number.ToString() + ' ' + $Text
        if ([Engine]::Enums -eq $null) { [Engine]::Enums = [Hashtable]::new() }
        if (-not [Engine]::Enums.ContainsKey($key)) {
            $name = [Reflection.AssemblyName]::new('Cim' + [Engine]::Enums.Count.ToString())
            $assembly = [Reflection.Emit.AssemblyBuilder]::DefineDynamicAssembly(
                $name, [Reflection.Emit.AssemblyBuilderAccess]::Run)
            $enum = $assembly.DefineDynamicModule('Cim').DefineEnum(
                'Microsoft.PowerShell.Cmdletization.GeneratedTypes.' + $Text,
                [Reflection.TypeAttributes]::Public, [int])
            $enum.DefineLiteral($Text, [object] $Number)
            [Engine]::Enums[$key] = [Enum]::ToObject($enum.CreateType(), $Number)
        }
        return [Engine]::Enums[$key]
    }

    static [object] ReadItem([JsonElement] $From) {
        $name = $From.GetProperty('type').GetString()
        $type = [Engine]::Types.GetType($name)
        if ($type -eq $null) { return [Engine]::ReadCim($name, $From) }
        return [Engine]::ReadHyperV($type, $From)
    }

    static [object] Default([Type] $Of) {
        if ($Of.IsArray) { return [Array]::CreateInstance($Of.GetElementType(), 0) }
        if ($Of.IsValueType -and [Nullable]::GetUnderlyingType($Of) -eq $null) {
            return [Activator]::CreateInstance($Of)
        }
        return $null
    }

    static [object] ReadHyperV([Type] $Type, [JsonElement] $From) {
        $values = [Collections.Generic.Dictionary[string, object]]::new()
        $sent = $From.GetProperty('properties')
        foreach ($one in $sent.EnumerateObject()) { $values[$one.Name] = [Engine]::Read($one.Value) }
        foreach ($entry in $Type.GetProperties()) {
            $property = [Reflection.PropertyInfo] $entry
            $of = $property.PropertyType
            [object] $value = $null
            $values.TryGetValue($property.Name, [ref] $value)
            if ($value -eq $null) { $value = [Engine]::Default($of) }
            elseif (-not $of.IsInstanceOfType($value)) { $value = [LanguagePrimitives]::ConvertTo($value, $of) }
            if ($value -is [PSObject]) { $value = ([PSObject] $value).BaseObject }
            $values[$property.Name] = $value
        }
        foreach ($one in $sent.EnumerateObject()) {
            if ($Type.GetProperty($one.Name) -eq $null) {
                throw [MissingMemberException]::new($Type.FullName, $one.Name)
            }
        }
        $values['$read'] = [Engine]::Changes
        $values['$when'] = [Diagnostics.Stopwatch]::GetTimestamp()
        $id = $From.GetProperty('id').GetString()
        $text = $Type.FullName
        [object] $called = $null
        if ($values.TryGetValue('Name', [ref] $called)) {
            $text = $Type.Name + " (Name = '" + [Engine]::Text($called) + "') [Id = '" + $id + "']"
        }
        return [Activator]::CreateInstance($Type, [object[]] ($id, $text, $values))
    }

    # Hyper-V's objects show what is now. Each notes when it was read: after how many changes made here, and when.
    static [void] Refresh([object] $Object) {
        $values = ([Microsoft.HyperV.PowerShell.VirtualizationObject] $Object).values
        $age = [Diagnostics.Stopwatch]::GetTimestamp() - [long] $values['$when']
        $old = -not ($age -lt [Diagnostics.Stopwatch]::Frequency / [long] 4)
        if (-not ([long] $values['$read'] -eq [Engine]::Changes) -or $old) {
            $values['$read'] = [Engine]::Changes
            $values['$when'] = [Diagnostics.Stopwatch]::GetTimestamp()
            $item = [Engine]::Ask([Engine]::RefreshRequest($Object)).GetProperty('item')
            if ($item.ValueKind -eq [JsonValueKind]::Null) { $values['IsDeleted'] = $true }
            else {
                $new = [Microsoft.HyperV.PowerShell.VirtualizationObject] [Engine]::Read($item)
                foreach ($one in $new.values) { $values[$one.Key] = $one.Value }
            }
        }
    }

    static [string] RefreshRequest([object] $Object) {
        $bytes = [IO.MemoryStream]::new()
        $to = [Engine]::NewWriter($bytes)
        $to.WriteStartObject()
        $to.WritePropertyName('refresh')
        [Engine]::Write($to, $Object)
        $to.WriteEndObject()
        $to.Flush()
        return [Text.Encoding]::UTF8.GetString($bytes.ToArray())
    }

    static [void] Note([PSObject] $To, [string] $Name, [object] $Value) {
        $To.Properties.Add([PSNoteProperty]::new($Name, $Value))
    }

    static [object] ReadCim([string] $Name, [JsonElement] $From) {
        $id = $From.GetProperty('id').GetString()
        $class = [Regex]::Replace($Name, '^.*[#/]', '')
        $text = $class + ' (InstanceID = "' + $id + '")'
        $none = [Collections.Generic.Dictionary[string, object]]::new()
        $made = [Activator]::CreateInstance([Engine]::CimRoot, [object[]] ($id, $text, $none))
        $object = [PSObject]::AsPSObject($made)
        $names = $object.TypeNames
        $names.Clear()
        $names.Add($Name)
        $typed = $Name.Contains('#')
        if ($typed) {
            $names.Add([Regex]::Replace($Name, '#.*/', '#'))
            $names.Add([Regex]::Replace($Name, '#.*', ''))
        }
        foreach ($property in $From.GetProperty('properties').EnumerateObject()) {
            [Engine]::Note($object, $property.Name, [Engine]::Read($property.Value))
        }
        if ($typed) {
            $space = [Regex]::Replace([Regex]::Replace($Name, '^.*?#', ''), '/[^/]*$', '')
            $system = [PSObject]::new()
            [Engine]::Note($system, 'Namespace', $space)
            [Engine]::Note($system, 'ServerName', [Environment]::GetEnvironmentVariable('COMPUTERNAME'))
            [Engine]::Note($system, 'ClassName', $class)
            $described = [PSObject]::new()
            [Engine]::Note($described, 'CimClassName', $class)
            [Engine]::Note($described, 'CimSystemProperties', $system)
            [Engine]::Note($object, 'CimClass', $described)
            [Engine]::Note($object, 'CimSystemProperties', $system)
        }
        return $object
    }

    # --- calls

    static [ErrorRecord] ReadError([JsonElement] $From) {
        $name = $From.GetProperty('exception').GetString()
        $exception = [Engine]::NewException.Invoke($name, $From.GetProperty('message').GetString())
        $category = [ErrorCategory] [Enum]::Parse([ErrorCategory], $From.GetProperty('category').GetString())
        $target = [Engine]::Read($From.GetProperty('target'))
        return [ErrorRecord]::new($exception, $From.GetProperty('id').GetString(), $category, $target)
    }

    # Sends a call and hands out what comes back; gives the record of the error that ends it, if one does.
    static [ErrorRecord] Call([PSCmdlet] $Cmdlet, [IDictionary] $Bound) {
        if (-not $Cmdlet.MyInvocation.MyCommand.Name.StartsWith('Get-', [StringComparison]::OrdinalIgnoreCase)) {
            [Engine]::Changes = [Engine]::Changes + [long] 1
        }
        $answer = [Engine]::Ask([Engine]::Request($Cmdlet, $Bound))
        foreach ($output in $answer.GetProperty('outputs').EnumerateArray()) {
            $one = $answer
            if ($output.TryGetProperty('error', [ref] $one)) { $Cmdlet.WriteError([Engine]::ReadError($one)) }
            elseif ($output.TryGetProperty('warning', [ref] $one)) { $Cmdlet.WriteWarning($one.GetString()) }
            else { $Cmdlet.WriteObject([Engine]::Read($output.GetProperty('value'))) }
        }
        $last = $answer.GetProperty('error')
        if ($last.ValueKind -eq [JsonValueKind]::Null) { return $null }
        $record = [Engine]::ReadError($last)
        if ($last.GetProperty('terminating').GetBoolean()) { return $record }
        $Cmdlet.WriteError($record)
        return $null
    }

    # As Call, where the cmdlet asks first.
    static [ErrorRecord] Run([PSCmdlet] $Cmdlet) {
        $bound = [IDictionary] $Cmdlet.MyInvocation.BoundParameters
        if ($Cmdlet.MyInvocation.MyCommand.Parameters.ContainsKey('WhatIf')) {
            $consent = [Engine]::AskConsent.Invoke($Cmdlet, [object] $bound)
            if ($consent -is [ErrorRecord]) { return [ErrorRecord] $consent }
            if ($consent -eq $null) { return $null }
        }
        return [Engine]::Call($Cmdlet, $bound)
    }
}
