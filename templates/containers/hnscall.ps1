# The one thing for which Windows has no cmdlet: to create a network and an endpoint of HNS. vmcompute.dll's
# HNSCall takes a verb, a path and JSON, and answers with JSON, as Microsoft's own hns.psm1 uses it (microsoft/SDN,
# Kubernetes/windows). Compiling the declaration needs Windows: vmproxy's tests have never run this file.
function Invoke-Hns([string] $Method, [string] $Path, $Body) {
    $Api = 'Vmproxy.Hns' -as [type]
    if (-not $Api) {
        $Text = '[MarshalAs(UnmanagedType.LPWStr)]'
        $Declaration = '[DllImport("vmcompute.dll")] public static extern void HNSCall(' +
            "$Text string method, $Text string path, $Text string request, $Text out string response);"
        $Api = Add-Type -MemberDefinition $Declaration -Namespace Vmproxy -Name Hns -PassThru
    }
    $Request = if ($null -eq $Body) { '' } else { ConvertTo-Json -InputObject $Body -Depth 10 -Compress }
    $Response = ''
    $Api::HNSCall($Method, $Path, $Request, [ref] $Response)
    if (-not $Response) { throw "HNS did not answer $Method $Path" }
    $Answer = ConvertFrom-Json $Response
    if ($Answer.Error) { throw "HNS refused $Method ${Path}: $($Answer.Error)" }
    $Answer.Output
}
