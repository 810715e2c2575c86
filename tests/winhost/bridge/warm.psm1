# What warm.py runs in a PowerShell process: one command line after another, each by powershell.exe's own Main(), in
# a new session, with streams and an environment of its own. A command that leaves open what only the end of a
# process closes ends this process too.

using namespace System.Reflection

$script:Stack = 8MB  # as a process's first thread has

# .NET's own, where PowerShell's names mean Windows' drives and variables.
$script:Core = [object].Assembly
$script:Environment = $script:Core.GetType('System.Environment')
$script:Directory = $script:Core.GetType('System.IO.Directory')
$script:File = $script:Core.GetType('System.IO.File')
$script:Main = [AppDomain]::CurrentDomain.GetAssemblies() | ForEach-Object { $_.GetType('WinPs.Program') } |
    Where-Object { $_ } | ForEach-Object { $_.GetMethod('Main') }

function New-Libc {
    $name = [AssemblyName]::new('Libc')
    $module = [Emit.AssemblyBuilder]::DefineDynamicAssembly($name, 'Run').DefineDynamicModule('Libc')
    $builder = $module.DefineType('Libc', 'Public')
    $calls = @{
        open = @([string], [int]); dup2 = @([int], [int]); close = @([int]); _exit = @([int])
        fcntl = @([int], [int], [int]); waitid = @([int], [int], [IntPtr], [int])
    }
    foreach ($call in $calls.GetEnumerator()) {
        $method = $builder.DefinePInvokeMethod(
            $call.Key, 'libc', 'Public, Static, PinvokeImpl', 'Standard', [int], [type[]] $call.Value, 'Cdecl', 'Ansi')
        $method.SetImplementationFlags('PreserveSig')
    }
    $builder.CreateType()
}

$script:Libc = New-Libc

# A class with the command line, the exit code, and a method without arguments that a thread can begin with.
function New-Run {
    $name = [AssemblyName]::new('Run')
    $module = [Emit.AssemblyBuilder]::DefineDynamicAssembly($name, 'Run').DefineDynamicModule('Run')
    $builder = $module.DefineType('Run', 'Public')
    $words = $builder.DefineField('Words', [string[]], 'Public, Static')
    $code = $builder.DefineField('Code', [int], 'Public, Static')
    $il = $builder.DefineMethod('Begin', 'Public, Static', [void], [type[]] @()).GetILGenerator()
    $il.Emit([Emit.OpCodes]::Ldsfld, $words)
    $il.Emit([Emit.OpCodes]::Call, $script:Main)
    $il.Emit([Emit.OpCodes]::Stsfld, $code)
    $il.Emit([Emit.OpCodes]::Ret)
    $builder.CreateType()
}

$script:Run = New-Run

# Opens what is at the paths as standard input, output and error.
function Set-Stream([string[]] $Paths) {
    foreach ($number in 0..2) {
        $opened = $script:Libc::open($Paths[$number], [int] ($number -gt 0))  # O_RDONLY, O_WRONLY
        if ($opened -lt 0) { throw "cannot open $($Paths[$number])" }
        $null = $script:Libc::dup2($opened, $number)
        $null = $script:Libc::close($opened)
    }
}

# Where what is open leads, by number; without what .NET opens for itself and keeps.
function Get-Opened {
    $opened = @{}
    foreach ($link in $script:Directory::GetFileSystemEntries('/proc/self/fd')) {
        $target = $script:File::ResolveLinkTarget($link, $false)
        if ($target -and $target.Name -notmatch '^(anon_inode:|memfd:|fd$)|\.dll$') { $opened[$link] = $target.Name }
    }
    $opened
}

function Restore-Environment($Before) {
    foreach ($name in @($script:Environment::GetEnvironmentVariables().Keys)) {
        if (-not $Before.Contains($name)) { $script:Environment::SetEnvironmentVariable($name, $null) }
    }
    foreach ($name in $Before.Keys) { $script:Environment::SetEnvironmentVariable($name, $Before[$name]) }
}

# What the names of types mean, which a module can change for the whole process.
function Get-Accelerator {
    $class = [psobject].Assembly.GetType('System.Management.Automation.TypeAccelerators')
    foreach ($name in 'builtinTypeAccelerators', 'userTypeAccelerators') {
        $class.GetField($name, [BindingFlags] 'Static,NonPublic').GetValue($null).Values
    }
}

