"""Hyper-V: virtual machines, their devices, and switches."""
