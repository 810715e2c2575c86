"""What VMs are made of: kube-proxy, the image in the host's format, the seed, the SSH user key."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from threading import RLock

from vmproxy import binaries, image, seed
from vmproxy.hosts.protocols import Delivery, Kind
from vmproxy.image import Base, Download, Image
from vmproxy.model.topology import Topology
from vmproxy.resources.kubeproxy import Program
from vmproxy.seed import keys
from vmproxy.util.events import Report


class Artifacts:
    """Of one site, for all of its hosts: whoever comes first makes a thing, the others wait for it."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._lock = RLock()
        self._image: Image | None = None

    def program(self, version: str) -> Program:
        """As it is known without fetching it."""
        found = binaries.kube_proxy(self._topology.proxy, version)
        return Program(found.path, found.sha256, version, found.here, found.origin)

    def get_program(self, version: str, report: Report) -> None:
        with self._lock:
            binaries.fetch_kube_proxy(self._topology.proxy, version, report=report)

    def base(self, kind: Kind) -> Base:
        """As it is known without fetching or building it."""
        download = self._download(kind)
        return image.base_of_download(download) if download else image.base(self._topology.image)

    def get_image(self, kind: Kind, report: Report) -> None:
        if self._download(kind) is None:
            self._resolved(report)

    def fetched_by_host(self, kind: Kind) -> bool:
        return self._download(kind) is not None

    def user_key(self) -> str:
        return self.identity.public

    def user_key_file(self) -> Path:
        return self.identity.private

    @cached_property
    def identity(self) -> keys.Identity:
        return keys.identity(self._topology.name, self._topology.ssh)

    def deliver(self, seed_spec: seed.Seed, kind: Kind, report: Report) -> Delivery:
        host_key = seed.new_host_key()
        content = seed.build(seed_spec, host_key=host_key)
        return Delivery(lambda: self._file(kind, report), content, host_key.public, self._download(kind))

    def _file(self, kind: Kind, report: Report) -> Path:
        """The image in the host's format, made when the host turns out to lack it."""
        with self._lock:
            if download := self._download(kind):
                return image.packed(download, report=report)
            found = self._resolved(report)
            if kind.image_format == "raw":
                return found.raw
            return image.vhdx(found, compressed=True, report=report)

    def _download(self, kind: Kind) -> Download | None:
        """Where such a host fetches the image itself, if it can use the published file as it is."""
        return image.download_of(self._topology.image) if kind.fetches else None

    def _resolved(self, report: Report) -> Image:
        with self._lock:
            if self._image is None:
                self._image = image.resolve(self._topology.image, report=report)
            return self._image