# [Net.Dns] is the host's from the start, which the module DnsClient makes it otherwise: the engine remembers what a
# name meant in a text that it has read, also for the commands that come later.
function Set-Dns {
    $shims = $script:Main.DeclaringType.Assembly.GetType('WinPs.Shims.Registration')
    $types = $shims.GetField('Types', [BindingFlags] 'Static,NonPublic').GetValue($null)
    foreach ($folder in "$env:PSModulePath".Split(':')) {
        $path = "$folder/../Windows.Dns.dll"
        if (-not $script:File::Exists($path)) { continue }
        $null = [Assembly]::LoadFrom("$folder/../Windows.Engine.dll")
        $types['Net.Dns'] = [Assembly]::LoadFrom($path).GetType('Windows.Dns')
        $null = $shims.GetMethod('AddTypes', [BindingFlags] 'Static,NonPublic').Invoke($null, @())
        return
    }
}

# Whether the command left what ends with its process: a program, names of types, a stream of its own in another's
# hands, a file, or a connection. One is the bridge's; and .NET has pipes for itself.
function Test-Left($Before, $Accelerators, $Streams) {
    $children = $script:Libc::waitid(0, 0, [IntPtr]::Zero, 0x1000005)  # P_ALL; WEXITED, WNOHANG, WNOWAIT
    if ($children -eq 0) { return $true }
    if (-not [Linq.Enumerable]::SequenceEqual([type[]] $Accelerators, [type[]] @(Get-Accelerator))) { return $true }
    $now = Get-Opened
    foreach ($link in $now.Keys) {
        $one = $now[$link]
        if ($one -cin $Streams -and $one -like 'pipe:*') { return $true }
        if ($one -cne $Before[$link] -and $one -notlike 'pipe:*' -and $one -notlike 'socket:*') { return $true }
    }
    @($now.Values -like 'socket:*').Count -gt @($Before.Values -like 'socket:*').Count + 1
}

# The bridge's classes hold script of the session that imported it, and so all of that session.
function Clear-Bridge {
    foreach ($assembly in [AppDomain]::CurrentDomain.GetAssemblies()) {
        $engine = $assembly.GetType('Windows.Engine')
        if ($engine) { $engine::AskConsent = $engine::NewException = $null }
    }
}

function Clear-Stream {
    Set-Stream '/dev/null', '/dev/null', '/dev/null'
    [Console]::SetIn([IO.TextReader]::Null)
    [Console]::SetOut([IO.TextWriter]::Null)
    [Console]::SetError([IO.TextWriter]::Null)
    Clear-Bridge
    [GC]::Collect()
    [GC]::WaitForPendingFinalizers()
}

# Answers on the socket that is open as that number. A request is a line of JSON: `arguments`, and the paths of the
# three `streams`. The answer is a line with the exit code; none, where this process ended with it.
function Invoke-CommandLine([int] $Number) {
    $null = $script:Libc::fcntl($Number, 2, 1)  # F_SETFD, FD_CLOEXEC: no program that is started has it
    $handle = [Net.Sockets.SafeSocketHandle]::new([IntPtr] $Number, $true)
    $socket = [Net.Sockets.Socket]::new($handle)
    $stream = [Net.Sockets.NetworkStream]::new($socket, $true)
    $reader = [IO.StreamReader]::new($stream)
    $variables = $script:Environment::GetEnvironmentVariables()
    $here = $script:Directory::GetCurrentDirectory()
    Set-Dns
    Clear-Stream
    $opened = Get-Opened
    $accelerators = @(Get-Accelerator)
    while ($line = $reader.ReadLine()) {
        $request = [System.Text.Json.JsonDocument]::Parse($line).RootElement
        $words = [string[]] @($request.GetProperty('arguments').EnumerateArray() | ForEach-Object { $_.GetString() })
        Set-Stream @($request.GetProperty('streams').EnumerateArray() | ForEach-Object { $_.GetString() })
        $streams = @((Get-Opened)['/proc/self/fd/0', '/proc/self/fd/1', '/proc/self/fd/2'])
        $script:Run::Words = $words
        $begin = $script:Run.GetMethod('Begin').CreateDelegate([Threading.ThreadStart])
        $thread = [Threading.Thread]::new($begin, $script:Stack)
        $thread.Start()
        $thread.Join()
        $thread = $null
        $code = $script:Run::Code -band 255
        $script:Directory::SetCurrentDirectory($here)
        Restore-Environment $variables
        Clear-Stream
        if (Test-Left $opened $accelerators $streams) { $null = $script:Libc::_exit($code) }
        $socket.Send([Text.Encoding]::ASCII.GetBytes("$code`n")) | Out-Null
    }
}

Export-ModuleMember -Function Invoke-CommandLine
