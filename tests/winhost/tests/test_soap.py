"""The messages' form, as recorded from Windows Server (pypsrp's tests hold such recordings)."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from tests.winhost import soap, wsman_faults
from tests.winhost.soap import Fault

SHELL = soap.SHELL


def request(operation: str = "Create") -> soap.Request:
    body = ET.Element("body")
    return soap.Request(operation, "uuid:1", soap.CMD, None, 60, 153600, {}, body)


def names(message: bytes) -> list[str]:
    """Every element's name, in order, without its namespace."""
    return [one.tag.rpartition("}")[2] for one in ET.fromstring(message).iter()]


HEAD = ["Envelope", "Header", "Action", "MessageID", "To", "RelatesTo", "Body"]
FAULT = ["Fault", "Code", "Value", "Subcode", "Value", "Reason", "Text", "Detail"]


def test_a_created_shell_is_described_as_windows_does() -> None:
    message = soap.created(request(), "ID", {"ResourceUri": soap.CMD, "Owner": "me & you"})
    assert names(message) == [
        *HEAD,
        *("ResourceCreated", "Address", "ReferenceParameters", "ResourceURI", "SelectorSet", "Selector"),
        *("Shell", "ShellId", "ResourceUri", "Owner"),
    ]
    assert b"http://schemas.xmlsoap.org/ws/2004/09/transfer/CreateResponse" in message


def test_an_answer_to_receive_has_its_streams_and_then_the_state() -> None:
    body = (
        soap.stream("stdout", "ID", "aGk=") + soap.stream("stderr", "ID", "", end=True) + soap.state("ID", 3)
    )
    message = soap.answer(request("Receive"), f"<rsp:ReceiveResponse>{body}</rsp:ReceiveResponse>")
    assert names(message) == [*HEAD, "ReceiveResponse", "Stream", "Stream", "CommandState", "ExitCode"]
    assert f"{SHELL}/ReceiveResponse".encode() in message
    assert b'End="true"></rsp:Stream>' in message


@pytest.mark.parametrize(
    ("told", "detail"),
    [
        (wsman_faults.timed_out(), ["WSManFault", "Message"]),
        (wsman_faults.gone("command"), ["FaultDetail", "WSManFault", "Message"]),
        (wsman_faults.wrong_parameter(), ["FaultDetail", "WSManFault", "Message", "ProviderFault"]),
        (
            wsman_faults.too_many_operations(),
            ["MSFT_WmiError", "CIMStatusCode", "error_Code", "error_Type", "Message"],
        ),
    ],
)
def test_a_fault_has_the_detail_of_its_kind(told: Fault, detail: list[str]) -> None:
    message = soap.fault("uuid:1", told, "WIN-01")
    assert names(message) == [*HEAD, *FAULT, *detail]
    assert str(told.code).encode() in message


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("PT20S", 20), ("PT7200.000S", 7200), ("PT1M30S", 90), ("P1DT1H", 90000), ("P0DT0H0M0S", 0)],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert soap.seconds(text) == seconds


@pytest.mark.parametrize("text", ["600", "PTS20", "20S", ""])
def test_a_number_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="no duration"):
        soap.seconds(text)


@pytest.mark.parametrize("message", [b"", b"<html>", b"<a/>", b"<?xml version='1.0'?><x></x>"])
def test_what_is_no_message_is_not_taken_for_one(message: bytes) -> None:
    with pytest.raises(ValueError, match=r"no (XML|SOAP)"):
        soap.parse(message)
