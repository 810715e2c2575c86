"""Hyper-V: virtual machines, their devices, and switches. Importing it registers the cmdlets."""

from tests.winhost.hyperv import adapters, host, integration, parts, power, switches, vhd, vm

__all__ = ["adapters", "host", "integration", "parts", "power", "switches", "vhd", "vm"]
