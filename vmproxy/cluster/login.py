"""The cluster and the credentials, by the rules of kubectl; docs/kubeconfig.md has a table of every field."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from vmproxy.cluster import credentials, kubeconfig, proxy
from vmproxy.cluster.credentials import Credentials, Header
from vmproxy.cluster.kubeconfig import Chosen
from vmproxy.errors import UsageError
from vmproxy.site import model

_ASK = "set cluster.server in the site file to the API server's URL as the VM reaches it"
_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class NoKubeconfig(UsageError):
    """There is none; any other UsageError is about one that is there."""


@dataclass(frozen=True)
class Session:
    """How this machine reaches the API server, and as whom.

    `ca` is PEM. `proxy` is the URL of an HTTP proxy. `origin` says where it comes from, `tunnel` why a VM
    cannot use its server; None: it can.
    """

    server: str
    ca: str
    credentials: Credentials
    origin: str
    tls_server_name: str | None = None
    proxy: str | None = None
    impersonate: tuple[Header, ...] = ()
    tunnel: str | None = None


def load(wanted: model.Cluster, environment: Mapping[str, str] = os.environ) -> Session:
    """The given kubeconfig, else $KUBECONFIG, else ~/.kube/config, else the Pod that this runs in.

    Raises UsageError if there is none, or something in it cannot be used.
    """
    paths = _paths(wanted, environment)
    if not any(path.exists() for path in paths):
        inside = environment.get("KUBERNETES_SERVICE_HOST")
        if inside and not (wanted.kubeconfig or wanted.context or environment.get("KUBECONFIG")):
            return _in_cluster(inside, environment.get("KUBERNETES_SERVICE_PORT") or "443")
        raise NoKubeconfig(
            f"cannot read the kubeconfig {os.pathsep.join(map(str, paths))}: no such file",
            hint="set cluster.kubeconfig in the site file, or $KUBECONFIG",
        )
    return _of(kubeconfig.choose(paths, wanted.context), environment)


def server_for_vm(wanted: model.Cluster, session: Session) -> str:
    """The API's URL as the VM reaches it. Raises UsageError if only this machine can reach it."""
    if wanted.server:
        return str(wanted.server).rstrip("/")
    why = session.tunnel or model.unreachable_from_a_vm(urlsplit(session.server).hostname or "")
    if why:
        raise UsageError(
            f"cannot use the API server {session.server} of {session.origin} for a VM: {why}", hint=_ASK
        )
    return session.server


def tls_server_name_for_vm(wanted: model.Cluster, session: Session) -> str | None:
    """The name in the API server's certificate; None: the one in its URL. It belongs to the kubeconfig's
    server, not to another one that the site file names, as with kubectl --server."""
    other = wanted.server and str(wanted.server).rstrip("/") != session.server
    return None if other else session.tls_server_name


def _paths(wanted: model.Cluster, environment: Mapping[str, str]) -> list[Path]:
    if wanted.kubeconfig:
        return [wanted.kubeconfig]
    listed = environment.get("KUBECONFIG") or os.path.join("~", ".kube", "config")
    return [Path(os.path.expanduser(path)) for path in listed.split(os.pathsep) if path]


def _of(chosen: Chosen, environment: Mapping[str, str]) -> Session:
    cluster, origin = chosen.cluster, chosen.origin
    server = _server(cluster.server, origin)
    ca = _authority(chosen)
    through = (
        proxy.given(cluster.proxy_url, origin)
        if cluster.proxy_url
        else proxy.of_environment(server, environment)
    )
    return Session(
        server=server,
        ca=ca,
        credentials=credentials.of(chosen),
        origin=origin,
        tls_server_name=cluster.tls_server_name,
        proxy=through,
        impersonate=credentials.impersonation(chosen),
        tunnel="it goes through the kubeconfig's proxy-url" if cluster.proxy_url else None,
    )


def _server(server: str | None, origin: str) -> str:
    """Raises UsageError for all but https: the VM's token would travel in clear."""
    try:
        parts = urlsplit(server or "")
        usable = bool(parts.scheme == "https" and parts.hostname and parts.port != 0)
    except ValueError:
        usable = False
    if not server or not usable:
        raise UsageError(
            f"cannot use {origin}: its server {server or '(none)'} is not an https URL",
            hint="vmproxy talks to an API server over TLS only: write server as https://host:6443",
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UsageError(f"cannot use {origin}: its server must be a URL without a login, query or fragment")
    return server.rstrip("/")


def _authority(chosen: Chosen) -> str:
    """The PEM bundle by which the VM verifies the API server, too; it always verifies."""
    cluster, origin = chosen.cluster, chosen.origin
    if cluster.insecure_skip_tls_verify:
        raise UsageError(
            f"cannot find the API server's CA for a VM: {origin} has insecure-skip-tls-verify",
            hint="set certificate-authority in the kubeconfig instead",
        )
    given = credentials.pem(
        "certificate-authority", cluster.certificate_authority, cluster.certificate_authority_data, origin
    )
    return _checked(given, origin) if given else _of_the_system()


def _checked(ca: str, origin: str) -> str:
    try:
        ssl.create_default_context(cadata=ca.encode("ascii", "replace").decode())
    except (ssl.SSLError, ValueError) as exc:
        raise UsageError(
            f"cannot use {origin}: its certificate-authority has no certificate in PEM form"
        ) from exc
    return ca


def _of_the_system() -> str:
    """What a kubeconfig without a CA relies on, as kubectl does."""
    known = ssl.get_default_verify_paths().cafile
    if known is None:
        import certifi  # noqa: PLC0415  # only where the system has no bundle

        known = certifi.where()
    return Path(known).read_text(encoding="ascii", errors="replace")


def _in_cluster(host: str, port: str) -> Session:
    try:
        ca = (_POD / "ca.crt").read_text(encoding="ascii", errors="replace")
        (_POD / "token").read_text(encoding="ascii")
    except OSError as exc:
        raise UsageError(
            f"cannot log in to the cluster from inside this Pod: {exc.filename}: {exc.strerror}",
            hint="set cluster.kubeconfig in the site file, or $KUBECONFIG",
        ) from exc
    return Session(
        server=f"https://{f'[{host}]' if ':' in host else host}:{port}",
        ca=ca,
        credentials=credentials.Fixed(token_file=_POD / "token"),
        origin="this Pod",
        tunnel="it is a ClusterIP, which the VM itself has to make reachable",
    )
