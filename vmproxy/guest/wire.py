"""What is asked of the agent in the guest, and what it answers: the other half of templates/guest/agent.py.

A question's fields are sent under their own names. No connection here. An answer is checked against the types
that it is read as: a guest may be broken, or another's.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from ipaddress import ip_address, ip_interface, ip_network
from itertools import chain
from math import inf
from pathlib import PurePosixPath
from typing import Any, ClassVar, Literal, Protocol, TypeVar, assert_never, cast

from pydantic import TypeAdapter, ValidationError

from vmproxy.model.names import CLUSTER_CA, INTERFACE, PROXY_UNIT, RUNNING_UNITS
from vmproxy.model.net import Address, Route
from vmproxy.model.seen import ApiServer, Endpoint, GuestQuery, GuestSeen, Reach
from vmproxy.model.steps import (
    GiveRenewal,
    GuestStep,
    LoadGuard,
    ManagedFile,
    PushFile,
    RemoveDropIns,
    RenewToken,
    RestartProxy,
    SetAccess,
    SetGuestAddress,
    SetGuestRoute,
    SetSysctl,
    StartUnit,
)

_API_PORT = 443
"""Of default/kubernetes, in every cluster; no other canary has it."""
IpProtocol = Literal["tcp", "udp"]
Json = Mapping[str, Any]
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
_LARGEST = 253_402_300_800
_LONGEST_NUMBER = 40
_SHOWN = 80


class Question(Protocol[T_co]):
    """A frozen dataclass that is sent to the agent; `parsed` reads the agent's answer to it."""

    operation: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Any]]

    def parsed(self, answer: Json) -> T_co: ...


def line(question: Question[object]) -> bytes:
    """The question as the agent reads it."""
    return json.dumps({"operation": question.operation, **asdict(question)}, default=str).encode() + b"\n"


@dataclass(frozen=True)
class Observe:
    """The guest as it is. `setup` is the text of setup.py: the one in the guest may be older."""

    files: tuple[str, ...]
    units: tuple[str, ...]
    sysctls: tuple[str, ...]
    token: str
    renewal: str
    setup: str = field(repr=False)
    canary: tuple[Address, int] | None
    ca: str
    api: ApiServer | None
    folders: tuple[str, ...]
    interface: str
    operation: ClassVar = "observe"

    def parsed(self, answer: Json) -> GuestSeen:
        routes = [
            Route(ip_network(_text(route["prefix"])), _address(route["via"])) for route in answer["routes"]
        ]
        seen = {part.name: answer[part.name] for part in fields(GuestSeen)}  # none of them has a default here
        own = {
            name: [ip_interface(_text(address)) for address in answer[name]]
            for name in ("addresses", "added")
        }
        return _read(GuestSeen, {**seen, **own, "routes": routes})


def observe(query: GuestQuery, *, setup: str) -> Observe:
    canary = query.canary
    ca = canary_ca(canary) if canary else ""
    tokens = (query.token, query.renewal)
    asked = (query.files, query.units, query.sysctls, *tokens)
    return Observe(*asked, setup, canary, ca, query.api, query.folders, INTERFACE)


def canary_ca(canary: tuple[Address, int]) -> str:
    """The CA's file in the guest by which the canary is checked; empty for a Service that is not the API
    server: it is only connected to."""
    return CLUSTER_CA if canary[1] == _API_PORT else ""


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
class Access:
    """A folder or file that exists; its group is that of the owner."""

    path: str
    mode: str
    owner: str


@dataclass(frozen=True)
class Apply:
    """Access, small files and kernel settings, files to remove, then what follows from them: parts that
    setup.py loads again, units that systemd reads again, enables and restarts."""

    access: tuple[Access, ...]
    files: tuple[SmallFile, ...]
    remove: tuple[str, ...]
    sysctls: Mapping[str, str]
    setup: tuple[str, ...]
    reload: tuple[str, ...]
    enable: tuple[str, ...]
    restart: tuple[str, ...]
    operation: ClassVar = "apply"

    def parsed(self, answer: Json) -> None:
        """There is nothing to read."""


@dataclass(frozen=True)
class Begin(Apply):
    """As Apply, beside what is asked next; Finish waits for it."""

    operation: ClassVar = "begin"


@dataclass(frozen=True)
class Finish:
    """Wait for what Begin has begun."""

    operation: ClassVar = "finish"

    def parsed(self, answer: Json) -> None:
        """There is nothing to read."""


@dataclass(frozen=True)
class Rule:
    """Whether kube-proxy has a rule for that port of a ClusterIP."""

    address: Address
    port: int
    protocol: IpProtocol
    operation: ClassVar = "rule"

    def parsed(self, answer: Json) -> bool:
        return _read(bool, answer["there"])


@dataclass(frozen=True)
class ReachEach:
    """A real connection to each endpoint; the answers come in the same order."""

    endpoints: tuple[Endpoint, ...]
    operation: ClassVar = "reach"

    def parsed(self, answer: Json) -> list[Reach]:
        items = [{**item, "via": _address(item["via"])} for item in answer["endpoints"]]
        return _read(list[Reach], items)


@dataclass(frozen=True)
class Convergence:
    """`why` kube-proxy cannot be trusted with traffic yet; empty when it can."""

    why: str
    failures: int


@dataclass(frozen=True)
class Converged:
    """Whether kube-proxy has converged, watched until it has or `seconds` are over.

    `canary` is (ClusterIP, port) of default/kubernetes, `ca` a file in the guest; empty: of another Service,
    which is only connected to. `failures`: how often kube-proxy had failed to write its rules when the wait
    began; None: it begins with this question.
    """

    canary: tuple[Address, int]
    ca: str
    failures: int | None
    seconds: float
    operation: ClassVar = "converged"

    def parsed(self, answer: Json) -> Convergence:
        return _read(Convergence, answer)


