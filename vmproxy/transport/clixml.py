"""What powershell.exe writes to stderr: CLIXML documents, sorted into streams."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

_HEADER = "#< CLIXML"
_DOCUMENT = re.compile(r"<Objs\b.*?</Objs>", re.DOTALL)
_ESCAPE = re.compile(r"_x([0-9A-Fa-f]{4})_")
_SURROGATES = re.compile("[\ud800-\udbff][\udc00-\udfff]")
Streams = dict[str, str]


def parse(stderr: bytes) -> Streams:
    """Text by stream: "error", "warning", "verbose", "debug", and "plain" for what is no CLIXML.

    Progress records are dropped. A document that was cut short or damaged is kept as plain text.
    """
    text = stderr.decode("utf-8", errors="replace")
    streams: Streams = {}
    plain = _DOCUMENT.sub(lambda found: _collect(found[0], streams), text)
    plain = "\n".join(line for line in plain.splitlines() if line.strip() not in {"", _HEADER})
    if plain:
        streams["plain"] = plain
    return streams


def unescape(text: str) -> str:
    """Undo `_x000D_` and its like."""
    units = _ESCAPE.sub(lambda found: chr(int(found[1], 16)), text)
    return _SURROGATES.sub(lambda pair: pair[0].encode("utf-16", "surrogatepass").decode("utf-16"), units)


def _collect(document: str, streams: Streams) -> str:
    """Add a document's strings to `streams`; return what could not be read."""
    try:
        root = ET.fromstring(document)  # noqa: S314  # expat resolves no external entities
    except ET.ParseError:
        return document
    for node in root:
        stream = node.get("S", "").lower()
        if node.tag.endswith("}S") and stream:
            streams[stream] = streams.get(stream, "") + unescape(node.text or "")
    return ""
