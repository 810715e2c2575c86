"""The VM from inside, over one SSH connection: a small agent runs there, and answers request by request."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from ipaddress import ip_address, ip_network
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, Literal, assert_never

from vmproxy.binaries import pack
from vmproxy.errors import NotReady, ToolFailed
from vmproxy.model.names import CA, PROXY_UNIT, TOKEN
from vmproxy.model.net import Address, Route
from vmproxy.model.seen import CloudInit, Endpoint, FileSeen, GuestSeen, ProxySeen, Reach, TokenSeen, UnitSeen
from vmproxy.model.steps import (
    GuestStep,
    LoadGuard,
    ManagedFile,
    PushFile,
    RenewToken,
    SetGuestRoute,
    SetSysctl,
    StartUnit,
    failing_at,
)
from vmproxy.transport.ssh import Conversation, Ssh
from vmproxy.util import assets, wait

Report = Callable[[str], None]

# Reads the agent's text from stdin, then runs it: no text of ours is ever part of a command line.
_BOOTSTRAP = (
    "python3 -I -S -c 'import sys; b = sys.stdin.buffer; n = int(b.readline()); "
    'exec(compile(b.read(n), "agent", "exec"))\''
)
_GUEST_WAITS = 30.0
"""Seconds that one request watches in the guest."""
_PIECE = 1 << 20
_LOGS = {
    "proxy": f"journalctl -u {PROXY_UNIT} --no-pager -o short-iso -n",
    "cloud-init": "cat /var/log/cloud-init-output.log | tail -n",
}


_CLOUD_INIT = """cd /run/cloud-init 2>/dev/null && ! test -e disabled || { echo disabled; exit; }
cat result.json 2>/dev/null || systemctl list-units --state=failed --plain --no-legend 'cloud-*'"""


class Guest:
    """`mint` makes a new token for this VM in the cluster."""

    def __init__(self, ssh: Ssh, *, name: str, mint: Callable[[], str]) -> None:
        self._ssh = ssh
        self._name = name
        self._mint = mint
        self._agent: Conversation | None = None

    def run(self, command: str) -> str:
        return self._ssh.run(command).decode(errors="replace")

    def observe(self, query: Any) -> GuestSeen:
        """`query` is resources.proxy.GuestQuery. Raises ToolFailed when the agent can not run."""
        setup = assets.text("guest/setup.py")
        return _seen(self._ask("observe", setup=setup, **asdict(query)))

    def do(self, steps: Sequence[GuestStep], report: Report) -> Iterator[GuestStep]:
        """Large files one by one, then all else in one request: a unit restarts at most once. Yields each
        step when it is done."""
        large = [step for step in steps if isinstance(step, PushFile) and step.file.source is not None]
        for step in large:
            with failing_at(step):
                self._push(step.path, step.file, report)
            yield step
        rest = [step for step in steps if step not in large]
        if rest:
            report(f"{len(rest)} change{'s' if len(rest) > 1 else ''} in the guest")
        with failing_at((rest or large)[0]):
            self._ask("apply", **self._request(steps))
        yield from rest

    def wait_converged(self, canary: tuple[Address, int], seconds: float, report: Report) -> None:
        """Until kube-proxy has synced what it had queued, its rule for the canary is there, and the API
        server answers at the canary's ClusterIP. Raises NotReady with the end of kube-proxy's log."""
        failures: int | None = None
        service = (str(canary[0]), canary[1])

        def probe() -> bool | str:
            nonlocal failures
            seen = self._ask("converged", canary=service, ca=CA, failures=failures, seconds=_GUEST_WAITS)
            failures = seen["failures"]
            return seen["why"] or True

        try:
            wait.until("kube-proxy converged", probe, timeout=seconds, every=0)
        except NotReady as exc:
            raise NotReady(
                f"cannot route through VM {self._name}: {exc.message}",
                details=self.logs("proxy", 12).splitlines(),
                hint="the log above is kube-proxy's; vmproxy logs shows more",
            ) from exc
        report("kube-proxy has converged")

    def cloud_init(self) -> CloudInit:
        """Whether cloud-init has ended, by the files that it documents: its own command costs seconds of an
        emulated CPU. Raises ToolFailed when the guest has no cloud-init."""
        told = self.run(_CLOUD_INIT)
        if told.startswith("{"):
            return CloudInit(ended=True, errors=tuple(map(str, json.loads(told)["v1"]["errors"])))
        if told.strip() == "disabled":
            raise ToolFailed(f"cannot use VM {self._name}: its cloud-init is disabled, or it has none")
        failed = tuple(f"{line.split()[0]} failed" for line in told.splitlines())
        return CloudInit(ended=bool(failed), errors=failed)

    def reach(self, endpoints: Sequence[Endpoint]) -> list[Reach]:
        """Real connections from the VM, side by side."""
        asked = [{**asdict(item), "address": str(item.address)} for item in endpoints]
        answer = self._ask("reach", endpoints=asked)
        return [Reach(**{**item, "via": _address(item["via"])}) for item in answer["endpoints"]]

    def rule_present(self, address: Address, port: int, protocol: Literal["tcp", "udp"]) -> bool:
        """Whether kube-proxy has a rule for that port of a ClusterIP."""
        return bool(self._ask("rule", address=str(address), port=port, protocol=protocol)["there"])

    def logs(self, which: Literal["proxy", "cloud-init"], lines: int) -> str:
        return self.run(f"{_LOGS[which]} {lines:d}").rstrip()

    def _ask(self, operation: str, *, content: Iterable[bytes] = (), **values: Any) -> dict[str, Any]:
        request = json.dumps({"operation": operation, **values}).encode()
        agent, self._agent = self._agent or self._start(), None
        answer: dict[str, Any] = json.loads(agent.ask(chain([request, b"\n"], content)))
        self._agent = agent  # one that failed has ended
        return answer

    def _start(self) -> Conversation:
        agent = assets.text("guest/agent.py").encode()
        conversation = self._ssh.converse(_BOOTSTRAP)
        conversation.send([b"%d\n" % len(agent), agent])
        return conversation

    def _push(self, path: str, file: ManagedFile, report: Report) -> None:
        assert file.source is not None
        report(f"pushing {path}")
        head = {
            "path": path,
            "sha256": file.sha256,
            "mode": file.mode,
            "owner": file.owner,
            "version": file.version,
        }
        try:
            self._ask("push", content=_pieces(pack.packed(file.source, file.sha256), report), **head)
        except ToolFailed as exc:
            raise ToolFailed(
                exc.message, details=exc.details, hint="is proxy.binary the kube-proxy of proxy.version?"
            ) from exc

    def _request(self, steps: Sequence[GuestStep]) -> dict[str, Any]:
        """What the agent's `apply` takes: small files, and what follows from all of the steps."""
        request = _Request()
        for step in steps:
            request.add(step)
        if request.renew:
            token = ManagedFile("", mode="0600", content=self._mint().encode())
            request.files.append(_small(TOKEN, token))
        return {
            "files": request.files,
            "sysctls": request.sysctls,
            "setup": sorted(request.setup),
            "reload": sorted(request.reload),
            "enable": request.units,
            "restart": list(dict.fromkeys([*request.restart, *request.units])),
        }


