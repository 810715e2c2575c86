"""The host's system: features, WMI's classes, services, registry, access rules."""

from tests.winhost.system import cim, features
from tests.winhost.system.state import Account, Process, Stores, System, install

__all__ = ["Account", "Process", "Stores", "System", "cim", "features", "install"]
