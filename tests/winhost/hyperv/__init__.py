"""Hyper-V: virtual machines, their devices, and switches. Importing it registers the cmdlets."""

from tests.winhost.hyperv import adapters, drives, host, integration, parts, power, switches, vhd, vm

__all__ = ["adapters", "drives", "host", "integration", "parts", "power", "switches", "vhd", "vm"]
