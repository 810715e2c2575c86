"""Runs in the guest for one connection: each request is a line of JSON on stdin, for `push` followed by the
file's content; each answer is a line of JSON on stdout. A request that fails ends it, the reason on stderr.

Sent anew at each run, so that nothing of it has to be installed. Standard library only, Python 3.9.
Started by a line that reads this text first. The other half is vmproxy/guest/wire.py.
"""

from __future__ import annotations

import base64
import errno
import grp
import hashlib
import json
import os
import pwd
import shutil
import socket
import stat
import subprocess
import sys
import time
import zlib

CACHE = "/var/lib/vmproxy/hashes.json"
SETUP = "/usr/local/lib/vmproxy/setup.py"
SYSCTLS = "/proc/sys"
UNITS = "/etc/systemd/system"
UNITS_CONTROL = "/etc/systemd/system.control"
RUN_UNITS = "/run/systemd/system"
RUN_CONTROL = "/run/systemd/system.control"
LOCAL_UNITS = "/usr/local/lib/systemd/system"
DISTRO_UNITS = "/usr/lib/systemd/system"
RESOLV = "/etc/resolv.conf"
RESOLVED = "/run/systemd/resolve/resolv.conf"
STUB = "127.0.0.53"
OWN = "vmproxy"
USED = "/run/vmproxy"
SETUP_UNIT = "vmproxy-setup.service"
GUARD_UNIT = "vmproxy-guard.service"
REPAIRS = "/run/vmproxy/keeper.json"
POD_ROUTES = "/run/vmproxy/podroutes.json"
POD_ROUTES_CONFIG = "/etc/vmproxy/podroutes.json"
PROXY_UNIT = "vmproxy-kube-proxy.service"
METRICS = 10249
HEALTH = 10256
MAPS = ("service-ips", "no-endpoint-services")
NFT_TRIES = 10
BIG = 1 << 20
SILENT = "no answer within 3 s"
BEGUN: list[tuple[int, int]] = []
REFUSED = os.strerror(errno.ECONNREFUSED)
PROTOCOL = "250"

TYPE_CHECKING = False  # not imported: typing is slow to load on an emulated CPU
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, BinaryIO, TypedDict

    class ApiServer(TypedDict):
        """Where its URL leads. `name` is the one in its certificate, `ca` a file."""

        host: str
        port: int
        path: str
        name: str
        ca: str

    class ObserveRequest(TypedDict):
        """What to look at. `setup` is the text of setup.py, `canary` (ClusterIP, port) of default/kubernetes
        or None, `ca` a file, `interface` the network interface's name. `token` and `renewal` are files; `api`
        None: the second is not tried."""

        files: list[str]
        units: list[str]
        sysctls: list[str]
        token: str
        renewal: str
        setup: str
        canary: tuple[str, int] | None
        ca: str
        api: ApiServer | None
        folders: list[str]
        interface: str

    class FolderSeen(TypedDict):
        mode: str
        owner: str
        group: str
        kind: str

    class FileSeen(FolderSeen):
        """`sha256` is empty for what is no file."""

        sha256: str

    class UnitSeen(TypedDict):
        active: bool
        enabled: bool
        stale: bool
        failed: bool
        drop_ins: list[str]

    class Route(TypedDict):
        """`via` is empty on the own link."""

        prefix: str
        via: str

    class TokenSeen(TypedDict):
        subject: str
        uid: str
        issued: int
        expires: int

    class Metrics(TypedDict):
        """The times are seconds since the epoch, 0 for never."""

        last_synced: float
        last_queued: float
        failures: int
        denied: int
        version: str | None

    class ProxySeen(Metrics):
        """`age`: the seconds that its unit has run; None: it does not."""

        live: bool
        mode: str | None
        age: float | None

    class CanarySeen(TypedDict):
        """Whether kube-proxy has its rule, and the HTTP status of a request with the token; 0 for none, with
        the reason if it was tried."""

        rule: bool
        status: int
        why: str

    class LeftOut(TypedDict):
        why: str
        node: str
        address: str
        count: int

    class PodRoutesSeen(TypedDict):
        """As podroutes.py notes it."""

        mode: str
        listed: bool
        routes: int
        failed: int
        api: str
        since: float
        left: list[LeftOut]
        more: int

    class ObserveAnswer(TypedDict):
        files: dict[str, FileSeen]
        sysctls: dict[str, str]
        token: TokenSeen | None
        proxy: ProxySeen
        canary: CanarySeen | None
        renewal: int
        drops: dict[str, int]
        repairs: dict[str, int]
        kernel: str
        writes_rules: bool
        nft: str | None
        units: dict[str, UnitSeen]
        guard: str | None
        routes: list[Route]
        folders: dict[str, FolderSeen]
        addresses: list[str]
        added: list[str]
        dns: list[str]
        blockers: list[str]
        pod_routes: PodRoutesSeen | None
        now: float

    class PushRequest(TypedDict):
        """`version`: what the program must say that it is; None: it is not tried."""

        path: str
        sha256: str
        mode: str
        owner: str
        version: str | None

    class SmallFile(TypedDict):
        """`content` is base64."""

        path: str
        mode: str
        owner: str
        content: str

    class Access(TypedDict):
        path: str
        mode: str
        owner: str

    class ApplyRequest(TypedDict):
        """`setup` are words that setup.py takes; the last three are names of units."""

        access: list[Access]
        files: list[SmallFile]
        remove: list[str]
        sysctls: dict[str, str]
        setup: list[str]
        reload: list[str]
        enable: list[str]
        restart: list[str]

    class Done(TypedDict):
        """The answer to a request that only changes something."""

    class RuleRequest(TypedDict):
        """A port of a ClusterIP; `protocol` is "tcp" or "udp"."""

        address: str
        port: int
        protocol: str

    class RuleAnswer(TypedDict):
        there: bool

    class Endpoint(TypedDict):
        address: str
        port: int
        protocol: str

    class ReachRequest(TypedDict):
        endpoints: list[Endpoint]

    class Reached(TypedDict):
        why: str | None
        silent: bool
        refused: bool
        via: str | None

    class ReachAnswer(TypedDict):
        endpoints: list[Reached]

    class ConvergedRequest(TypedDict):
        """`canary` is (ClusterIP, port) of default/kubernetes, `ca` a file; empty: of another Service, which
        is only connected to. `failures`: how often kube-proxy had failed to write its rules when the
        wait began; None: it begins now."""

        canary: tuple[str, int]
        ca: str
        failures: int | None
        seconds: float

    class ConvergedAnswer(TypedDict):
        """`why` is empty when it has converged."""

        why: str
        failures: int

    Process = subprocess.Popen[bytes]


