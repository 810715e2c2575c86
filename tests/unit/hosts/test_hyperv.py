from __future__ import annotations

import base64
import gzip
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address, ip_interface
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.opened import HostSeen, Opened, opened, route_plan, route_removal
from tests.unit.hosts.windows import GIB, OURS, FakeWindows, failed
from tests.values import route as route_to
from vmproxy.errors import Busy, Conflict, Forbidden, NotReady, RemoteFailed, Unreachable
from vmproxy.hosts.hyperv import carrier as module
from vmproxy.hosts.hyperv.kind import HYPERV
from vmproxy.hosts.hyperv.seen import access
from vmproxy.hosts.protocols import Connection, Delivery
from vmproxy.image import Download
from vmproxy.model.mac import static_mac
from vmproxy.model.names import UEFI_CA
from vmproxy.model.steps import RouteStep, VmStep, VmWanted
from vmproxy.model.topology import compile_site
from vmproxy.resources import vm
from vmproxy.site.model import Site

NAME = "vmproxy-plant-a-win-01"
IMAGE, SEED = "a" * 64, "b" * 64
DIRECTORY = r"C:\ProgramData\vmproxy"
ROUTES = (route_to("10.96.0.0/16", "192.168.10.5"),)
SITE = Site.model_validate(
    {
        "name": "plant-a",
        "hosts": [
            {
                "name": "win-01",
                "hyperv": {"endpoint": "https://win-01:5986", "auth": "kerberos"},
                "switch": {"name": "External"},
                "network": {"address": "192.168.10.5/24", "gateway": "192.168.10.1"},
            }
        ],
    }
)
MEMBER = compile_site(SITE).members[0]


class World:
    """A fake host and what is wanted on it."""

    def __init__(self, folder: Path, *, download: Download | None = None) -> None:
        self.windows = FakeWindows()
        self.said: list[str] = []
        self.made: list[Path] = []
        self.download = download
        self.file = folder / "image.vhdx.gz"
        self.file.write_bytes(gzip.compress(bytes(5 << 20), mtime=0))

    def deliver(self) -> Delivery:
        return Delivery(self.image, b"seed", "ssh-ed25519 AAAA", self.download)

    def image(self) -> Path:
        self.made.append(self.file)
        return self.file

    @contextmanager
    def place(self) -> Iterator[Opened]:
        with opened(MEMBER, self.windows.connect, self.deliver) as place:
            yield place

    def wanted(self, place: Opened, **changes: object) -> VmWanted:
        own = {"cpus": 2, "memory": GIB, "mac": "00:15:5d:01:02:03", "switch": "External", "vlan": 0}
        return VmWanted(
            NAME,
            "plant-a",
            "win-01",
            ip_interface("192.168.10.5/24"),
            IMAGE,
            SEED,
            {**own, **HYPERV.settings(NAME), **changes},
            HYPERV.hot,
            HYPERV.fixed,
        )

    def plan(self, place: Opened, seen: HostSeen) -> tuple[VmStep | RouteStep, ...]:
        machine = vm.plan(self.wanted(place), seen)
        return machine or route_plan(ROUTES, seen)

    def converge(self, place: Opened) -> list[VmStep | RouteStep]:
        """What it took until nothing was left to do."""
        done: list[VmStep | RouteStep] = []
        for _ in range(4):
            todo = self.plan(place, place.observe())
            if not todo:
                return done
            place.carry_out(todo, self.said.append)
            done += todo
        raise AssertionError([action.target for action in todo])


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def made(world: World) -> None:
    with world.place() as place:
        world.converge(place)


def test_an_empty_host_gets_a_vm_that_runs_and_then_its_route(world: World) -> None:
    with world.place() as place:
        assert [action.verb for action in world.converge(place)] == ["create", "start", "add"]
        seen = place.observe()
    assert seen.vm is not None
    assert seen.vm.marker is not None
    assert seen.vm.marker.routes == ROUTES
    assert seen.vm.marker.host_key == "ssh-ed25519 AAAA"
    assert seen.images == {IMAGE}


def test_a_run_with_nothing_to_do_only_looks(world: World) -> None:
    made(world)
    world.windows.calls.clear()
    with world.place() as place:
        assert world.plan(place, place.observe()) == ()
    assert world.windows.scripts() == ["lib.ps1", "observe.ps1", "routes.ps1"]


