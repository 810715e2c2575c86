# Observe a booting VM from the host: its state, the neighbour at its address, and the last lines of its
# serial console, which is read from the first call on.
param($Data, $Session)
. $Session.Lib

function Open-Console {
    # Whoever made the pipe may learn who reads it, but not act as that account.
    $Options = '.', $Data.pipe, 'InOut', 'Asynchronous', 'Identification'
    $Pipe = New-Object IO.Pipes.NamedPipeClientStream $Options
    try { $Pipe.Connect(200) } catch { $Pipe.Dispose(); return }
    $Session.Console = @{ Pipe = $Pipe; Buffer = (New-Object byte[] 16384) }
    $Session.Console.Reading = $Pipe.ReadAsync($Session.Console.Buffer, 0, 16384)
}

function Read-Console([int] $Wait) {
    # Read until the console is quiet for a moment, but for two seconds at most.
    $Console = $Session.Console
    $Clock = [Diagnostics.Stopwatch]::StartNew()
    while ($Clock.ElapsedMilliseconds -lt 2000 -and $Console.Reading -and $Console.Reading.Wait($Wait)) {
        $Count = $Console.Reading.Result
        $Text = $Session.ConsoleText + [Text.Encoding]::ASCII.GetString($Console.Buffer, 0, $Count)
        $Session.ConsoleText = $Text.Substring([Math]::Max(0, $Text.Length - 65536))
        $Console.Reading = if ($Count) { $Console.Pipe.ReadAsync($Console.Buffer, 0, 16384) }
    }
}

function Close-Console {
    if ($Session.Console) { $Session.Console.Pipe.Dispose(); $Session.Console = $null }
}

function Get-Neighbour {
    try {
        NetTCPIP\Get-NetNeighbor -IPAddress $Data.address | Select-Object -First 1
    } catch {
        if ($_.FullyQualifiedErrorId -notlike 'CmdletizationQuery_NotFound*') { throw }
    }
}

if (-not $Session.Console -or -not $Session.Console.Reading) { Close-Console; Open-Console }
if ($Session.Console) { try { Read-Console $Data.wait } catch { $Session.Console.Reading = $null } }
$Lines = "$($Session.ConsoleText)" -split "\r?\n" | Where-Object { $_.Trim() }
$Vm = Get-VMByName $Data.vm
$Neighbour = if ($Data.detailed) { Get-Neighbour }
[ordered]@{
    state = if ($Vm) { [string]$Vm.State } else { $null }
    heartbeat = if ($Vm) { [string]$Vm.Heartbeat } else { $null }
    neighbour = if ($Neighbour) {
        [ordered]@{ mac = [string]$Neighbour.LinkLayerAddress; state = [string]$Neighbour.State }
    } else {
        $null
    }
    console = @($Lines | Select-Object -Last $Data.lines)
}
if ($Data.close) { Close-Console }
