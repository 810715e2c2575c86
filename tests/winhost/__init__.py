"""An emulated Windows host: WinRM on the wire, PowerShell behind it."""
