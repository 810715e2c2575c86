"""An API server on loopback whose list can be watched: pages, bookmarks, and versions that are gone."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.unit.https import https
from vmproxy.lab.pki import Pki

Object = dict[str, Any]


@dataclass
class WatchedApi:
    """`objects` by name. `status` other than 200 is the answer to everything. `page` objects at most are in
    one answer. `expired`: lists that are gone on their second page. `forgets`: versions before that are gone.
    `asked`: each request's path, query and token."""

    objects: dict[str, Object] = field(default_factory=dict)
    status: int = 200
    page: int = 1000
    expired: int = 0
    forgets: int = 0
    port: int = 0
    version: int = 1
    events: list[tuple[int, str]] = field(default_factory=list)
    asked: list[tuple[str, dict[str, str], str]] = field(default_factory=list)
    said: threading.Condition = field(default_factory=threading.Condition)
    watches: int = 0
    cut: int = 0

    def put(self, item: Object) -> None:
        name = item["metadata"]["name"]
        self._tell("MODIFIED" if name in self.objects else "ADDED", item)
        self.objects[name] = item

    def delete(self, name: str) -> None:
        self._tell("DELETED", self.objects.pop(name))

    def bookmark(self) -> None:
        self._tell("BOOKMARK", {"kind": "EndpointSlice", "metadata": {}})

    def raw(self, line: str) -> None:
        """Whatever is said next on each watch."""
        with self.said:
            self.version += 1
            self.events.append((self.version, line))
            self.said.notify_all()

    def forget(self) -> None:
        """Everything up to now, as after a compaction."""
        self.forgets = self.version

    def cut_watches(self) -> None:
        with self.said:
            self.cut += 1
            self.said.notify_all()

    def lists(self) -> list[dict[str, str]]:
        return [query for _, query, _ in self.asked if "watch" not in query]

    def _tell(self, kind: str, item: Object) -> None:
        item["metadata"]["resourceVersion"] = str(self.version + 1)
        self.raw(json.dumps({"type": kind, "object": item}))


@contextmanager
def watched(pki: Pki, namespace: str | None = None) -> Iterator[WatchedApi]:
    """On the loopback of that network namespace; None: on this machine's."""
    state = WatchedApi()
    with https(pki, _handler(state), namespace) as state.port:
        yield state
        state.status = 503
        state.cut_watches()


def _handler(state: WatchedApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            state.asked.append((parts.path, query, self.headers.get("Authorization", "")))
            if state.status != 200:
                self._answer(state.status, {"kind": "Status", "code": state.status})
            elif "watch" in query:
                self._watch(int(query["resourceVersion"]))
            else:
                self._list(int(query.get("continue") or 0), int(query["limit"]))

        def log_message(self, format: str, *args: object) -> None:
            """Silent."""

        def _answer(self, status: int, body: Object) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _list(self, start: int, limit: int) -> None:
            if start and state.expired:
                state.expired -= 1
                self._answer(410, {"kind": "Status", "code": 410})
                return
            with state.said:
                end = start + min(state.page, limit)
                some = list(state.objects.values())
                more = str(end) if end < len(some) else ""
                metadata = {"resourceVersion": str(state.version), "continue": more}
            self._answer(200, {"metadata": metadata, "items": some[start:end]})

        def _watch(self, since: int) -> None:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            cut = state.cut
            state.watches += 1
            with suppress(OSError):
                if since < state.forgets:
                    gone = {"kind": "Status", "code": 410, "message": "too old resource version"}
                    self._say(json.dumps({"type": "ERROR", "object": gone}))
                else:
                    for line in self._lines(since, cut):
                        self._say(line)
                self.wfile.write(b"0\r\n\r\n")
            state.watches -= 1

        def _lines(self, since: int, cut: int) -> Iterator[str]:
            while True:
                with state.said:
                    new = [item for item in state.events if item[0] > since]
                    if not new:
                        if state.cut != cut:
                            return
                        state.said.wait(5)
                yield from (line for _, line in new)
                since = new[-1][0] if new else since

        def _say(self, line: str) -> None:
            data = line.encode() + b"\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()

    return Handler