def test_the_image_is_made_and_sent_only_when_the_host_lacks_it(world: World) -> None:
    made(world)
    assert bytes(world.windows.received) == world.file.read_bytes()
    assert world.made == [world.file]
    world.windows.vms.clear()
    with world.place() as place:
        world.converge(place)
    assert world.made == [world.file]


def test_an_image_that_was_cut_off_goes_on_where_it_stopped(world: World) -> None:
    world.windows.received += world.file.read_bytes()[:1000]
    made(world)
    assert bytes(world.windows.received) == world.file.read_bytes()


def test_a_published_vhdx_is_fetched_by_the_host_itself(tmp_path: Path) -> None:
    world = World(tmp_path, download=Download("https://images/debian.vhdx.gz", "c" * 64))
    made(world)
    assert "fetch.ps1" in world.windows.scripts()
    assert world.made == []
    assert any("downloads the image from https://images" in line for line in world.said)


def test_what_the_host_can_not_fetch_is_sent_from_here_and_said(tmp_path: Path) -> None:
    world = World(tmp_path, download=Download("https://images/debian.vhdx.gz", "c" * 64))
    world.windows.breaks["fetch.ps1"] = failed("curl.exe: (6) Could not resolve host: images")
    made(world)
    assert world.made == [world.file]
    assert any("Could not resolve host" in line for line in world.said)


def test_a_full_disk_is_found_before_anything_is_sent(world: World) -> None:
    world.windows.free = 9 << 20
    with pytest.raises(NotReady, match=r"needs 10 MiB .* 9 MiB are free"):
        made(world)
    assert "receive.ps1" not in world.windows.scripts()


def test_a_disk_that_fills_up_while_the_image_comes_is_named_as_that(world: World) -> None:
    world.windows.breaks["receive.ps1"] = failed("the disk is full: cannot write C:", code="80070070")
    with pytest.raises(NotReady, match="the disk is full") as caught:
        made(world)
    assert "free space" in str(caught.value.hint)


def test_leftovers_of_an_older_image_go_at_the_next_create(world: World) -> None:
    world.windows.files |= {rf"{DIRECTORY}\images\{'d' * 64}.vhdx": 1, rf"{DIRECTORY}\images\x.part": 1}
    made(world)
    assert not any("d" * 64 in path or "x.part" in path for path in world.windows.files)


def test_destroy_leaves_no_file_behind(world: World) -> None:
    made(world)
    with world.place() as place:
        seen = place.observe()
        gone = (
            *route_removal(ROUTES, seen),
            *vm.destroy_plan(NAME, site="plant-a", host="win-01", seen=seen),
        )
        place.carry_out(gone, world.said.append)
    assert (world.windows.files, world.windows.vms, world.windows.routes) == ({}, [], [])


def test_destroy_removes_what_is_left_of_a_vm_that_somebody_else_removed(world: World) -> None:
    made(world)
    world.windows.vms.clear()
    with world.place() as place:
        gone = vm.destroy_plan(NAME, site="plant-a", host="win-01", seen=place.observe())
        assert "files that an earlier run left" in gone[0].why
        place.carry_out(gone, world.said.append)
        assert vm.destroy_plan(NAME, site="plant-a", host="win-01", seen=place.observe()) == ()
    assert world.windows.files == {}


def test_the_image_of_another_sites_vm_is_no_leftover(world: World) -> None:
    made(world)
    world.windows.vms.clear()
    for path in [path for path in world.windows.files if NAME in path]:
        world.windows.files[path.replace(NAME, "vmproxy-plant-b-win-01")] = world.windows.files.pop(path)
    with world.place() as place:
        assert place.observe().leftovers == ()


def test_a_foreign_vm_is_never_touched(world: World) -> None:
    made(world)
    world.windows.find(NAME).update(notes="mine", path=r"D:\VMs\x")
    with world.place() as place, pytest.raises(Conflict, match="not made by vmproxy"):
        world.converge(place)


def test_cleared_notes_are_told_from_a_stranger(world: World) -> None:
    made(world)
    world.windows.find(NAME)["notes"] = "cleared by hand"
    with (
        world.place() as place,
        pytest.raises(Conflict, match="no marker of vmproxy, though its files are in"),
    ):
        world.converge(place)


