"""What is asked of the agent in the guest, and what it answers: the other half of templates/guest/agent.py.

A question's fields are sent under their own names. No connection here.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import PurePosixPath
from typing import Any, ClassVar, Literal, Protocol, TypeVar

from vmproxy.model.plan import Action
from vmproxy.model.seen import FileSeen, GuestQuery, GuestSeen, ProxySeen, Route, TokenSeen, UnitSeen

TOKEN = "/etc/vmproxy/token"  # noqa: S105 (a path)
IpProtocol = Literal["tcp", "udp"]
Json = Mapping[str, Any]
T_co = TypeVar("T_co", covariant=True)


class Question(Protocol[T_co]):
    """A frozen dataclass that is sent to the agent; `parsed` reads the agent's answer to it."""

    operation: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Any]]

    def parsed(self, answer: Json) -> T_co: ...


def line(question: Question[object]) -> bytes:
    """The question as the agent reads it."""
    return json.dumps({"operation": question.operation, **asdict(question)}).encode() + b"\n"


@dataclass(frozen=True)
class Observe:
    """The guest as it is. `setup` is the text of setup.py: the one in the guest may be older."""

    files: tuple[str, ...]
    units: tuple[str, ...]
    sysctls: tuple[str, ...]
    token: str
    setup: str = field(repr=False)
    operation: ClassVar = "observe"

    def parsed(self, answer: Json) -> GuestSeen:
        token = answer["token"]
        return GuestSeen(
            files={path: FileSeen(**file) for path, file in answer["files"].items()},
            units={name: UnitSeen(**unit) for name, unit in answer["units"].items()},
            sysctls=answer["sysctls"],
            guard=answer["guard"],
            routes=tuple(Route(**route) for route in answer["routes"]),
            token=TokenSeen(**token) if token else None,
            proxy=ProxySeen(**answer["proxy"]),
            kernel=answer["kernel"],
            writes_rules=answer["writes_rules"],
            nft=answer["nft"],
            now=answer["now"],
        )


def observe(query: GuestQuery, *, setup: str) -> Observe:
    return Observe(query.files, query.units, query.sysctls, query.token, setup)


@dataclass(frozen=True)
class Push:
    """One large file; its content follows as a zlib stream. `version`: what the program must say that it is,
    before it takes its place; None: it is not tried."""

    path: str
    sha256: str
    mode: str
    owner: str
    version: str | None
    operation: ClassVar = "push"

    def parsed(self, answer: Json) -> None:
        """There is nothing to read."""


@dataclass(frozen=True)
class SmallFile:
    """`content` is base64; it may be a secret."""

    path: str
    mode: str
    owner: str
    content: str = field(repr=False)


@dataclass(frozen=True)
class Apply:
    """Small files and kernel settings, then what follows from them: parts that setup.py loads anew, units
    that systemd reads again, enables and restarts."""

    files: tuple[SmallFile, ...]
    sysctls: Mapping[str, str]
    setup: tuple[str, ...]
    reload: tuple[str, ...]
    enable: tuple[str, ...]
    restart: tuple[str, ...]
    operation: ClassVar = "apply"

    def parsed(self, answer: Json) -> None:
        """There is nothing to read."""


@dataclass(frozen=True)
class Rule:
    """Whether kube-proxy has a rule for that port of a ClusterIP."""

    address: str
    port: int
    protocol: IpProtocol
    operation: ClassVar = "rule"

    def parsed(self, answer: Json) -> bool:
        return bool(answer["there"])


@dataclass(frozen=True)
class Endpoint:
    """Where something should answer the VM."""

    address: str
    port: int
    protocol: IpProtocol


@dataclass(frozen=True)
class Reach:
    """How the VM reaches an endpoint. `why` None: it does. `silent`: nothing came back. `refused`: the
    machine answers, the port does not. `via`: the next hop there; None on the own link, with no way at
    all, or when it is reached."""

    why: str | None
    silent: bool
    refused: bool
    via: str | None


@dataclass(frozen=True)
class ReachEach:
    """A real connection to each endpoint; the answers come in the same order."""

    endpoints: tuple[Endpoint, ...]
    operation: ClassVar = "reach"

    def parsed(self, answer: Json) -> list[Reach]:
        return [Reach(**item) for item in answer["endpoints"]]


@dataclass(frozen=True)
class Convergence:
    """`why` kube-proxy cannot be trusted with traffic yet; empty when it can."""

    why: str
    failures: int


@dataclass(frozen=True)
class Converged:
    """Whether kube-proxy has converged, watched until it has or `seconds` are over.

    `canary` is (ClusterIP, port) of default/kubernetes, `ca` a file in the guest. `failures`: how often
    kube-proxy had failed to write its rules when the wait began; None: it begins with this question.
    """

    canary: tuple[str, int]
    ca: str
    failures: int | None
    seconds: float
    operation: ClassVar = "converged"

    def parsed(self, answer: Json) -> Convergence:
        return Convergence(**answer)


def needs_token(actions: Sequence[Action]) -> bool:
    return any(action.verb == "renew" for action in actions) or any(
        file.follow.renew for _, file in _files(actions)
    )


def changes(actions: Sequence[Action], *, token: str | None) -> Apply:
    """The small files of `actions`, and what follows from all of them. `token`: a new one for the guest."""
    files = [_small(path, file) for path, file in _files(actions) if file.content is not None]
    if token is not None:
        files.append(SmallFile(TOKEN, "0600", "root", _base64(token.encode())))
    follows = [file.follow for _, file in _files(actions)]
    changed_units = [PurePosixPath(path).name for path, file in _files(actions) if file.follow.reload]
    units = [action.params["unit"] for action in actions if "unit" in action.params]
    setup = [action.params["setup"] for action in actions if "setup" in action.params]
    return Apply(
        files=tuple(files),
        sysctls={item.params["sysctl"]: item.params["value"] for item in actions if "sysctl" in item.params},
        setup=tuple(sorted({*setup, *chain.from_iterable(follow.setup for follow in follows)})),
        reload=tuple(sorted({*changed_units, *units})),
        enable=tuple(units),
        restart=tuple(dict.fromkeys([*chain.from_iterable(follow.restart for follow in follows), *units])),
    )


def _files(actions: Sequence[Action]) -> list[tuple[str, Any]]:
    """What is pushed, small or large: its path, and a resources.proxy.ManagedFile."""
    return [(action.params["path"], action.params["file"]) for action in actions if "file" in action.params]


def _small(path: str, file: Any) -> SmallFile:
    return SmallFile(path, file.mode, file.owner, _base64(file.content))


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
