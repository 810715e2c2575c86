"""Integration services: their ids, and the names that a language gives them."""

from __future__ import annotations

from tests.winhost.hyperv.model import VM

GUEST = "6C09BB55-D683-4DA0-8931-C9BF705F6480"
HEARTBEAT = "84EAAE65-2F2E-45F5-9BB5-0E857DC8EB47"
EXCHANGE = "2A34B1C2-FD73-4043-8A5B-DD2159BC743F"
SHUTDOWN = "9F8233AC-BE49-4C79-8EE3-E7E1985B2077"
TIME = "2497F4DE-E9FA-4204-80E4-4B75C46419C0"
VSS = "5CED1297-4598-4915-A5FC-AD21BB4D02A4"
SERVICES = (GUEST, HEARTBEAT, EXCHANGE, SHUTDOWN, TIME, VSS)
_NAMES = {
    "en-US": {
        GUEST: "Guest Service Interface",
        HEARTBEAT: "Heartbeat",
        EXCHANGE: "Key-Value Pair Exchange",
        SHUTDOWN: "Shutdown",
        TIME: "Time Synchronization",
        VSS: "VSS",
    },
    "de-DE": {
        GUEST: "Gastdienstschnittstelle",
        HEARTBEAT: "Takt",
        EXCHANGE: "Austausch von Schlüsselwertepaaren",
        SHUTDOWN: "Herunterfahren",
        TIME: "Zeitsynchronisierung",
        VSS: "VSS",
    },
}


def name(service: str, language: str) -> str:
    return _NAMES[language][service]


def enabled(vm: VM, service: str) -> bool:
    """All but the guest service interface are on in a new machine."""
    return vm.services.get(service, service != GUEST)