def test_a_renamed_vm_is_named_instead_of_a_second_one_made(world: World) -> None:
    made(world)
    world.windows.find(NAME)["name"] = "proxy"
    with world.place() as place, pytest.raises(Conflict, match="renamed to proxy"):
        world.converge(place)


def test_two_vms_of_one_name_are_an_error(world: World) -> None:
    made(world)
    world.windows.vms *= 2
    with world.place() as place, pytest.raises(Conflict, match=f"2 VMs named {NAME}"):
        place.observe()


def test_a_vm_whose_making_was_cut_off_is_made_anew(world: World) -> None:
    made(world)
    half = world.windows.find(NAME)
    world.windows.pending, half["notes"], half["state"] = half["notes"], "", "Off"
    with world.place() as place:
        assert world.converge(place)[0].verb == "recreate"


def test_other_text_in_the_notes_is_kept(world: World) -> None:
    made(world)
    notes = world.windows.find(NAME)["notes"]
    world.windows.find(NAME)["notes"] = f"ask Anna before you stop it\r\n{notes}"
    world.windows.routes.clear()
    with world.place() as place:
        world.converge(place)
    assert world.windows.find(NAME)["notes"].startswith("ask Anna")


@pytest.mark.parametrize(
    ("store", "flaw"),
    [("ActiveStore", "lost at the next restart"), ("PersistentStore", "not active")],
)
def test_a_route_that_one_store_lacks_is_drift_and_repaired(world: World, store: str, flaw: str) -> None:
    made(world)
    world.windows.routes = [item for item in world.windows.routes if item["store"] == store]
    with world.place() as place:
        (action,) = world.plan(place, place.observe())
        assert (action.verb, flaw in action.drift[0].seen) == ("replace", True)
        world.converge(place)
    assert {item["store"] for item in world.windows.routes} == {"ActiveStore", "PersistentStore"}


@pytest.mark.parametrize("known", [True, False])
def test_a_route_on_an_interface_that_does_not_reach_the_vm_is_replaced(world: World, known: bool) -> None:
    made(world)
    length = 24 if known else 32
    world.windows.addresses = [
        {"address": "192.168.10.2", "length": length, "interface": 7},
        {"address": "172.16.0.9", "length": 24, "interface": 9},
    ]
    for item in world.windows.routes:
        item["interface"] = 9
    with world.place() as place:
        steps = world.plan(place, place.observe())
        assert ["interface" in step.drift[0].seen for step in steps] == ([True] if known else [])
        world.converge(place)
    assert [item["interface"] for item in world.windows.routes] == ([7, 7] if known else [9, 9])


def test_routes_of_the_hosts_own_addresses_are_no_routes_to_us(world: World) -> None:
    for prefix in ("192.168.10.0/24", "192.168.10.2/32", "192.168.10.255/32", "224.0.0.0/4", "127.0.0.0/8"):
        world.windows.add_route(prefix, "0.0.0.0", stores=("ActiveStore",))
    world.windows.add_route("0.0.0.0/0", "192.168.10.1", stores=("ActiveStore",))
    world.windows.add_route("10.244.7.0/24", "0.0.0.0", stores=("ActiveStore",))
    with world.place() as place:
        routes = place.observe().routes
    assert [(str(item.prefix), str(item.via)) for item in routes] == [
        ("0.0.0.0/0", "192.168.10.1"),
        ("10.244.7.0/24", "None"),
    ]


def test_an_address_of_the_host_inside_the_service_range_is_a_conflict(world: World) -> None:
    world.windows.addresses.append({"address": "10.96.3.1", "length": 24, "interface": 9})
    with world.place() as place, pytest.raises(Conflict) as caught:
        route_plan(ROUTES, place.observe())
    assert "own address 10.96.3.1/24" in caught.value.details[0]


@pytest.mark.parametrize(
    ("switch", "why"),
    [
        ({"type": "Private", "managementOS": False}, "private"),
        ({"type": "External", "managementOS": False}, "AllowManagementOS"),
        ({"type": "Internal", "managementOS": True, "id": UEFI_CA}, ""),
        ({"type": "Internal", "managementOS": True, "id": "C08CB7B8-9B3C-408E-8E30-5E16A3AEB444"}, "restart"),
    ],
)
def test_switches_that_the_host_is_not_on_are_told(world: World, switch: dict[str, object], why: str) -> None:
    world.windows.switches[0] |= switch
    with world.place() as place:
        seen = place.observe().switch
    assert seen is not None
    assert (seen.reachable, why in seen.why) == (not why, True)


