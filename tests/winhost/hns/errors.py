"""HNS's errors: its own codes, as they are in Windows' headers, and the words that go with them."""

from __future__ import annotations

NETWORK_NOT_FOUND = 0x803B0001
ENDPOINT_NOT_FOUND = 0x803B0002
ADAPTER_NOT_FOUND = 0x803B0006
INVALID_POLICY = 0x803B000D
NETWORK_EXISTS = 0x803B0010
ALREADY_ATTACHED = 0x803B0014
UNSUPPORTED = 0x803B0015
INVALID_JSON = 0x803B001B
INVALID_IP = 0x803B001E
RESERVED_IP = 0x803B002F
ELEMENT_NOT_FOUND = 0x80070490
_WORDS = {
    NETWORK_NOT_FOUND: "The network was not found. ",
    ENDPOINT_NOT_FOUND: "The endpoint was not found. ",
    ADAPTER_NOT_FOUND: "An adapter was not found. ",
    INVALID_POLICY: "The provided policy configuration is invalid or missing parameters. ",
    NETWORK_EXISTS: "A network with this name already exists. ",
    ALREADY_ATTACHED: "This endpoint is already attached to the switch. ",
    UNSUPPORTED: "The specified request is unsupported. ",
    INVALID_JSON: "Invalid JSON document string. ",
    INVALID_IP: "Invalid IP address. ",
    RESERVED_IP: "The IP address provided is invalid or reserved. ",
    ELEMENT_NOT_FOUND: "Element not found. ",
}


class HnsError(Exception):
    """HNS refuses; `code` is its HRESULT, `message` its words and what they are about."""

    def __init__(self, code: int, about: str = "", *, told: str = "") -> None:
        self.code = code
        self.message = told or _WORDS[code] + about
        super().__init__(f"{self.message.strip()} (0x{code:x})")