def start(*command: str) -> Process | None:
    """A program begun; `finish` waits for it. Several run side by side that way."""
    try:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError:
        return None


def finish(process: Process | None) -> str | None:
    """Its output, or None when it is missing or fails."""
    if process is None:
        return None
    out = process.communicate()[0]
    return out.decode(errors="replace") if process.returncode == 0 else None


def tool(*command: str) -> str | None:
    return finish(start(*command))


def must(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0:
        words = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise SystemExit("%s: %s" % (" ".join(command), words or "exit code %d" % done.returncode))


def write(path: str, content: bytes, mode: int = 0o644) -> None:
    """Whole or not at all."""
    make_folder(os.path.dirname(path))
    part = path + ".part"
    with open(new(part), "wb") as file:
        file.write(content)
        os.fchmod(file.fileno(), mode)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def new(path: str) -> int:
    """A new file's descriptor. What is in its place goes, and is not followed."""
    if os.path.lexists(path):
        os.unlink(path)
    return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)


def make_folder(path: str) -> None:
    """One of ours is root's alone, whatever the folder that it is in passes on."""
    if displaced(path):
        os.unlink(path)
    missing = os.path.basename(path) == OWN and not os.path.isdir(path)
    os.makedirs(path, exist_ok=True)
    if missing and os.geteuid() == 0:
        os.chown(path, 0, 0)
        os.chmod(path, 0o755)


def displaced(folder: str) -> bool:
    """Whether somebody has put a link, a file or the like in the place of a folder of ours."""
    strange = os.path.islink(folder) or (os.path.exists(folder) and not os.path.isdir(folder))
    return os.path.basename(folder) == OWN and strange


# What is seen.


