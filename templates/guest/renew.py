#!/usr/bin/python3 -I
"""Renew this VM's token with itself: started by vmproxy-token.timer at half of the token's life."""

import json
import os
import ssl
import sys
import urllib.error
import urllib.request

CREDENTIAL = "/etc/vmproxy/credential.json"
TOKEN = "/etc/vmproxy/token"


def main():
    with open(CREDENTIAL) as file:
        credential = json.load(file)
    with open(TOKEN) as file:
        token = file.read().strip()
    try:
        answer = asked(credential, token)
    except urllib.error.HTTPError as error:
        sys.exit("the API server refuses a new token: %s; run vmproxy apply" % error)
    except OSError as error:
        sys.exit("the API server does not answer: %s" % error)
    write(answer["status"]["token"])
    print("renewed until", answer["status"]["expirationTimestamp"])


def asked(credential, token):
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
        headers={"Authorization": "Bearer " + token, "Content-Type": "application/json"},
    )
    ca = credential["ca"] if os.path.exists(credential["ca"]) else None
    context = ssl.create_default_context(cafile=ca)
    with urllib.request.urlopen(request, timeout=30, context=context) as answer:
        return json.load(answer)


def write(token):
    """kube-proxy reads the file again by itself; it must never see half a token."""
    part = TOKEN + ".new"
    with open(os.open(part, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "w") as file:
        file.write(token)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, TOKEN)


if __name__ == "__main__":
    main()
