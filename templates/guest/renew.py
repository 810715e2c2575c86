#!/usr/bin/python3 -I
"""Renew kube-proxy's token, when half of the life that the API server gave it is over by the wall clock, with
the token of an account that may do only that. vmproxy-token.timer starts it every minute.

The one that renews does not expire: a VM that was off for weeks gets a new token when it starts.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request

CREDENTIAL = "/etc/vmproxy/credential.json"
TOKEN = "/etc/vmproxy/token"
RENEWAL = "/etc/vmproxy/renewal-token"
PROXY_UNIT = "vmproxy-kube-proxy.service"

TYPE_CHECKING = False  # not imported: typing is slow to load on an emulated CPU
if TYPE_CHECKING:
    from typing import Any, TypedDict

    class Credential(TypedDict):
        """`account` is kube-proxy's. `ca` is a file, `ttl` the seconds that a new token is to live."""

        server: str
        ca: str
        namespace: str
        account: str
        ttl: int

    class Named(Credential, total=False):
        """`tlsServerName`: the name in the API server's certificate, where it is not the URL's."""

        tlsServerName: str

    class Status(TypedDict):
        token: str
        expirationTimestamp: str

    class TokenRequest(TypedDict):
        """What is read of the API server's answer."""

        status: Status


def main() -> None:
    try:
        with open(CREDENTIAL) as file:
            credential: Named = json.load(file)
        with open(RENEWAL) as file:
            renewal = file.read().strip()
    except (OSError, ValueError) as error:
        sys.exit("cannot renew the token: %s; run vmproxy apply" % error)
    now, (issued, expires) = time.time(), life()
    if now < (issued + expires) / 2:
        return
    try:
        status = asked(credential, renewal)["status"]
        renewed, until = status["token"], status["expirationTimestamp"]
    except urllib.error.HTTPError as error:
        sys.exit("the API server refuses a new token: %s; run vmproxy apply" % error)
    except (OSError, http.client.HTTPException) as error:
        sys.exit("the API server does not answer: %s" % error)
    except (ValueError, KeyError):
        sys.exit("the API server's answer holds no token; run vmproxy apply")
    write(renewed)
    print("renewed until", until)
    if expires <= now < life()[1]:  # by a wrong clock, every token has expired
        restart()


def life() -> tuple[float, float]:
    """When the token that is there was issued, and when it expires: the API server may have given less than
    was asked for. 0 for both: there is none that can be read."""
    try:
        with open(TOKEN) as file:
            part = file.read().split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        return float(claims["iat"]), float(claims["exp"])
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return 0.0, 0.0


def restart() -> None:
    """kube-proxy rereads the token within a minute only, and may wait half a minute more after a refusal."""
    subprocess.run(["systemctl", "try-restart", "--no-block", PROXY_UNIT], check=False)


class Context(ssl.SSLContext):
    """Checks the certificate by `name`; None: by the URL's. Chain and time are checked too."""

    name: str | None = None

    def wrap_socket(self, *args: Any, **settings: Any) -> ssl.SSLSocket:
        if self.name:
            settings["server_hostname"] = self.name
        return super().wrap_socket(*args, **settings)


def asked(credential: Named, renewal: str) -> TokenRequest:
    path = "/api/v1/namespaces/%(namespace)s/serviceaccounts/%(account)s/token" % credential
    request = urllib.request.Request(
        credential["server"].rstrip("/") + path,
        method="POST",
        data=json.dumps(
            {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": {"expirationSeconds": credential["ttl"]},
            }
        ).encode(),
        headers={"Authorization": "Bearer " + renewal, "Content-Type": "application/json"},
    )
    ca = credential["ca"] if os.path.exists(credential["ca"]) else None
    context = Context(ssl.PROTOCOL_TLS_CLIENT)
    context.load_default_certs() if ca is None else context.load_verify_locations(ca)
    context.name = credential.get("tlsServerName")
    with urllib.request.urlopen(request, timeout=30, context=context) as answer:
        found: TokenRequest = json.load(answer)
    return found


def write(token: str) -> None:
    """kube-proxy reads the file again by itself; it must never see half a token."""
    part = TOKEN + ".new"
    with open(os.open(part, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "w") as file:
        file.write(token)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, TOKEN)


if __name__ == "__main__":
    main()
