"""The VM from inside, over one SSH connection: a small agent runs there, and answers request by request."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from vmproxy.binaries import pack
from vmproxy.errors import NotReady, ToolFailed
from vmproxy.model.plan import Action, Outcome
from vmproxy.model.seen import FileSeen, GuestSeen, ProxySeen, Route, TokenSeen, UnitSeen
from vmproxy.transport.ssh import Conversation, Ssh
from vmproxy.util import assets, wait

Report = Callable[[str], None]

# Reads the agent's text from stdin, then runs it: no text of ours is ever part of a command line.
_BOOTSTRAP = (
    "python3 -I -S -c 'import sys; b = sys.stdin.buffer; n = int(b.readline()); "
    'exec(compile(b.read(n), "agent", "exec"))\''
)
_PROXY_UNIT = "vmproxy-kube-proxy.service"
_CA = "/etc/vmproxy/ca.crt"
_GUEST_WAITS = 30.0
"""Seconds that one request watches in the guest."""
_PIECE = 1 << 20
_LOGS = {
    "proxy": f"journalctl -u {_PROXY_UNIT} --no-pager -o short-iso -n",
    "cloud-init": "cat /var/log/cloud-init-output.log | tail -n",
}


_CLOUD_INIT = """cd /run/cloud-init 2>/dev/null && ! test -e disabled || { echo disabled; exit; }
cat result.json 2>/dev/null || systemctl list-units --state=failed --plain --no-legend 'cloud-*'"""


@dataclass(frozen=True)
class CloudInit:
    """`errors` are those of all its stages, known when it has ended."""

    ended: bool
    errors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Endpoint:
    """Where something should answer the VM."""

    address: str
    port: int
    protocol: Literal["tcp", "udp"]


@dataclass(frozen=True)
class Reach:
    """How the VM reaches an endpoint. `why` None: it does. `silent`: nothing came back. `refused`: the
    machine answers, the port does not. `via`: the next hop there; None on the own link, with no way at
    all, or when it is reached."""

    why: str | None
    silent: bool
    refused: bool
    via: str | None


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

    def apply(self, actions: Sequence[Action], report: Report) -> Iterator[Outcome]:
        """Large files one by one, then all else in one request: a unit restarts at most once."""
        large = [action for action in actions if _source(action) is not None]
        for action in large:
            self._push(action, report)
            yield Outcome(action, "done")
        rest = [action for action in actions if action not in large]
        if rest:
            report(f"{len(rest)} change{'s' if len(rest) > 1 else ''} in the guest")
        self._ask("apply", **self._request(actions, rest))
        for action in rest:
            yield Outcome(action, "done")

    def wait_converged(self, canary: tuple[str, int], seconds: float, report: Report) -> None:
        """Until kube-proxy has synced what it had queued, its rule for the canary is there, and the API
        server answers at the canary's ClusterIP. Raises NotReady with the end of kube-proxy's log."""
        failures: int | None = None

        def probe() -> bool | str:
            nonlocal failures
            seen = self._ask("converged", canary=canary, ca=_CA, failures=failures, seconds=_GUEST_WAITS)
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
        answer = self._ask("reach", endpoints=[asdict(item) for item in endpoints])
        return [Reach(**item) for item in answer["endpoints"]]

    def rule_present(self, address: str, port: int, protocol: Literal["tcp", "udp"]) -> bool:
        """Whether kube-proxy has a rule for that port of a ClusterIP."""
        return bool(self._ask("rule", address=address, port=port, protocol=protocol)["there"])

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

    def _push(self, action: Action, report: Report) -> None:
        file, path = action.params["file"], action.params["path"]
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

    def _request(self, actions: Sequence[Action], rest: Sequence[Action]) -> dict[str, Any]:
        """What the agent's `apply` takes: small files, and what follows from all of the actions."""
        files = [_small(action.params) for action in rest if "file" in action.params]
        follows = [action.params["file"].follow for action in actions if "file" in action.params]
        if any(action.verb == "renew" for action in rest) or any(follow.renew for follow in follows):
            files.append(self._token())
        setup = {part for follow in follows for part in follow.setup}
        setup |= {action.params["setup"] for action in rest if "setup" in action.params}
        units = [action.params["unit"] for action in rest if "unit" in action.params]
        restart = dict.fromkeys([unit for follow in follows for unit in follow.restart] + units)
        return {
            "files": files,
            "sysctls": {
                action.params["sysctl"]: action.params["value"]
                for action in rest
                if "sysctl" in action.params
            },
            "setup": sorted(setup),
            "reload": sorted({*_changed_units(actions), *units}),
            "enable": units,
            "restart": list(restart),
        }

    def _token(self) -> dict[str, str]:
        content = self._mint().encode()
        return {"path": "/etc/vmproxy/token", "mode": "0600", "owner": "root", "content": _base64(content)}


def _pieces(packed: Path, report: Report) -> Iterator[bytes]:
    total, sent = packed.stat().st_size, 0
    with packed.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece
            sent += len(piece)
            if sent % (8 << 20) == 0:
                report(f"{sent >> 20} of {total >> 20} MiB sent")


def _small(params: Mapping[str, Any]) -> dict[str, str]:
    file = params["file"]
    return {
        "path": params["path"],
        "mode": file.mode,
        "owner": file.owner,
        "content": _base64(file.content),
    }


def _changed_units(actions: Sequence[Action]) -> list[str]:
    """The units whose file is pushed."""
    return [
        Path(action.params["path"]).name
        for action in actions
        if "file" in action.params and action.params["file"].follow.reload
    ]


def _source(action: Action) -> Any:
    return getattr(action.params.get("file"), "source", None)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _seen(data: Mapping[str, Any]) -> GuestSeen:
    return GuestSeen(
        files={path: FileSeen(**file) for path, file in data["files"].items()},
        units={name: UnitSeen(**unit) for name, unit in data["units"].items()},
        sysctls=data["sysctls"],
        guard=data["guard"],
        routes=tuple(Route(**route) for route in data["routes"]),
        token=TokenSeen(**data["token"]) if data["token"] else None,
        proxy=ProxySeen(**data["proxy"]),
        kernel=data["kernel"],
        writes_rules=data["writes_rules"],
        nft=data["nft"],
        now=data["now"],
    )
