"""The engine behind the cmdlets, asked by a program."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from typing import Any

from tests.winhost.programs.paths import Refused


def ask(cmdlet: str, parameters: Mapping[str, str]) -> list[dict[str, Any]]:
    """Its outputs. Raises Refused with its error."""
    request = json.dumps({"cmdlet": cmdlet, "parameters": dict(parameters), "set": ""})
    with socket.socket(socket.AF_UNIX) as engine:
        engine.connect(os.environ["WINHOST_ENGINE"])
        engine.sendall(request.encode() + b"\n")
        with engine.makefile() as answers:
            answer = json.loads(answers.readline())
    if answer["error"]:
        raise Refused(str(answer["error"]["message"]))
    outputs: list[dict[str, Any]] = answer["outputs"]
    return outputs