@dataclass
class _Request:
    """Grows step by step."""

    files: list[dict[str, str]] = field(default_factory=list)
    sysctls: dict[str, str] = field(default_factory=dict)
    setup: set[str] = field(default_factory=set)
    reload: set[str] = field(default_factory=set)
    restart: list[str] = field(default_factory=list)
    units: list[str] = field(default_factory=list)
    renew: bool = False

    def add(self, step: GuestStep) -> None:
        match step:
            case PushFile():
                self._push(step)
            case SetSysctl():
                self.sysctls[step.name] = step.value
            case LoadGuard():
                self.setup.add("guard")
            case SetGuestRoute():
                self.setup.add("routes")
            case RenewToken():
                self.renew = True
            case StartUnit():
                self.units.append(step.unit)
                self.reload.add(step.unit)
            case _:
                assert_never(step)

    def _push(self, step: PushFile) -> None:
        follow = step.file.follow
        if step.file.content is not None:
            self.files.append(_small(step.path, step.file))
        self.restart += follow.restart
        self.setup |= set(follow.setup)
        self.renew = self.renew or follow.renew
        if follow.reload:
            self.reload.add(PurePosixPath(step.path).name)


def _pieces(packed: Path, report: Report) -> Iterator[bytes]:
    total, sent = packed.stat().st_size, 0
    with packed.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece
            sent += len(piece)
            if sent % (8 << 20) == 0:
                report(f"{sent >> 20} of {total >> 20} MiB sent")


def _small(path: str, file: ManagedFile) -> dict[str, str]:
    content = base64.b64encode(file.content or b"").decode()
    return {"path": path, "mode": file.mode, "owner": file.owner, "content": content}


def _address(text: str | None) -> Address | None:
    return ip_address(text) if text else None


def _seen(data: Mapping[str, Any]) -> GuestSeen:
    return GuestSeen(
        files={path: FileSeen(**file) for path, file in data["files"].items()},
        units={name: UnitSeen(**unit) for name, unit in data["units"].items()},
        sysctls=data["sysctls"],
        guard=data["guard"],
        routes=tuple(Route(ip_network(route["prefix"]), _address(route["via"])) for route in data["routes"]),
        token=TokenSeen(**data["token"]) if data["token"] else None,
        proxy=ProxySeen(**data["proxy"]),
        kernel=data["kernel"],
        writes_rules=data["writes_rules"],
        nft=data["nft"],
        now=data["now"],
    )