@pytest.mark.parametrize(
    ("problem", "kind", "hint"),
    [
        (
            failed(
                "The 'Hyper-V\\Get-VM' command was found in the module 'Hyper-V'",
                identity="CouldNotAutoLoadModule",
            ),
            RemoteFailed,
            "Install-WindowsFeature",
        ),
        (
            failed("You do not have the required permission", identity="AccessDenied,Microsoft"),
            Forbidden,
            "admin",
        ),
        (failed("…", code="80070020"), RemoteFailed, "another program"),
        (failed("… failed (0xC03A001A)."), RemoteFailed, "compressed"),
        (failed("Insufficient system resources (0x800705AA)."), RemoteFailed, "too little memory"),
        (failed("Logon failure: … (0x80070569)."), RemoteFailed, "Log on as a service"),
        (failed("… is not running (0xC0351000)."), RemoteFailed, "hypervisorlaunchtype"),
        (failed("…", identity="ScriptContainedMaliciousContent"), RemoteFailed, "virus scanner"),
    ],
)
def test_windows_own_words_come_with_the_next_step(
    world: World, problem: Exception, kind: type[Exception], hint: str
) -> None:
    world.windows.breaks["observe.ps1"] = problem
    with world.place() as place, pytest.raises(kind) as caught:
        place.observe()
    assert hint in str(caught.value.hint)  # type: ignore[attr-defined]


@pytest.mark.parametrize("near", ["external", "External ", "EXTERNAL", "Exter nal"])
def test_a_switch_with_almost_that_name_is_named_and_not_used(world: World, near: str) -> None:
    world.windows.switches[0]["name"] = near
    with world.place() as place:
        seen = place.observe().switch
    assert seen is not None
    assert not seen.reachable
    assert repr(near) in seen.why


def test_a_switch_with_another_name_is_missing(world: World) -> None:
    world.windows.switches[0]["name"] = "Internal"
    with world.place() as place:
        assert place.observe().switch is None


def test_rights_of_vms_own_accounts_are_no_drift(world: World) -> None:
    made(world)
    world.windows.sddl += "(A;OICI;0x1200a9;;;S-1-5-83-0)(A;;FA;;;S-1-5-83-1-1-2-3-4)"
    with world.place() as place:
        assert world.plan(place, place.observe()) == ()


SYSTEM, ADMINISTRATORS = "(A;OICI;FA;;;SY)", "(A;OICI;FA;;;BA)"


@pytest.mark.parametrize(
    ("sddl", "who"),
    [
        (f"O:BAG:SYD:PAI{ADMINISTRATORS}{SYSTEM}", "Administrators, SYSTEM"),
        (f"O:SYG:SYD:PAI{SYSTEM}(A;OICI;0x1f01ff;;;S-1-5-32-544)", "Administrators, SYSTEM"),
        ("O:BAD:AI(A;OICIID;FA;;;SY)(A;OICIID;FA;;;BA)", "Administrators, SYSTEM"),
        (f"O:BAD:PAI{ADMINISTRATORS}{SYSTEM}(A;CI;FR;;;S-1-5-83-0)", "Administrators, SYSTEM"),
        (f"O:BAD:PAI{ADMINISTRATORS}(A;OICI;FR;;;SY)", "Administrators, SYSTEM (FR)"),
        (f"O:BAD:PAI{ADMINISTRATORS}(A;;FA;;;SY)", "Administrators, SYSTEM (not for what is inside)"),
        (f"O:BAD:PAI{ADMINISTRATORS}(A;OICIIO;GA;;;SY)", "Administrators, SYSTEM (OICIIO)"),
        (f"O:BAD:PAI{ADMINISTRATORS}{SYSTEM}(A;OICI;FA;;;BU)", "Administrators, BU, SYSTEM"),
        (f"O:BAD:PAI{ADMINISTRATORS}{SYSTEM}(A;OICI;FR;;;BU)", "Administrators, BU (FR), SYSTEM"),
        (
            f"O:BAD:PAI(D;OICI;FW;;;BA){ADMINISTRATORS}{SYSTEM}",
            "Administrators, SYSTEM, denied: Administrators (FW)",
        ),
        (
            f"O:BAD:PAI{ADMINISTRATORS}{SYSTEM}(D;;FR;;;S-1-5-83-0)",
            "Administrators, SYSTEM, denied: S-1-5-83-0 (FR)",
        ),
        (
            f"O:BAD:PAI{ADMINISTRATORS}{SYSTEM}(OA;;FA;4c164200-20c0-11d0-a768-00aa006e0529;;WD)",
            "Administrators, SYSTEM, for an object: WD",
        ),
        (
            f"O:BAD:PAI{ADMINISTRATORS}{SYSTEM}"
            '(XA;;FX;;;WD;((@User.Title=="PM" && (Member_of {SID(BA)})) || @User.A==1))',
            "Administrators, SYSTEM, on a condition: WD (FX)",
        ),
        ("O:BAD:NO_ACCESS_CONTROL", "everybody"),
        ("O:BAD:PAI", "nobody"),
        (f"O:S-1-5-21-9D:PAI{ADMINISTRATORS}{SYSTEM}", "Administrators, SYSTEM, owner S-1-5-21-9"),
    ],
)
def test_who_may_access_a_folder_is_told_with_what_differs_from_everything(sddl: str, who: str) -> None:
    assert access({"sddl": sddl}, DIRECTORY) == who