def identity(found: os.stat_result) -> list[int]:
    return [found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def hashes() -> dict[str, Any]:
    return loaded(CACHE)


def digest(path: str, found: os.stat_result, cache: dict[str, Any]) -> str:
    """A big file is hashed again only when its inode, size or times have changed."""
    key = identity(found)
    known = cache.get(path)
    if known and known[0] == key:
        return str(known[1])
    summed = hashlib.sha256()
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
        for chunk in iter(lambda: file.read(BIG), b""):
            summed.update(chunk)
    if found.st_size > BIG:
        cache[path] = [key, summed.hexdigest()]
    return summed.hexdigest()


def files(paths: Iterable[str]) -> dict[str, FileSeen]:
    cache = hashes()
    before = json.dumps(cache)
    seen: dict[str, FileSeen] = {}
    for path in paths:
        if displaced(os.path.dirname(path)):
            continue  # what is there is not ours
        try:
            found = os.lstat(path)
            content = digest(path, found, cache) if stat.S_ISREG(found.st_mode) else ""
        except OSError:
            continue
        seen[path] = {"sha256": content, **access(found)}
    if json.dumps(cache) != before:
        write(CACHE, json.dumps(cache).encode(), 0o600)
    return seen


def folders(paths: Iterable[str]) -> dict[str, FolderSeen]:
    seen: dict[str, FolderSeen] = {}
    for path in paths:
        try:
            seen[path] = access(os.lstat(path))
        except OSError:
            continue
    return seen


def access(found: os.stat_result) -> FolderSeen:
    kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}
    return {
        "mode": "%04o" % (found.st_mode & 0o7777),
        "owner": name_of(found.st_uid, lambda: pwd.getpwuid(found.st_uid).pw_name),
        "group": name_of(found.st_gid, lambda: grp.getgrgid(found.st_gid).gr_name),
        "kind": kinds.get(stat.S_IFMT(found.st_mode), "special"),
    }


def name_of(number: int, known: Callable[[], str]) -> str:
    try:
        return known()
    except KeyError:
        return str(number)


def drop_ins(unit: str) -> list[str]:
    """Files that change a unit from beside its own. A folder may be for all units with such a beginning."""
    found = []
    for base in (UNITS, UNITS_CONTROL, RUN_UNITS, RUN_CONTROL, LOCAL_UNITS, DISTRO_UNITS):
        for folder in listed(base):
            beginning, _, kind = folder[:-2].partition("-.")
            common = bool(kind) and unit.startswith(beginning + "-") and unit.endswith("." + kind)
            if folder.startswith(OWN + "-") and (folder == unit + ".d" or common):
                there = "%s/%s" % (base, folder)
                found += [there] if os.path.islink(there) else in_effect(there)
    return found


def in_effect(folder: str) -> list[str]:
    paths = ["%s/%s" % (folder, name) for name in listed(folder) if name.endswith(".conf")]
    return [path for path in paths if not os.path.isdir(path)]


