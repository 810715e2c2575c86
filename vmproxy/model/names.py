"""Every name that more than one module writes or reads, once."""

from __future__ import annotations

from typing import NamedTuple

NAMESPACE = "vmproxy"
"""Of the ServiceAccounts, and of all else in the cluster that is in a namespace and not in `EVENTS`."""
EVENTS = "default"
"""The namespace of a Node's events."""
MANAGED_BY = ("app.kubernetes.io/managed-by", "vmproxy")
"""The label of everything that vmproxy makes in the cluster."""
SITE_LABEL, HOST_LABEL = "vmproxy.io/site", "vmproxy.io/host"
ACCOUNT_OF_SECRET = "kubernetes.io/service-account.name"  # noqa: S105
"""The annotation of a Secret with a ServiceAccount's token."""

PROXY_UNIT = "vmproxy-kube-proxy.service"
GUARD_UNIT = "vmproxy-guard.service"
SETUP_UNIT = "vmproxy-setup.service"
KEEPER_UNIT = "vmproxy-keeper.service"
ROUTES_UNIT = "vmproxy-routes.service"
TOKEN_UNIT = "vmproxy-token.service"  # noqa: S105
TIMER_UNIT = "vmproxy-token.timer"
UNITS = "/etc/systemd/system"
"""The folder of the units in the guest."""

PROGRAM = "/usr/local/lib/vmproxy/kube-proxy"
SETUP = "/usr/local/lib/vmproxy/setup.py"
KEEPER = "/usr/local/lib/vmproxy/keeper.py"
RENEW = "/usr/local/lib/vmproxy/renew.py"
POD_ROUTES = "/usr/local/lib/vmproxy/podroutes.py"
FLANNEL = "/usr/local/lib/vmproxy/flannel.py"
CONFIG = "/etc/vmproxy/kube-proxy.yaml"
KUBECONFIG = "/etc/vmproxy/kubeconfig"
CA = "/etc/vmproxy/ca.crt"
CLUSTER_CA = "/etc/vmproxy/cluster-ca.crt"
"""Of the API server at its ClusterIP; `CA` is that of its URL."""
TOKEN = "/etc/vmproxy/token"  # noqa: S105
RENEWAL = "/etc/vmproxy/renewal-token"
"""Of the account that renews `TOKEN`; it does not expire."""
CREDENTIAL = "/etc/vmproxy/credential.json"
GUARD = "/etc/vmproxy/guard.nft"
ROUTES = "/etc/vmproxy/routes.json"
ADDRESSES = "/etc/vmproxy/addresses.json"
KEEPER_CONFIG = "/etc/vmproxy/keeper.json"
POD_ROUTES_CONFIG = "/etc/vmproxy/podroutes.json"
SYSCTLS = "/etc/sysctl.d/99-vmproxy.conf"
INTERFACE = "eth0"
"""The guest's one network interface, named by the seed."""
FORWARD = ("net.ipv4.ip_forward", f"net.ipv4.conf.{INTERFACE}.forwarding")
"""On only with the guard table: first for all interfaces, then for that one, which may differ."""
AUTHORIZED_KEYS = "/root/.ssh/authorized_keys"
SSHD = "/etc/ssh/sshd_config.d/10-vmproxy.conf"
SSHD_UNIT = "ssh.service"
FOLDERS = ("/etc/vmproxy", "/usr/local/lib/vmproxy", "/var/lib/vmproxy", "/run/vmproxy")
"""vmproxy's own in the guest."""

MAPPED_PORT = 2222
"""Of a Windows host whose VM is behind its NAT: the controller's way to the guest's SSH."""
SWITCH_METRIC = 5000
"""Of the host's interface on a switch of vmproxy's own: every other one is better."""

TIME_SYNC = "2497F4DE-E9FA-4204-80E4-4B75C46419C0"
SHUTDOWN = "9F8233AC-BE49-4C79-8EE3-E7E1985B2077"
"""Hyper-V's integration services by id: their names are translated."""
UEFI_CA = "272e7447-90a4-4563-a4b9-8e4ab00526ce"
"""The Secure Boot template with Microsoft's CA for other systems' boot loaders, by id."""

RUNNING_UNITS = (GUARD_UNIT, SETUP_UNIT, PROXY_UNIT, TIMER_UNIT, ROUTES_UNIT, KEEPER_UNIT)
"""Units that are enabled and run; the token's service is started by its timer."""
OWN_UNITS = (*RUNNING_UNITS, TOKEN_UNIT)
UNIT_FILES = tuple(f"{UNITS}/{unit}" for unit in OWN_UNITS)
MANAGED_FILES = (
    *(
        PROGRAM,
        CONFIG,
        KUBECONFIG,
        CA,
        CLUSTER_CA,
        CREDENTIAL,
        RENEW,
        SETUP,
        GUARD,
        ROUTES,
        ADDRESSES,
        SYSCTLS,
        KEEPER,
        KEEPER_CONFIG,
        POD_ROUTES,
        FLANNEL,
        POD_ROUTES_CONFIG,
        AUTHORIZED_KEYS,
        SSHD,
    ),
    *UNIT_FILES,
)
"""Every file in the guest that is wanted with a content known here. Of the two tokens, one is compared by its
claims, the other by its hash."""


def vm_name(site: str, host: str) -> str:
    return f"vmproxy-{site}-{host}"


def mark(site: str, host: str) -> str:
    """By which what vmproxy makes on a host is known as ours: a word in the Notes of a virtual switch, the
    comment of rules for names."""
    return f"vmproxy:{site}:{host}"


def switch_interface(switch: str) -> str:
    """What Windows calls the host's own interface on a switch."""
    return f"vEthernet ({switch})"


def account(site: str, host: str) -> str:
    """The ServiceAccount of a host's VM."""
    return f"{site}-{host}"


def renewal(account: str) -> str:
    """The ServiceAccount that creates tokens for `account`, and the Secret with its own token. The site
    file's check refuses hosts whose accounts would have the same name."""
    return f"{account}-renewal"


class ObjectName(NamedTuple):
    """Of an object in the cluster. `namespace` is empty for one that is in none."""

    kind: str
    name: str
    namespace: str = ""

    @property
    def key(self) -> str:
        return key(*self)


def identity(account: str) -> tuple[ObjectName, ...]:
    """The names of the identity's objects, in the order in which they are made."""
    wide = f"vmproxy-{account}"
    return (
        ObjectName("Namespace", NAMESPACE),
        ObjectName("ServiceAccount", account, NAMESPACE),
        ObjectName("ClusterRole", wide),
        ObjectName("ClusterRoleBinding", wide),
        ObjectName("Role", wide, EVENTS),
        ObjectName("RoleBinding", wide, EVENTS),
        ObjectName("ServiceAccount", renewal(account), NAMESPACE),
        ObjectName("Role", account, NAMESPACE),
        ObjectName("RoleBinding", account, NAMESPACE),
        ObjectName("Secret", renewal(account), NAMESPACE),
    )


def key(kind: str, name: str, namespace: str = "") -> str:
    """How an object in the cluster is named in plans and observations; without vmproxy's own namespace."""
    place = f"{namespace}/" if namespace not in ("", NAMESPACE) else ""
    return f"{kind.lower()}/{place}{name}"
