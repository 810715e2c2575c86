"""WS-Management messages as Windows writes and reads them."""

from __future__ import annotations

import re
import uuid
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from xml.sax.saxutils import escape, quoteattr

SHELL = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell"
CMD = SHELL + "/cmd"
TRANSFER = "http://schemas.xmlsoap.org/ws/2004/09/transfer"
_FAULT_ACTION = "http://schemas.dmtf.org/wbem/wsman/1/wsman/fault"
_DETAIL = "http://schemas.dmtf.org/wbem/wsman/1/wsman/faultDetail/"
_PLUGIN = '<f:ProviderFault provider="Shell cmd plugin" path="%systemroot%\\system32\\winrscmd.dll">'
_ANONYMOUS = "http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous"
NAMESPACES = {
    "s": "http://www.w3.org/2003/05/soap-envelope",
    "a": "http://schemas.xmlsoap.org/ws/2004/08/addressing",
    "x": TRANSFER,
    "w": "http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd",
    "rsp": SHELL,
    "p": "http://schemas.microsoft.com/wbem/wsman/1/wsman.xsd",
}
_DECLARED = " ".join(f'xmlns:{prefix}="{uri}"' for prefix, uri in NAMESPACES.items())


@dataclass(frozen=True)
class Request:
    """A message of a client; `operation` is the last word of its action."""

    operation: str
    message_id: str
    resource: str
    shell: str | None
    timeout: float
    envelope: int
    options: dict[str, str]
    body: ET.Element = field(repr=False)

    def find(self, path: str) -> ET.Element | None:
        return self.body.find(path, NAMESPACES)

    def text(self, path: str, default: str = "") -> str:
        return self.body.findtext(path, default, NAMESPACES) or default


@dataclass
class Fault(Exception):
    """A SOAP fault; `code` is WSManFault's, or MSFT_WmiError's when `wmi` is set.

    `detail` is the last word of a FaultDetail; `by_plugin`: the shell's own plug-in says it.
    """

    code: int
    subcode: str
    reason: str
    sender: bool = True
    wmi: bool = False
    message: str | None = None
    detail: str | None = None
    by_plugin: bool = False


def parse(message: bytes) -> Request:
    """Raises ValueError when it is not a message."""
    try:
        root = ET.fromstring(message)
    except ET.ParseError as exc:
        raise ValueError("no XML") from exc
    header, body = root.find("s:Header", NAMESPACES), root.find("s:Body", NAMESPACES)
    if header is None or body is None:
        raise ValueError("no SOAP")
    action = header.findtext("a:Action", "", NAMESPACES)
    selectors = header.findall("w:SelectorSet/w:Selector", NAMESPACES)
    options = header.findall("w:OptionSet/w:Option", NAMESPACES)
    return Request(
        operation=action.rsplit("/", 1)[-1],
        message_id=header.findtext("a:MessageID", "", NAMESPACES),
        resource=header.findtext("w:ResourceURI", "", NAMESPACES),
        shell=next((one.text for one in selectors if one.get("Name") == "ShellId"), None),
        timeout=min(60.0, seconds(header.findtext("w:OperationTimeout", "PT60S", NAMESPACES))),
        envelope=int(header.findtext("w:MaxEnvelopeSize", "153600", NAMESPACES)),
        options={one.get("Name", ""): one.text or "" for one in options},
        body=body,
    )


def seconds(duration: str) -> float:
    """An xs:duration of days and less."""
    found = re.fullmatch(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:([\d.]+)S)?)?", duration)
    if found is None:
        raise ValueError(f"no duration: {duration}")
    days, hours, minutes, rest = (float(part or 0) for part in found.groups())
    return days * 86400 + hours * 3600 + minutes * 60 + rest


def answer(request: Request, body: str) -> bytes:
    base = TRANSFER if request.operation in {"Create", "Delete"} else SHELL
    return _envelope(f"{base}/{request.operation}Response", request.message_id, body)


def fault(request_id: str, told: Fault, machine: str) -> bytes:
    side = "s:Sender" if told.sender else "s:Receiver"
    detail = _wmi_error(told) if told.wmi else _wsman_fault(told, machine)
    body = (
        f"<s:Fault><s:Code><s:Value>{side}</s:Value><s:Subcode><s:Value>{told.subcode}</s:Value></s:Subcode></s:Code>"
        f'<s:Reason><s:Text xml:lang="en-US">{escape(told.reason)}</s:Text></s:Reason>'
        f"<s:Detail>{detail}</s:Detail></s:Fault>"
    )
    return _envelope(_FAULT_ACTION, request_id, body)


def created(request: Request, shell: str, fields: dict[str, str]) -> bytes:
    """The answer to Create."""
    told = "".join(f"<rsp:{name}>{escape(value)}</rsp:{name}>" for name, value in fields.items())
    body = (
        "<x:ResourceCreated><a:Address>http://localhost:5985/wsman</a:Address><a:ReferenceParameters>"
        f"<w:ResourceURI>{CMD}</w:ResourceURI><w:SelectorSet>"
        f'<w:Selector Name="ShellId">{shell}</w:Selector></w:SelectorSet></a:ReferenceParameters>'
        f"</x:ResourceCreated><rsp:Shell><rsp:ShellId>{shell}</rsp:ShellId>{told}</rsp:Shell>"
    )
    return answer(request, body)


def stream(name: str, command: str, text: str, *, end: bool = False) -> str:
    last = ' End="true"' if end else ""
    return f'<rsp:Stream Name="{name}" CommandId="{command}"{last}>{text}</rsp:Stream>'


def state(command: str, code: int | None) -> str:
    word = "Running" if code is None else "Done"
    opening = f'<rsp:CommandState CommandId="{command}" State="{SHELL}/CommandState/{word}"'
    return (
        f"{opening}/>"
        if code is None
        else f"{opening}><rsp:ExitCode>{code}</rsp:ExitCode></rsp:CommandState>"
    )


def _envelope(action: str, relates_to: str, body: str) -> bytes:
    return (
        f'<s:Envelope xml:lang="en-US" {_DECLARED}><s:Header><a:Action>{action}</a:Action>'
        f"<a:MessageID>uuid:{str(uuid.uuid4()).upper()}</a:MessageID><a:To>{_ANONYMOUS}</a:To>"
        f"<a:RelatesTo>{escape(relates_to)}</a:RelatesTo></s:Header><s:Body>{body}</s:Body></s:Envelope>"
    ).encode()


def _wsman_fault(told: Fault, machine: str) -> str:
    message = escape(told.message or told.reason)
    if told.by_plugin:
        message = f"{_PLUGIN}{message}</f:ProviderFault>"
    detail = f"<w:FaultDetail>{_DETAIL}{told.detail}</w:FaultDetail>" if told.detail else ""
    return (
        f'{detail}<f:WSManFault xmlns:f="http://schemas.microsoft.com/wbem/wsman/1/wsmanfault" '
        f'Code="{told.code}" Machine={quoteattr(machine)}>'
        f"<f:Message>{message}</f:Message></f:WSManFault>"
    )


def _wmi_error(told: Fault) -> str:
    return (
        '<e:MSFT_WmiError xmlns:e="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/MSFT_WmiError">'
        f"<e:CIMStatusCode>27</e:CIMStatusCode><e:error_Code>{told.code}</e:error_Code>"
        f"<e:error_Type>HRESULT</e:error_Type><e:Message>{escape(told.reason)}</e:Message></e:MSFT_WmiError>"
    )