def listed(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def units(told: str) -> dict[str, UnitSeen]:
    """Active, or about to be, as after a boot; enabled; stale: started before a file that it uses changed."""
    seen: dict[str, UnitSeen] = {}
    for block in told.strip().split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        name = values.get("Id")
        if not name:
            continue
        wants = ["%s/%s.target.wants/%s" % (UNITS, t, name) for t in ("multi-user", "timers")]
        running = values.get("ActiveState") == "active"
        starting = values.get("ActiveState") in ("inactive", "activating") and bool(values.get("Job"))
        stale = running and (used_changed(name) or values.get("NeedDaemonReload") == "yes")
        seen[name] = {
            "active": running or starting,
            "enabled": any(map(os.path.islink, wants)),
            "stale": stale,
            "failed": values.get("ActiveState") == "failed",
            "drop_ins": drop_ins(name),
        }
    return seen


def used_changed(name: str) -> bool:
    try:
        with open("%s/%s.used" % (USED, name)) as file:
            lines = file.read().splitlines()
    except OSError:
        return False
    for line in lines:
        path, inode, changed = line.rsplit(" ", 2)
        try:
            found = os.stat(path)
        except OSError:
            return True
        if (str(found.st_ino), str(int(found.st_ctime))) != (inode, changed):
            return True
    return False


def sysctl_path(name: str) -> str:
    return "%s/%s" % (SYSCTLS, name.replace(".", "/"))


def sysctls(names: Iterable[str]) -> dict[str, str]:
    seen = {}
    for name in names:
        try:
            with open(sysctl_path(name)) as file:
                seen[name] = file.read().strip()
        except OSError:
            continue
    return seen


def guard(rules: str | None, setup: str) -> str | None:
    """The hash of the rules' source, when the table is still as it was right after loading.

    `setup` is the text of setup.py that came with this request: the one in place may be older.
    """
    if rules is None:
        return None
    module: dict[str, Any] = {"__name__": "setup"}
    exec(compile(setup, "setup.py", "exec"), module)
    return str(module["guard_seen"](rules))


def drops(rules: str | None) -> dict[str, int]:
    """Packets that the guard table has dropped, by the name of the counter."""
    found = json.loads(rules).get("nftables", []) if rules else []
    return {item["counter"]["name"]: item["counter"]["packets"] for item in found if "counter" in item}


def repairs() -> dict[str, int]:
    """What the keeper has repaired since the VM started, and how often."""
    try:
        with open(REPAIRS) as file:
            return {str(name): int(number) for name, number in json.load(file).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def pod_routes() -> PodRoutesSeen | None:
    """What keeps the routes to pods says of itself; None: it has not run."""
    state = loaded(POD_ROUTES)
    try:
        return {
            "mode": state["mode"],
            "listed": state["listed"],
            "routes": state["routes"],
            "failed": state["failed"],
            "api": state["api"],
            "since": state["since"],
            "left": state["left"],
            "more": state["more"],
        }
    except KeyError:
        return None


def loaded(path: str) -> dict[str, Any]:
    """What is in that file; nothing, if it is not there or damaged."""
    try:
        with open(path) as file:
            found = json.load(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def routes(told: str | None) -> list[Route]:
    """Ours, and of all default routes the one that is used: it comes first."""
    found = json.loads(told) if told and told.strip() else []
    ours = [route for route in found if route.get("protocol") == PROTOCOL and route["dst"] != "default"]
    ours += [route for route in found if route["dst"] == "default"][:1]
    return [{"prefix": whole(route["dst"]), "via": route.get("gateway", "")} for route in ours]


def addresses(told: str | None, label: str = "") -> list[str]:
    """Those with that label; without one, all."""
    found = json.loads(told) if told and told.strip() else []
    every = [item for link in found for item in link.get("addr_info", []) if "local" in item]
    chosen = [item for item in every if label in ("", item.get("label"))]
    return ["%s/%d" % (item["local"], item["prefixlen"]) for item in chosen]


def name_servers() -> list[str]:
    """Those that are asked, also behind systemd's own."""
    found = servers(RESOLV)
    return servers(RESOLVED) if found == [STUB] else found


def servers(path: str) -> list[str]:
    try:
        with open(path) as file:
            lines = [line.split() for line in file]
    except (OSError, ValueError):
        return []
    return [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"]


def blockers(told: str | None) -> list[str]:
    """Chains of others in the way of what is forwarded, which drop some of it or all."""
    found = []
    for item in json.loads(told).get("nftables", []) if told else []:
        chain = item.get("chain", {})
        if chain.get("hook") != "forward" or chain.get("table") in (OWN, "kube-proxy"):
            continue
        name = (chain["family"], chain["table"], chain["name"])
        if chain.get("policy") == "drop":
            found.append("%s %s %s has the policy drop" % name)
        elif drops_some(tool("nft", "-j", "list", "chain", *name)):
            found.append("%s %s %s drops some" % name)
    return found


def drops_some(told: str | None) -> bool:
    found = json.loads(told).get("nftables", []) if told else []
    every = [expression for item in found for expression in item.get("rule", {}).get("expr", [])]
    return any("drop" in expression or "reject" in expression for expression in every)


def whole(prefix: str) -> str:
    """ip leaves /32 out, and writes 0.0.0.0/0 as a word."""
    if prefix == "default":
        return "0.0.0.0/0"
    return prefix if "/" in prefix else prefix + "/32"


def token(path: str) -> TokenSeen | None:
    """The claims of the token, never the token."""
    if os.path.islink(path) or not os.path.isfile(path) or displaced(os.path.dirname(path)):
        return None
    try:
        with open(path) as file:
            part = file.read().split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        account = claims["kubernetes.io"]["serviceaccount"]
        return {
            "subject": claims["sub"],
            "uid": account["uid"],
            "issued": int(claims["iat"]),
            "expires": int(claims["exp"]),
        }
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return None


def ask(port: int, path: str) -> tuple[int, str]:
    """Status and text of a loopback web server's page; status 0 when nothing answers."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as channel:
            channel.sendall(b"GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n" % path.encode())
            answer = b"".join(iter(lambda: channel.recv(65536), b""))
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), body.decode(errors="replace")
    except (OSError, ValueError, IndexError):
        return 0, ""


def proxy() -> ProxySeen:
    """Without its age, which systemd knows."""
    live = ask(HEALTH, "/livez")
    if live[0] == 404:  # before 1.28
        live = ask(HEALTH, "/healthz")
    mode = ask(METRICS, "/proxyMode")
    return {
        "live": live[0] == 200,
        "mode": mode[1].strip() or None if mode[0] == 200 else None,
        "age": None,
        **metrics(ask(METRICS, "/metrics")[1]),
    }


def metrics(page: str) -> Metrics:
    """What of kube-proxy's metrics is compared, from the text that Prometheus takes. It writes the rules of
    the two families one after the other: the times are those of IPv4."""
    seen: Metrics = {"last_synced": 0.0, "last_queued": 0.0, "failures": 0, "denied": 0, "version": None}
    for line in page.splitlines():
        if line.startswith("#"):
            continue
        name, _, value = line.rpartition(" ")
        bare, other = name.split("{")[0], 'ip_family="IPv6"' in name
        if bare == "kubeproxy_sync_proxy_rules_last_timestamp_seconds" and not other:
            seen["last_synced"] = max(seen["last_synced"], float(value))
        elif bare == "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds" and not other:
            seen["last_queued"] = max(seen["last_queued"], float(value))
        elif bare.endswith(("_restore_failures_total", "_nftables_sync_failures_total")):
            seen["failures"] += int(float(value))
        elif bare == "rest_client_requests_total" and ('code="401"' in name or 'code="403"' in name):
            seen["denied"] += int(float(value))
        elif bare == "kubernetes_build_info":
            seen["version"] = name.split('git_version="')[-1].split('"')[0]
    return seen


def age(told: str) -> float | None:
    """How long kube-proxy's unit has run, from `systemctl show`; None: it does not run."""
    for block in told.strip().split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if values.get("Id") == PROXY_UNIT and values.get("ActiveState") == "active":
            since = values.get("ActiveEnterTimestampMonotonic", "")
            return round(time.monotonic() - int(since) / 1e6, 1) if since.isdigit() else None
    return None


def canary(request: ObserveRequest) -> CanarySeen | None:
    """The way through kube-proxy to the API server, and whether that takes the token."""
    if request["canary"] is None:
        return None
    address, port = request["canary"]
    way: Endpoint = {"address": address, "port": port, "protocol": "tcp"}
    if not rule(way)["there"]:
        return {"rule": False, "status": 0, "why": ""}
    status, why = canary_status(way, request["ca"], request["token"])
    return {"rule": True, "status": status, "why": why}


def renewal(request: ObserveRequest) -> int:
    """The API server's status for the token that renews the other, as renew.py reaches it; 0: no answer, or
    there is none."""
    api = request["api"]
    if api is None or not authorization(request["renewal"]):
        return 0
    path = api["path"] + "/version"
    return api_status(api["host"], api["port"], api["ca"], request["renewal"], path, api["name"])[0]


def observe(request: ObserveRequest) -> ObserveAnswer:
    # kube-proxy first: the rules that it says it has written are there when they are looked for.
    tried = beside(lambda: (proxy(), canary(request), renewal(request)))
    properties = "--property=Id,ActiveState,Job,NeedDaemonReload,ActiveEnterTimestampMonotonic"
    shown = start("systemctl", "show", properties, *request["units"])
    rules = start("nft", "-j", "list", "table", "inet", "vmproxy")
    version = start("nft", "--version")
    chains = start("nft", "-j", "list", "chains")
    found = start("ip", "-j", "-4", "route", "show")
    own = start("ip", "-j", "-4", "address", "show", "dev", request["interface"])
    seen = files(request["files"])  # the programs run meanwhile
    told, table = finish(shown) or "", finish(rules)
    shown_addresses = finish(own)
    of_proxy, way, status = joined(tried)
    of_proxy["age"] = age(told)
    return {
        "files": seen,
        "sysctls": sysctls(request["sysctls"]),
        "token": token(request["token"]),
        "proxy": of_proxy,
        "kernel": os.uname().release,
        "writes_rules": bool(shutil.which("nft") or shutil.which("iptables")),
        "nft": nft_version(finish(version)),
        "units": units(told),
        "guard": guard(table, request["setup"]),
        "drops": drops(table),
        "repairs": repairs(),
        "routes": routes(finish(found)),
        "folders": folders(request["folders"]),
        "addresses": addresses(shown_addresses),
        "added": addresses(shown_addresses, "%s:%s" % (request["interface"], OWN)),
        "dns": name_servers(),
        "blockers": blockers(finish(chains)),
        "pod_routes": pod_routes(),
        "canary": way,
        "renewal": status,
        "now": time.time(),
    }


def nft_version(told: str | None) -> str | None:
    """From "nftables v1.0.6 (Lester Gooch #5)"."""
    return told.split()[1].lstrip("v") if told else None


# What is done.


def push(request: PushRequest) -> Done:
    """One file, its content on stdin as a zlib stream; a program is tried before it takes its place."""
    path = request["path"]
    make_folder(os.path.dirname(path))
    part = path + ".part"
    try:
        draft(part, request)
        os.replace(part, path)
    except OSError as error:
        raise SystemExit("%s: %s" % (path, error.strerror)) from None
    finally:
        if os.path.isfile(part):  # it did not take its place
            os.unlink(part)
    known = {path: [identity(os.stat(path)), request["sha256"]]}
    write(CACHE, json.dumps({**hashes(), **known}).encode(), 0o600)
    flush(os.path.dirname(path))  # its name, too: what is reported as done survives a power cut
    return {}


def draft(part: str, request: PushRequest) -> None:
    with open(new(part), "wb") as file:
        receive(file, request)
    told = start(part, "--version") if request["version"] else None
    flush(part)
    check_version(told, request)


def flush(path: str) -> None:
    """A file, or a folder with the names in it."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def check_version(process: Process | None, request: PushRequest) -> None:
    """A program says itself which version it is; another one never takes its place."""
    wanted = request["version"]
    told = (finish(process) or "it does not run here").strip() if wanted else None
    if told != (wanted and "Kubernetes " + wanted):
        raise SystemExit("%s: not %s, but: %s" % (request["path"], wanted, told))


def receive(file: BinaryIO, request: PushRequest) -> None:
    """SSH keeps the content as it was sent, and zlib's own end says that it is whole: it is not hashed."""
    unpacker = zlib.decompressobj()
    stdin: Any = sys.stdin.buffer  # typeshed does not know that it has read1
    while not unpacker.eof:
        packed = stdin.read1(BIG)
        if not packed:
            raise SystemExit("%s: the connection ended before its end" % request["path"])
        file.write(unpacker.decompress(packed))
    found = pwd.getpwnam(request["owner"])
    os.fchown(file.fileno(), found.pw_uid, found.pw_gid)
    os.fchmod(file.fileno(), int(request["mode"], 8))


def apply(request: ApplyRequest) -> Done:
    """Small files, then what follows from them: each list may be empty."""
    for entry in request["access"]:
        restrict(entry)
    for path in request["remove"]:
        remove(path)
    for item in request["files"]:
        found = pwd.getpwnam(item["owner"])
        write(item["path"], base64.b64decode(item["content"]), int(item["mode"], 8))
        os.chown(item["path"], found.pw_uid, found.pw_gid)
    for what in request["setup"]:
        unit = GUARD_UNIT if what == "guard" else SETUP_UNIT
        if unit not in request["restart"]:  # it does that too
            must("python3", "-I", SETUP, what)
    if request["enable"]:
        must("systemctl", "--root=/", "--quiet", "enable", *request["enable"])  # the links alone: no reload
    if request["files"] or request["remove"] or request["enable"]:
        os.sync()
    if request["reload"] and outdated(request["reload"]):
        must("systemctl", "daemon-reload")
    if request["restart"]:
        must("systemctl", "restart", *request["restart"])
    for name, value in request["sysctls"].items():  # last: nothing is forwarded without the guard table
        with open(sysctl_path(name), "w") as file:
            file.write(value)
    return {}


def restrict(entry: Access) -> None:
    """Through a descriptor of what is there, never of what a link leads to."""
    make_folder(os.path.dirname(entry["path"]))
    if displaced(entry["path"]):
        make_folder(entry["path"])
    found = pwd.getpwnam(entry["owner"])
    opened = os.open(entry["path"], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        os.fchown(opened, found.pw_uid, found.pw_gid)
        os.fchmod(opened, int(entry["mode"], 8))
    finally:
        os.close(opened)


def remove(path: str) -> None:
    """A file or a link that may be gone, and a unit's folder for such files when that is empty then."""
    folder = os.path.dirname(path)
    if os.path.lexists(path):
        os.unlink(path)
    if folder.endswith(".d") and os.path.isdir(folder) and not os.listdir(folder):
        os.rmdir(folder)


def begin(request: ApplyRequest) -> Done:
    """`apply` beside what is asked next: a push waits for the network, and an emulated CPU has time then."""
    BEGUN.append(beside(lambda: apply(request)))
    return {}


def end_begun(_request: object) -> Done:
    while BEGUN:
        joined(BEGUN.pop())
    return {}


def beside(work: Callable[[], object]) -> tuple[int, int]:
    """Work in a process of its own, without stdin: that belongs to requests. `joined` gives its result."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            said = {"result": work()}
        except BaseException as error:  # all that it has to say goes through the pipe
            said = {"why": str(error) or repr(error)}
        with open(write, "w") as pipe:
            json.dump(said, pipe)
        os._exit(0)
    os.close(write)
    return child, read


def joined(work: tuple[int, int]) -> Any:
    """Its result, or an end with its reason."""
    child, read = work
    with open(read) as pipe:
        said = pipe.read()  # it ends with the process
    os.waitpid(child, 0)
    answer = json.loads(said or '{"why": "a process of the agent was killed"}')
    if "why" in answer:
        raise SystemExit(answer["why"])
    return answer["result"]


def outdated(names: Iterable[str]) -> bool:
    """Whether systemd holds one of these units otherwise than its file says. One that it has not read yet
    it reads when it is started: a reload of everything costs seconds on an emulated CPU."""
    told = tool("systemctl", "show", "--property=LoadState,NeedDaemonReload", *names) or ""
    return not told or "NeedDaemonReload=yes" in told or "LoadState=not-found" in told


# What is tried.


def rule(request: RuleRequest) -> RuleAnswer:
    address, port, protocol = request["address"], str(request["port"]), request["protocol"]
    status, told = ask(METRICS, "/proxyMode")
    mode = told.strip() if status == 200 else ""  # a page that is late says nothing of the rules
    element = "{ %s . %s . %s }" % (address, protocol, port)
    if mode in ("nftables", "") and any(element_there(name, element) for name in MAPS):
        return {"there": True}
    if mode == "nftables":
        return {"there": False}
    saved = tool("iptables-save") or ""
    wanted = ("-d %s/32" % address, "-p %s" % protocol, "--dport %s " % port)
    return {"there": any(all(word in line + " " for word in wanted) for line in saved.splitlines())}


def element_there(name: str, element: str) -> bool:
    """Of a set or map of kube-proxy's table. nft's look is interrupted by each change that kube-proxy writes
    meanwhile, and then fails: it is made again."""
    command, own = ["nft", "get", "element", "ip", "kube-proxy", name, element], {**os.environ, "LC_ALL": "C"}
    for attempt in range(NFT_TRIES):
        try:
            done = subprocess.run(command, capture_output=True, env=own, check=False)
        except OSError:
            return False
        if done.returncode == 0:
            return True
        if b"No such file or directory" in done.stderr:
            return False
        time.sleep(0.05 * attempt)
    return False


def reach(request: ReachRequest) -> ReachAnswer:
    """For each endpoint why it can not be reached from here (None: it can), and the next hop to it;
    all at the same time."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(32) as pool:
        return {"endpoints": list(pool.map(reach_one, request["endpoints"]))}


def reach_one(endpoint: Endpoint) -> Reached:
    """`silent`: nothing came back, which proves little for UDP, as in verify. `refused`: the machine
    itself is reached."""
    kind = socket.SOCK_STREAM if endpoint["protocol"] == "tcp" else socket.SOCK_DGRAM
    why = lost(endpoint, kind)
    if why == SILENT and kind == socket.SOCK_DGRAM and lost(endpoint, socket.SOCK_STREAM) in (None, REFUSED):
        why = None
    via = next_hop(endpoint["address"]) if why else None
    return {"why": why, "silent": why == SILENT, "refused": why == REFUSED, "via": via}


def lost(endpoint: Endpoint, kind: socket.SocketKind) -> str | None:
    """Why nothing there answers, or None."""
    with socket.socket(socket.AF_INET, kind) as channel:
        channel.settimeout(3.0)
        try:
            channel.connect((endpoint["address"], endpoint["port"]))
            if kind == socket.SOCK_DGRAM:
                channel.send(b"vmproxy\n")
                channel.recv(65536)
        except socket.timeout:
            return SILENT
        except OSError as error:
            return os.strerror(error.errno) if error.errno else str(error)
    return None


def next_hop(address: str) -> str | None:
    """The router that packets for it are sent to; None on the own link, or with no way at all."""
    found = tool("ip", "-j", "-4", "route", "get", address)
    gateway: str | None = json.loads(found)[0].get("gateway") if found else None
    return gateway


def converged(request: ConvergedRequest) -> ConvergedAnswer:
    """Why kube-proxy can not be trusted with traffic yet, looked at until it can or the seconds are over.

    `failures`: how often it had failed to write its rules when the wait began.
    """
    import ssl  # noqa: F401 (loaded while kube-proxy starts, not after it)

    deadline = time.monotonic() + request["seconds"]
    failures = request["failures"]
    while True:
        seen = proxy()
        failures = seen["failures"] if failures is None else failures
        why = not_converged(seen, failures, request)
        if not why or time.monotonic() > deadline:
            return {"why": why, "failures": failures}
        time.sleep(0.2)


def not_converged(seen: ProxySeen, failures: int, request: ConvergedRequest) -> str:
    """What is missing, in the order in which it comes true; empty when nothing is."""
    if not seen["live"]:
        return "it is not live"
    if not seen["last_synced"]:
        return "it has not written its rules yet"
    if seen["last_synced"] < seen["last_queued"]:
        return "changes are queued that are not written yet"
    if seen["failures"] > failures:
        return "it fails to write its rules"
    address, port = request["canary"]
    canary: Endpoint = {"address": address, "port": port, "protocol": "tcp"}
    if not rule(canary)["there"]:
        return "it has no rule for %s" % ("default/kubernetes" if request["ca"] else address)
    status, why = canary_status(canary, request["ca"])
    if status:
        return without_routes()
    if request["ca"]:
        return "the API server does not answer at its ClusterIP: " + why
    return "the ClusterIP %s does not answer: %s" % (address, why)


def without_routes() -> str:
    """Why the routes to pods are not those of the configuration yet; empty when they are."""
    try:
        with open(POD_ROUTES_CONFIG, "rb") as file:
            wanted = hashlib.sha256(file.read()).hexdigest()
    except OSError:
        return ""
    state = loaded(POD_ROUTES)
    if state.get("config") != wanted:
        return "the routes to pods are not set yet"
    return "" if state.get("listed") else "the routes to pods are not set yet: %s" % state.get("api")


def canary_status(way: Endpoint, ca: str, token: str = "") -> tuple[int, str]:
    """As `api_status`. Without `ca` it is another Service, which is only connected to: 200, it answers."""
    if ca:
        path = "/api/v1/services?limit=1" if token else "/livez"
        return api_status(way["address"], way["port"], ca, token, path)
    silent = lost(way, socket.SOCK_STREAM)
    return (0, silent) if silent else (200, "")


def api_status(
    address: str, port: int, ca: str, token: str = "", path: str = "/livez", name: str = ""
) -> tuple[int, str]:
    """The status of a request to the API server; 0 and why there was no answer. `name`: the one in its
    certificate, if that is not its address.

    `token` is the file of one that is tried: 401 means that it is refused. The standard library's HTTP client
    would take the HTTP proxy of the guest's environment, and a second to load on an emulated CPU.
    """
    import ssl

    request = "GET %s HTTP/1.0\r\nHost: %s\r\n%s\r\n" % (path, address, authorization(token))
    try:
        context = ssl.create_default_context(cafile=ca if os.path.isfile(ca) else None)
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # a CA may be older than the key identifiers it wants
        plain = socket.create_connection((address, port), timeout=5)
        with plain, context.wrap_socket(plain, server_hostname=name or address) as channel:
            channel.sendall(request.encode())
            return int(channel.recv(64).split()[1]), ""
    except OSError as error:
        return 0, str(error)
    except (ValueError, IndexError):
        return 0, "what answers there speaks no HTTP"


def authorization(token: str) -> str:
    """The header with the token in that file; empty without it."""
    if not os.path.isfile(token):
        return ""
    try:
        with open(token) as file:
            words = file.read().split()
    except (OSError, ValueError):
        return ""
    return "Authorization: Bearer %s\r\n" % words[0] if words else ""


OPERATIONS: Mapping[str, Callable[[Any], object]] = {
    "observe": observe,
    "push": push,
    "apply": apply,
    "begin": begin,
    "finish": end_begun,
    "rule": rule,
    "reach": reach,
    "converged": converged,
}


def serve() -> None:
    """Until stdin ends."""
    try:
        for line in iter(sys.stdin.buffer.readline, b""):
            request = json.loads(line)
            print(json.dumps(OPERATIONS[request["operation"]](request)), flush=True)
    finally:  # nothing works on when this has ended
        for child, _ in BEGUN:
            os.waitpid(child, 0)


if __name__ == "__main__":
    serve()
