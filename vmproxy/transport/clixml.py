"""Parses what powershell.exe writes to stderr: CLIXML documents, sorted by stream."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator

_HEADER = "#< CLIXML"
_DOCUMENT = re.compile(r"<Objs\b.*?(?:</Objs>|\Z)", re.DOTALL)
_CHILD_ENDS = re.compile(r"</(?:S|Obj)>")
_TRIES = 100
_ESCAPE = re.compile(r"_x([0-9A-Fa-f]{4})_")
_SURROGATES = re.compile("[\ud800-\udbff][\udc00-\udfff]")
Streams = dict[str, str]


def parse(stderr: bytes) -> Streams:
    """Text by stream: "error", "warning", "verbose", "debug", and "plain" for text that is not CLIXML.

    Progress records are dropped. A killed process leaves its document without an end, and a program
    that it runs writes into the middle of it: that text is plain. So are damaged documents.
    """
    text = stderr.decode("utf-8", errors="replace")
    streams: Streams = {}
    plain = _DOCUMENT.sub(lambda found: _collect(found[0], streams), text)
    plain = "\n".join(line for line in plain.splitlines() if line.strip() not in {"", _HEADER})
    if plain:
        streams["plain"] = plain
    return streams


def unescape(text: str) -> str:
    """Undo escapes such as `_x000D_`."""
    units = _ESCAPE.sub(lambda found: chr(int(found[1], 16)), text)
    return _SURROGATES.sub(lambda pair: pair[0].encode("utf-16", "surrogatepass").decode("utf-16"), units)


def _collect(document: str, streams: Streams) -> str:
    """Add a document's strings to `streams`; return the other text in it."""
    for whole, rest in _beginnings(document):
        try:
            root = ET.fromstring(whole)  # noqa: S314  # expat resolves no external entities
        except ET.ParseError:
            continue
        for node in root:
            stream = node.get("S", "").lower()
            if node.tag.endswith("}S") and stream:
                streams[stream] = streams.get(stream, "") + unescape(node.text or "")
        between = [root.text or "", *(node.tail or "" for node in root)]
        return "\n".join([*between, rest])
    return document


def _beginnings(document: str) -> Iterator[tuple[str, str]]:
    """The document, or complete prefixes of it with an end tag added; and the rest of each."""
    if document.endswith("</Objs>"):
        yield document, ""
        return
    yield document + "</Objs>", ""
    for found in list(_CHILD_ENDS.finditer(document))[:-_TRIES:-1]:
        yield document[: found.end()] + "</Objs>", document[found.end() :]
