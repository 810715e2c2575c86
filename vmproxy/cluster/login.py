"""The cluster and the credentials, by the usual kubeconfig rules."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from yaml import YAMLError

from vmproxy.errors import UsageError, VmproxyError
from vmproxy.site import model

_LOADING = threading.Lock()
"""The library keeps temporary files for client keys in a table that is not thread-safe."""
_ASK = "set cluster.server in the site file to the API server's URL as the VM reaches it"


@dataclass(frozen=True)
class Session:
    """`configuration` is the library's own. `origin` says where it comes from, `tunnel` why a VM cannot
    use its server, or None."""

    configuration: Any
    origin: str
    tunnel: str | None


def load(wanted: model.Cluster) -> Session:
    """The given kubeconfig, else $KUBECONFIG, else ~/.kube/config, else the Pod that this runs in.

    Raises UsageError if there is none or it is invalid, VmproxyError if its exec plugin fails.
    """
    given = str(wanted.kubeconfig) if wanted.kubeconfig else os.environ.get("KUBECONFIG")
    paths = given or str(Path("~/.kube/config").expanduser())
    if not any(Path(path).expanduser().exists() for path in paths.split(os.pathsep) if path):
        if given is None and wanted.context is None and os.environ.get("KUBERNETES_SERVICE_HOST"):
            return _in_cluster()
        raise UsageError(
            f"cannot read the kubeconfig {paths}: no such file",
            hint="set cluster.kubeconfig in the site file, or $KUBECONFIG",
        )
    return _from_files(paths, wanted.context)


def server_for_vm(wanted: model.Cluster, session: Session) -> str:
    """The API's URL as the VM reaches it. Raises UsageError if only this machine can reach it."""
    if wanted.server:
        return str(wanted.server).rstrip("/")
    server: str = session.configuration.host
    why = session.tunnel or _only_here(server)
    if why:
        raise UsageError(f"cannot use the API server {server} of {session.origin} for a VM: {why}", hint=_ASK)
    return server


def authority(session: Session) -> str:
    """The PEM bundle of the CAs by which the VM verifies the API server; it always verifies."""
    configuration = session.configuration
    if not configuration.verify_ssl:
        raise UsageError(
            f"cannot find the API server's CA for a VM: {session.origin} has insecure-skip-tls-verify",
            hint="set certificate-authority in the kubeconfig instead",
        )
    if configuration.ssl_ca_cert:
        return _text(configuration.ssl_ca_cert)
    import certifi  # noqa: PLC0415  # what the library itself trusts if a kubeconfig has no CA

    return _text(certifi.where())


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace")
    except OSError as exc:
        raise UsageError(f"cannot read the API server's CA {path}: {exc.strerror}") from exc


def _only_here(server: str) -> str | None:
    host = urlsplit(server).hostname or ""
    try:
        address = ip_address(host)
    except ValueError:
        local = host == "localhost" or host.endswith(".localhost")
    else:
        local = address.is_loopback or address.is_unspecified
    return "it is on this machine's loopback" if local else None


def _from_files(paths: str, context: str | None) -> Session:
    from kubernetes.client import Configuration  # noqa: PLC0415  # slow, and not always needed
    from kubernetes.config import ConfigException, load_kube_config  # noqa: PLC0415

    configuration = Configuration()
    before = configuration.proxy
    origin = f"the kubeconfig {paths}"
    with _LOADING, _logged_errors() as complaints:
        try:
            load_kube_config(  # type: ignore[no-untyped-call]
                paths, context=context, client_configuration=configuration
            )
        except ConfigException as exc:
            raise UsageError(f"cannot use {origin}: {exc}", hint=_hint(context, str(exc))) from exc
        except YAMLError as exc:
            raise UsageError(f"cannot read {origin}: not YAML: {' '.join(str(exc).split())}") from exc
        except OSError as exc:
            raise UsageError(f"cannot read {origin}: {exc.strerror or exc}") from exc
        except (AttributeError, KeyError, TypeError, ValueError) as exc:
            raise UsageError(f"cannot use {origin}: it is not a kubeconfig ({exc})") from exc
    if complaints:
        raise VmproxyError(
            f"cannot log in to the cluster with {origin}: {complaints[0]}",
            hint="run the exec plugin's command from that kubeconfig by hand, or log in again",
        )
    tunnel = "it goes through the kubeconfig's proxy-url" if configuration.proxy != before else None
    return Session(configuration, origin, tunnel)


def _in_cluster() -> Session:
    from kubernetes.client import Configuration  # noqa: PLC0415  # slow, and not always needed
    from kubernetes.config import ConfigException, load_incluster_config  # noqa: PLC0415

    configuration = Configuration()
    try:
        load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except ConfigException as exc:
        raise UsageError(f"cannot log in to the cluster from inside this Pod: {exc}") from exc
    return Session(configuration, "this Pod", "it is a ClusterIP, which the VM itself has to make reachable")


def _hint(context: str | None, said: str) -> str:
    if context and context in said:
        return "kubectl config get-contexts lists them; correct cluster.context in the site file"
    if "current-context" in said:
        return "set cluster.context in the site file, or kubectl config use-context"
    return "kubectl config view shows what is in it"


@contextmanager
def _logged_errors() -> Iterator[list[str]]:
    """Collects this thread's error logs: the library only logs an exec plugin's failure and continues."""
    thread, found = threading.get_ident(), list[str]()

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == thread:
                found.append(record.getMessage())

    collector = Collector(logging.ERROR)
    logging.getLogger().addHandler(collector)
    try:
        yield found
    finally:
        logging.getLogger().removeHandler(collector)
