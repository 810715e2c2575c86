"""What the cmdlets over CIM classes share: queries, their "not found" errors, Windows' error codes.

The rules of queries are those of PowerShell's own cmdlets over objects: one filter names the value
that found nothing, several filters show the query; a value with wildcards finds nothing silently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from tests.winhost.engine import Call, CimEnum, CmdletError, Item, Ref, TimeSpan
from tests.winhost.wildcards import matches, wild

NAMESPACE = "ROOT/StandardCimv2"
_CATEGORIES = {5: "PermissionDenied", 87: "InvalidArgument", 1168: "ObjectNotFound"}
FOREVER = TimeSpan(922337203685.4775807)
"""An infinite lifetime: [TimeSpan]::MaxValue."""


@dataclass(frozen=True)
class Instance:
    """One object of a class: `raw` is what filters compare, `item` goes out."""

    item: Item
    raw: Mapping[str, Any]


@dataclass(frozen=True)
class Filter:
    """One parameter that selects. `numbers` are those of an enum's names; `globs`: wildcards count."""

    parameter: str
    property: str
    globs: bool = False
    numbers: Mapping[str, int] = field(default_factory=dict)

    def clause(self, values: Sequence[Any]) -> str:
        return "(" + " OR ".join(f"({self._term(value)})" for value in values) + ")"

    def _term(self, value: Any) -> str:
        if self.globs:
            return f"{self.property} LIKE '{_like(str(value))}'"
        quote = "'" if isinstance(value, str) and value not in self.numbers else ""
        return f"{self.property} = {quote}{self.numbers.get(value, value)}{quote}"

    def matches(self, value: Any, instance: Instance) -> bool:
        seen = instance.raw[self.property]
        if self.globs:
            return matches(str(value), str(seen))
        if isinstance(value, str):
            return str(seen).lower() == value.lower()
        return bool(seen == value)


@dataclass(frozen=True)
class Query:
    """The filters of a class's cmdlets, and which object an association starts at."""

    name: str
    filters: Sequence[Filter]
    association: str | None = None
    belongs: Callable[[Ref, Instance], bool] = lambda ref, instance: False
    namespace: str = NAMESPACE

    def select(self, call: Call, instances: Iterable[Instance]) -> Iterator[Instance | CmdletError]:
        """What the call's parameters ask for, and an error for what is not there."""
        given = [(one, call.list(one.parameter)) for one in self.filters if call.has(one.parameter)]
        start: Ref | None = call.get(self.association) if self.association else None
        pool = [one for one in instances if start is None or self.belongs(start, one)]
        found = [one for one in pool if all(any(f.matches(v, one) for v in values) for f, values in given)]
        yield from found
        yield from self._missing(given, pool, found, start)

    def _missing(
        self,
        given: list[tuple[Filter, list[Any]]],
        pool: Sequence[Instance],
        found: Sequence[Instance],
        start: Ref | None,
    ) -> Iterator[CmdletError]:
        if len(given) > 1 or start is not None:
            asked = start is not None or any(not _silent(f, v) for f, values in given for v in values)
            if asked and not found:
                yield self._nothing(given, start)
        elif given:
            ((only, values),) = given
            for value in values:
                if not _silent(only, value) and not any(only.matches(value, one) for one in pool):
                    yield self._not_found(only.property, value)

    def _nothing(self, given: list[tuple[Filter, list[Any]]], start: Ref | None) -> CmdletError:
        where = " AND ".join(one.clause(values) for one, values in given)
        query = (
            f"CIM query for instances of the {self.namespace}/{self.name} class on the  CIM server: "
            f"SELECT * FROM {self.name}  WHERE {where}"
        )
        if start is not None:
            query = (
                f"CIM query for enumerating instances of the {self.name} class on the  CIM server, "
                f"that are associated with the following instance: {start.id}"
            )
        return _not_found(
            f"No matching {self.name} objects found by {query}. Verify query parameters and retry.",
            "CmdletizationQuery_NotFound",
            self.name,
        )

    def _not_found(self, name: str, value: Any) -> CmdletError:
        return _not_found(
            f"No {self.name} objects found with property '{name}' equal to '{value}'.  "
            "Verify the value of the property and retry.",
            f"CmdletizationQuery_NotFound_{name}",
            value,
        )


def _not_found(message: str, error_id: str, target: object) -> CmdletError:
    return CmdletError(
        message,
        exception="Microsoft.PowerShell.Cmdletization.Cim.CimJobException",
        error_id=error_id,
        category="ObjectNotFound",
        target=target,
        terminating=False,
    )


def win32(code: int, message: str, name: str) -> CmdletError:
    """Windows' error of a CIM class's method, as a record on the error stream."""
    return CmdletError(
        message,
        exception="Microsoft.Management.Infrastructure.CimException",
        error_id=f"Windows System Error {code}",
        category=_CATEGORIES.get(code, "NotSpecified"),
        target=name,
        terminating=False,
    )


def invalid(name: str, parameter: str, value: object) -> NoReturn:
    raise win32(87, f"Invalid parameter {parameter} {value}", name)


def refuse(call: Call, *parameters: str) -> None:
    """Stop where a parameter is given that has no behaviour here."""
    for parameter in parameters:
        if call.has(parameter):
            raise CmdletError(
                f"not emulated: {call.cmdlet} -{parameter}",
                exception="System.NotImplementedException",
                error_id="NotEmulated",
                category="NotImplemented",
                target=parameter,
            )


def item(name: str, key: str, properties: Mapping[str, Any], *, namespace: str = NAMESPACE) -> Item:
    kind = f"Microsoft.Management.Infrastructure.CimInstance#{namespace}/{name}"
    return Item(kind, key, properties)


def numbered(names: Iterable[str], start: int = 0) -> dict[str, int]:
    return {name: number for number, name in enumerate(names, start)}


def enum(numbers: Mapping[str, int], text: str) -> Any:
    return CimEnum(numbers[text], text)


def _silent(one: Filter, value: Any) -> bool:
    return one.globs and wild(str(value))


def _like(value: str) -> str:
    return value.replace("'", "\\'").replace("*", "%").replace("?", "_")