def needs_token(steps: Sequence[GuestStep]) -> bool:
    return any(isinstance(step, RenewToken) for step in steps) or any(
        push.file.follow.renew for push in _pushes(steps)
    )


def needs_renewal(steps: Sequence[GuestStep]) -> bool:
    return any(isinstance(step, GiveRenewal) for step in steps)


def changes(steps: Sequence[GuestStep], *, secrets: Mapping[str, str]) -> Apply:
    """The small files of `steps`, and what follows from all of them. `secrets`: the guest's new tokens, by
    path."""
    pushes = _pushes(steps)
    files = [_small(push.path, push.file) for push in pushes if push.file.content is not None]
    files += [SmallFile(path, "0600", "root", _base64(text.encode())) for path, text in secrets.items()]
    follows = [push.file.follow for push in pushes]
    changed_units = [PurePosixPath(push.path).name for push in pushes if push.file.follow.reload]
    units = [step.unit for step in steps if isinstance(step, StartUnit)]
    again = [PROXY_UNIT for step in steps if isinstance(step, RestartProxy)]
    bared = [step for step in steps if isinstance(step, RemoveDropIns)]
    again += [step.unit for step in bared if step.unit in RUNNING_UNITS]
    changed_units += [step.unit for step in bared]
    return Apply(
        access=tuple(Access(step.path, step.mode, "root") for step in steps if isinstance(step, SetAccess)),
        files=tuple(files),
        remove=tuple(sorted({path for step in bared for path in step.paths})),
        sysctls={step.name: step.value for step in steps if isinstance(step, SetSysctl)},
        setup=tuple(sorted({*_parts(steps), *chain.from_iterable(follow.setup for follow in follows)})),
        reload=tuple(sorted({*changed_units, *units})),
        enable=tuple(units),
        restart=_in_order(chain(chain.from_iterable(follow.restart for follow in follows), units, again)),
    )


def _in_order(units: Iterable[str]) -> tuple[str, ...]:
    """The guard table first, the keeper last: systemd starts them one after the other as they are named."""
    order = {unit: place for place, unit in enumerate(RUNNING_UNITS)}
    return tuple(sorted(set(units), key=lambda unit: (order.get(unit, 0), unit)))


def begin(changes: Apply) -> Begin:
    return Begin(**{item.name: getattr(changes, item.name) for item in fields(changes)})


def without_restart(changes: Apply, held: Set[str]) -> Apply:
    """All of it but the restart of these units."""
    return replace(changes, restart=tuple(unit for unit in changes.restart if unit not in held))


def only_restart(changes: Apply, held: Set[str]) -> Apply:
    """What `without_restart` leaves out."""
    return Apply((), (), (), {}, (), (), (), tuple(unit for unit in changes.restart if unit in held))


def _pushes(steps: Sequence[GuestStep]) -> list[PushFile]:
    return [step for step in steps if isinstance(step, PushFile)]


def _parts(steps: Sequence[GuestStep]) -> Iterator[str]:
    """What setup.py loads again."""
    for step in steps:
        match step:
            case LoadGuard():
                yield "guard"
            case SetGuestRoute():
                yield "routes"
            case SetGuestAddress():
                yield "addresses"
            case PushFile() | SetAccess() | RemoveDropIns() | SetSysctl():
                pass
            case RenewToken() | GiveRenewal() | StartUnit() | RestartProxy():
                pass
            case _:
                assert_never(step)


def _small(path: str, file: ManagedFile) -> SmallFile:
    return SmallFile(path, file.mode, file.owner, _base64(file.content or b""))


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def answer(question: Question[T], line: bytes) -> T:
    """What a line says in answer to the question. Raises ValueError with a reason when it is no answer."""
    try:
        found = json.loads(line, parse_constant=_number, parse_int=_number, parse_float=_number)
        if not isinstance(found, dict):
            raise ValueError(f"it is not an object, but: {_shown(line)}")
        return question.parsed(found)
    except json.JSONDecodeError as exc:
        raise ValueError(f"it is not JSON, but: {_shown(line)}") from exc
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from exc
    except LookupError as exc:
        raise ValueError(f"it has no {exc}") from exc
    except RecursionError as exc:
        raise ValueError("it is nested too deeply") from exc
    except (AttributeError, TypeError) as exc:
        raise ValueError("a value is of another type") from exc


def cloud_init_errors(text: str) -> tuple[str, ...]:
    """From cloud-init's result.json. Raises ValueError."""
    try:
        return tuple(map(str, _read(list[Any], json.loads(text)["v1"]["errors"])))
    except (LookupError, TypeError, RecursionError) as exc:
        raise ValueError("cloud-init's result.json is damaged") from exc


def _read(kind: type[T], value: object) -> T:
    adapter: TypeAdapter[T] = _reader(cast(Any, kind))
    return adapter.validate_python(value)


@cache
def _reader(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _text(value: object) -> str:
    """A number would be taken for an address too."""
    if not isinstance(value, str):
        raise ValueError("an address is not text")
    return value


def _address(value: object) -> Address | None:
    return ip_address(_text(value)) if value else None


def _number(text: str) -> int | float:
    """Times are the largest numbers: until the year 9999."""
    value = float(text) if len(text) < _LONGEST_NUMBER else inf
    if not -_LARGEST < value < _LARGEST:
        raise ValueError("a number is out of range")
    return int(text) if text.lstrip("-").isdigit() else value


def _shown(line: bytes) -> str:
    return line[:_SHOWN].decode(errors="replace").strip()