def test_what_is_exposed_in_a_closed_folder_is_named() -> None:
    seed = {"path": rf"{DIRECTORY}\x\seed-b.iso", "sddl": "O:BAD:AI(A;;FR;;;BU)(A;ID;FA;;;SY)"}
    hidden = {"path": rf"{DIRECTORY}\images", "sddl": ""}
    closed = {"sddl": f"O:BAD:PAI{ADMINISTRATORS}{SYSTEM}", "exposed": [seed, hidden]}
    assert access(closed, DIRECTORY) == (
        r"Administrators, SYSTEM; x\seed-b.iso: BU (FR), SYSTEM; images: not readable"
    )


def test_the_vms_own_adapter_is_known_by_its_address_whatever_the_order(world: World) -> None:
    made(world)
    (own,) = world.windows.find(NAME)["adapters"]
    mac = static_mac(NAME, pool=("00155D0AC800", "00155D0AC8FF"))
    own["mac"] = mac.replace(":", "").upper()
    world.windows.find(NAME)["adapters"] = [{**own, "mac": "00155D010203", "switch": "Other"}, own]
    with world.place() as place:
        seen = place.observe().vm
    assert seen is not None
    assert (seen.settings["mac"], seen.settings["otherAdapters"]) == (mac, "one on Other")


def test_the_seed_is_in_no_frame(world: World) -> None:
    made(world)
    (data,) = [data for script, data in world.windows.calls if script == "create.ps1"]
    assert base64.b64decode(world.windows.given) == b"seed"
    assert not [name for name in data if name == "seedData"]


def test_the_lock_is_given_back_also_after_a_failure(world: World) -> None:
    with world.place() as place, pytest.raises(Conflict), place.lock(world.said.append):
        raise Conflict("no")
    assert not world.windows.held


def test_a_lost_connection_is_the_error_that_is_told_and_not_the_lock(world: World) -> None:
    world.windows.breaks["unlock.ps1"] = Unreachable("again")
    with world.place() as place, pytest.raises(Unreachable, match="gone"), place.lock(world.said.append):
        raise Unreachable("gone")


