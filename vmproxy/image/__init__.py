"""Base images: built from Debian packages or fetched with a checksum; cached as raw disks."""

from __future__ import annotations

from vmproxy.image.build import SUITES, build
from vmproxy.image.cache import Image, listing
from vmproxy.image.fetch import fetch, use_file
from vmproxy.image.resolve import Base, base, base_of_download, resolve
from vmproxy.image.vhdx import Download, download_of, packed, vhdx

__all__ = [
    "SUITES",
    "Base",
    "Download",
    "Image",
    "base",
    "base_of_download",
    "build",
    "download_of",
    "fetch",
    "listing",
    "packed",
    "resolve",
    "use_file",
    "vhdx",
]
