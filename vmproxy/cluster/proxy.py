"""The HTTP proxy to the API server: the kubeconfig's, else the environment's, by Go's rules."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

from vmproxy.errors import UsageError

_SCHEMES = {"http", "https"}


def given(url: str, origin: str) -> str:
    """The kubeconfig's proxy-url. Raises UsageError for one that cannot be used."""
    return _checked(url, f"proxy-url in {origin}")


def of_environment(server: str, environment: Mapping[str, str]) -> str | None:
    """HTTPS_PROXY, unless NO_PROXY covers the server; a loopback address never goes through a proxy."""
    name = next((key for key in ("HTTPS_PROXY", "https_proxy") if environment.get(key)), None)
    excluded = environment.get("NO_PROXY") or environment.get("no_proxy") or ""
    if name is None or _direct(server, excluded):
        return None
    url = environment[name]
    return _checked(url if "://" in url else f"http://{url}", f"${name}")


def _checked(url: str, where: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise UsageError(
            f"cannot use {where}: {_without_login(url)} is not a URL of an HTTP proxy",
            hint="write it as http://host:port or https://host:port; SOCKS proxies are not supported",
        )
    return url


def _without_login(url: str) -> str:
    scheme, separator, rest = url.rpartition("://")
    return scheme + separator + rest.rpartition("@")[2]


def _direct(server: str, excluded: str) -> bool:
    parts = urlsplit(server)
    host, port = (parts.hostname or "").rstrip("."), parts.port or 443
    if host == "localhost" or _is_loopback(host):
        return True
    return any(_covers(entry.strip().lower(), host, port) for entry in excluded.split(","))


def _covers(entry: str, host: str, port: int) -> bool:
    """`entry` is *, an address, a network, or a domain: its subdomains and, without a leading dot, itself."""
    if entry == "*":
        return True
    if "/" in entry:
        return _in_network(entry, host)
    name, separator, last = entry.rpartition(":")
    if separator and last.isdigit() and (":" not in name or name.endswith("]")):
        if int(last) != port:
            return False
        entry = name
    entry = entry.strip("[]").removeprefix("*")
    if not entry:
        return False
    return host == entry or host.endswith(entry if entry.startswith(".") else f".{entry}")


def _in_network(entry: str, host: str) -> bool:
    try:
        return ip_address(host) in ip_network(entry, strict=False)
    except ValueError:
        return False


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