def test_a_second_controller_waits_and_then_says_busy(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOCK_SECONDS", 0.1)
    world.windows.held = True
    with world.place() as place, pytest.raises(Busy, match="another vmproxy"), place.lock(world.said.append):
        raise AssertionError
    assert "waiting" in world.said[0]


def test_a_trial_names_its_route_in_the_marker_only_meanwhile(world: World) -> None:
    made(world)
    world.windows.answers = [{"ok": True, "ms": 1.2, "via": "192.168.10.5"}]
    with world.place() as place:
        place.observe()
        answer = place.trial(Connection("tcp", ip_address("10.96.0.1"), 443), ip_address("192.168.10.5"))
    assert (answer.ok, answer.detail) == (True, "answered in 1.2 ms")
    before, probe, after = world.windows.calls[-3:]
    assert [before[0], probe[0], after[0]] == ["mark.ps1", "probe.ps1", "mark.ps1"]
    assert probe[1]["trial"] == {"prefix": "10.96.0.1/32", "via": "192.168.10.5"}
    assert "10.96.0.1/32" in before[1]["marker"]
    assert "10.96.0.1/32" not in after[1]["marker"]


def test_answers_are_told_in_words_that_no_language_changes(world: World) -> None:
    world.windows.answers = [
        {"ok": False, "error": "ConnectionRefused", "via": None},
        {"ok": None, "error": "Silence", "via": "192.168.10.5"},
    ]
    with world.place() as place:
        service = ip_address("10.96.0.1")
        answers = place.probe([Connection("tcp", service, 443), Connection("udp", service, 53)])
    assert [(item.ok, item.detail) for item in answers] == [
        (False, "refused"),
        (None, "no answer to 3 datagrams"),
    ]


def test_a_vm_that_stopped_while_it_booted_is_seen_at_once(world: World) -> None:
    with world.place() as place:
        assert place.died() is None
        world.windows.watch |= {"state": "Off", "console": ["a", "Kernel panic", "halted"]}
        assert place.died() == "it is Off"
        assert place.console(2) == ["Kernel panic", "halted"]


Drift = Callable[[FakeWindows], object]


def broken(action: Drift) -> Drift:
    """Gives the lambda its type."""
    return action


changes = st.lists(
    st.sampled_from(
        [
            broken(lambda w: w.find(NAME).update(state="Off")),
            broken(lambda w: w.find(NAME).update(state="Saved")),
            broken(lambda w: w.find(NAME).update(state="Off", cpus=7)),
            broken(lambda w: w.find(NAME).update(checkpoints="Standard", stop="Save")),
            broken(lambda w: w.find(NAME).update(automaticCheckpoints=True)),
            broken(lambda w: w.find(NAME).update(com1="")),
            broken(lambda w: w.find(NAME).update(generation=1, firmware=None)),
            broken(lambda w: w.find(NAME).update(dvds=[])),
            broken(lambda w: w.find(NAME).update(disks=[])),
            broken(lambda w: w.find(NAME)["adapters"][0].update(switch="", vlanMode="Trunk", vlan=0)),
            broken(lambda w: w.find(NAME)["adapters"][0].update(dynamicMac=True)),
            broken(lambda w: w.find(NAME)["services"][0].update(enabled=False)),
            broken(lambda w: setattr(w, "sddl", w.sddl + "(A;OICI;0x1200a9;;;BU)")),
            broken(lambda w: w.exposed.append({"path": rf"{DIRECTORY}\{NAME}\seed-b.iso", "sddl": OURS})),
            broken(lambda w: w.find(NAME)["adapters"].append({**w.find(NAME)["adapters"][0], "mac": "0"})),
            broken(lambda w: w.find(NAME)["disks"].append({"path": r"D:\data.vhdx", "exists": True})),
            broken(lambda w: w.find(NAME)["dvds"].append({"path": "", "exists": False})),
            broken(lambda w: (w.find(NAME)["firmware"] or {}).update(firstBoot="Network")),
            broken(lambda w: w.routes.clear()),
            broken(lambda w: w.routes[:-1] and w.routes.pop()),
            broken(lambda w: [item.update(via="192.168.10.9") for item in w.routes]),
            broken(lambda w: w.files.clear()),
        ]
    ),
    max_size=4,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes)
def test_after_any_drift_one_apply_leaves_nothing_to_do(tmp_path: Path, drifts: list[Drift]) -> None:
    world = World(tmp_path)
    made(world)
    for drift in drifts:
        drift(world.windows)
    with world.place() as place:
        world.converge(place)
        assert world.plan(place, place.observe()) == ()


def test_the_part_is_named_by_its_own_hash(world: World) -> None:
    made(world)
    digest = hashlib.sha256(world.file.read_bytes()).hexdigest()
    (data,) = [data for script, data in world.windows.calls if script == "receive.ps1"]
    assert data["part"] == rf"{DIRECTORY}\images\{digest}.part"


def test_a_vm_made_anew_keeps_the_marks_of_routes_that_stay(world: World) -> None:
    made(world)
    with world.place() as place:
        seen = place.observe()
        assert seen.vm is not None
        lost = replace(seen, vm=replace(seen.vm, running=False, disk=None))
        place.carry_out(vm.plan(world.wanted(place), lost), world.said.append)
        again = place.observe()
    assert again.vm is not None
    assert again.vm.marker is not None
    assert again.vm.marker.routes == ROUTES
