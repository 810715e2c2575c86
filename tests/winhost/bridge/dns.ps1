# [Net.Dns] of the host: by its own rules for names and its hosts file. What the stand-in has by itself asks this
# machine's servers. compile.psm1 makes an assembly of it; the module DnsClient puts it in place (names.ps1).

using namespace System.Text.Json

class Dns {
    static [Net.IPAddress[]] GetHostAddresses([string] $Name) {
        $quoted = [JsonSerializer]::Serialize($Name, $Name.GetType(), [JsonSerializerOptions] $null)
        $answer = [Windows.Engine]::Ask(
            '{"cmdlet": "[Net.Dns]::GetHostAddresses", "set": "", "parameters": {"Name": ' + $quoted + '}}')
        $failure = $answer.GetProperty('error')
        if ($failure.ValueKind -eq [JsonValueKind]::Object) {
            throw [Net.Sockets.SocketException]::new([int]::Parse($failure.GetProperty('id').GetString()))
        }
        $found = [Collections.ArrayList]::new()
        foreach ($one in $answer.GetProperty('outputs').EnumerateArray()) {
            $found.Add([Net.IPAddress]::Parse($one.GetProperty('value').GetString()))
        }
        return [Net.IPAddress[]] $found.ToArray([Net.IPAddress]::Parse('0.0.0.0').GetType())
    }

    static [Net.IPHostEntry] GetHostEntry([string] $Name) { return [WinPs.Shims.Dns]::GetHostEntry($Name) }

    static [string] GetHostName() { return [WinPs.Shims.Dns]::GetHostName() }
}
