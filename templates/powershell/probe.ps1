# Connect from this host itself, as its applications do; with `trial`, over a temporary route. Emits one
# answer per connection.
param($Data, $Session)
. $Session.Lib
$Seconds = 5

function Get-SocketError($Problem) {
    $Inner = $Problem.GetBaseException()
    if ($Inner -is [Net.Sockets.SocketException]) { [string]$Inner.SocketErrorCode } else { $Inner.Message }
}

function Test-Tcp($Item) {
    $Client = New-Object Net.Sockets.TcpClient ([Net.Sockets.AddressFamily]::InterNetwork)
    $Watch = [Diagnostics.Stopwatch]::StartNew()
    try {
        if ($Client.ConnectAsync($Item.address, $Item.port).Wait($Seconds * 1000)) {
            return @{ ok = $true; ms = $Watch.Elapsed.TotalMilliseconds }
        }
        @{ ok = $false; error = 'TimedOut' }
    } catch {
        @{ ok = $false; error = Get-SocketError $_.Exception }
    } finally {
        $Client.Close()
    }
}

function Test-Udp($Item) {
    # Datagrams may be lost: send three before giving up.
    $Client = New-Object Net.Sockets.UdpClient
    $Payload = [Convert]::FromBase64String($Item.payload)
    $Watch = [Diagnostics.Stopwatch]::StartNew()
    try {
        $Client.Connect($Item.address, $Item.port)
        $Answer = $Client.ReceiveAsync()
        foreach ($Try in 1..3) {
            $Client.Send($Payload, $Payload.Length) | Out-Null
            if ($Answer.Wait($Seconds * 1000 / 3)) {
                return @{ ok = $true; ms = $Watch.Elapsed.TotalMilliseconds }
            }
        }
        @{ ok = $null; error = 'Silence' }
    } catch {
        @{ ok = $false; error = Get-SocketError $_.Exception }
    } finally {
        $Client.Close()
    }
}

function Test-EachConnection {
    foreach ($Item in @($Data.connections)) {
        $Answer = if ($Item.protocol -eq 'udp') { Test-Udp $Item } else { Test-Tcp $Item }
        $Answer.via = Get-NextHop $Item.address
        $Answer
    }
}

if (-not $Data.trial) { Test-EachConnection; return }

$Trial = @{
    DestinationPrefix = $Data.trial.prefix
    InterfaceIndex = Get-OnLinkInterface $Data.trial.via
    NextHop = $Data.trial.via
    PolicyStore = 'ActiveStore'
}
# An interrupted trial may have left the route behind.
Remove-EqualRoute $Data.trial 'ActiveStore' | Out-Null
NetTCPIP\New-NetRoute @Trial | Out-Null
try { Test-EachConnection } finally { NetTCPIP\Remove-NetRoute @Trial -Confirm:$false }
