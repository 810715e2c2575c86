"""The VM from inside, over one SSH connection: a small agent runs there, and answers request by request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Literal, TypeVar

from vmproxy.binaries import pack
from vmproxy.errors import NotReady, RemoteFailed, ToolFailed
from vmproxy.guest import wire
from vmproxy.guest.wire import Apply, Converged, Finish, Push, Question, ReachEach, Rule
from vmproxy.model.names import PROXY_UNIT, RENEWAL, TOKEN
from vmproxy.model.net import Address
from vmproxy.model.seen import CloudInit, Endpoint, GuestQuery, GuestSeen, Reach
from vmproxy.model.steps import GuestStep, ManagedFile, PushFile, StartUnit, failing_at
from vmproxy.transport.ssh import Conversation, Ssh
from vmproxy.util import assets, wait
from vmproxy.util.events import Amount, Report

T = TypeVar("T")

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
    """`mint` makes a new token for this VM in the cluster, `renewal` gets the one that renews it."""

    def __init__(self, ssh: Ssh, *, name: str, mint: Callable[[], str], renewal: Callable[[], str]) -> None:
        self._ssh = ssh
        self._name = name
        self._mint = mint
        self._renewal = renewal
        self._agent: Conversation | None = None

    def run(self, command: str) -> str:
        return self._ssh.run(command).decode(errors="replace")

    def observe(self, query: GuestQuery) -> GuestSeen:
        """Raises ToolFailed when the agent cannot run."""
        return self._ask(wire.observe(query, setup=assets.text("guest/setup.py")))

    def do(self, steps: Sequence[GuestStep], report: Report) -> Iterator[GuestStep]:
        """Yields each step when it is done: large files one by one, the others beside them, and at last the
        units that a large file restarts: each restarts at most once."""
        large = [step for step in steps if isinstance(step, PushFile) and step.file.source is not None]
        rest = [step for step in steps if step not in large]
        if rest:
            report(f"{len(rest)} change{'s' if len(rest) > 1 else ''} in the guest")
        with failing_at((rest or large)[0]):
            secrets = self._secrets(steps)
        changes = wire.changes(steps, secrets=secrets)
        if not large:
            with failing_at(rest[0]):
                self._ask(changes)
            yield from rest
        else:
            yield from self._beside_large_files(large, rest, changes, report)

    def _secrets(self, steps: Sequence[GuestStep]) -> dict[str, str]:
        """The new tokens that the steps need, by path."""
        found = {RENEWAL: self._renewal()} if wire.needs_renewal(steps) else {}
        return found | ({TOKEN: self._mint()} if wire.needs_token(steps) else {})

    def _beside_large_files(
        self, large: Sequence[PushFile], rest: Sequence[GuestStep], changes: Apply, report: Report
    ) -> Iterator[GuestStep]:
        """When a push fails, what was begun beside it ends, and the next look shows it."""
        held = {unit for step in large for unit in step.file.follow.restart}
        last = [step for step in rest if isinstance(step, StartUnit) and step.unit in held]
        first = [step for step in rest if step not in last]
        with failing_at((first or large)[0]):
            self._ask(wire.begin(wire.without_restart(changes, held)))
        for step in large:
            with failing_at(step):
                self._push(step.path, step.file, report)
            yield step
        with failing_at((first or large)[0]):
            self._ask(Finish())
        yield from first
        with failing_at((last or large)[-1]):
            self._ask(wire.only_restart(changes, held))
        yield from last

    def wait_converged(self, canary: tuple[Address, int], seconds: float, report: Report) -> None:
        """Until kube-proxy has synced what it had queued, its rule for the canary is there, and the API
        server answers at the canary's ClusterIP; any other canary is only connected to. Raises NotReady
        with the end of kube-proxy's log."""
        failures: int | None = None
        ca = wire.canary_ca(canary)

        def probe() -> bool | str:
            nonlocal failures
            seen = self._ask(Converged(canary, ca, failures, _GUEST_WAITS))
            failures = seen.failures
            return seen.why or True

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
        output = self.run(_CLOUD_INIT)
        if output.startswith("{"):
            try:
                return CloudInit(ended=True, errors=wire.cloud_init_errors(output))
            except ValueError as exc:
                raise self._nonsense(exc) from exc
        if output.strip() == "disabled":
            raise ToolFailed(f"cannot use VM {self._name}: its cloud-init is disabled, or it has none")
        failed = tuple(f"{line.split()[0]} failed" for line in output.splitlines() if line.strip())
        return CloudInit(ended=bool(failed), errors=failed)

    def reach(self, endpoints: Sequence[Endpoint]) -> list[Reach]:
        """Real connections from the VM, side by side."""
        found = self._ask(ReachEach(tuple(endpoints)))
        if len(found) != len(endpoints):
            raise self._nonsense(f"it has {len(found)} endpoints of {len(endpoints)}")
        return found

    def rule_present(self, address: Address, port: int, protocol: Literal["tcp", "udp"]) -> bool:
        """Whether kube-proxy has a rule for that port of a ClusterIP."""
        return self._ask(Rule(address, port, protocol))

    def logs(self, which: Literal["proxy", "cloud-init"], lines: int) -> str:
        return self.run(f"{_LOGS[which]} {lines:d}").rstrip()

    def _ask(self, question: Question[T], content: Iterable[bytes] = ()) -> T:
        """`content` is sent after the question."""
        agent, self._agent = self._agent or self._start(), None
        line = agent.ask(chain([wire.line(question)], content))
        try:
            answer = wire.answer(question, line)
        except ValueError as exc:
            raise self._nonsense(exc) from exc
        self._agent = agent  # one that failed has ended, and one that answers nonsense is not asked again
        return answer

    def _nonsense(self, why: object) -> RemoteFailed:
        return RemoteFailed(
            f"cannot understand the answer of VM {self._name}: {why}",
            hint="does a start-up file of root, such as .bashrc, print something there? "
            "If nobody changed the VM: remove it on its host, then run apply",
        )

    def _start(self) -> Conversation:
        agent = assets.text("guest/agent.py").encode()
        conversation = self._ssh.converse(_BOOTSTRAP)
        conversation.send([b"%d\n" % len(agent), agent])
        return conversation

    def _push(self, path: str, file: ManagedFile, report: Report) -> None:
        assert file.source is not None
        report(f"pushing {path}")
        push = Push(path, file.sha256, file.mode, file.owner, file.version)
        try:
            self._ask(push, _pieces(pack.packed(file.source, file.sha256), report))
        except ToolFailed as exc:
            raise ToolFailed(
                exc.message, details=exc.details, hint="is proxy.binary the kube-proxy of proxy.version?"
            ) from exc


def _pieces(packed: Path, report: Report) -> Iterator[bytes]:
    total, sent = packed.stat().st_size, 0
    with packed.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece
            sent += len(piece)
            if sent % (8 << 20) == 0:
                report(Amount(f"{sent >> 20} of {total >> 20} MiB sent", done=sent, total=total))
