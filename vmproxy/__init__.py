"""vmproxy: Kubernetes Services reachable from Windows hosts, through kube-proxy in a Linux VM."""

__version__ = "0.1.0"
