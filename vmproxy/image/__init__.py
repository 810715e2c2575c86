"""Base images: built from Debian packages or fetched with a checksum; cached as raw disks."""

from __future__ import annotations

from vmproxy.image.build import SUITES, build
from vmproxy.image.cache import Image, listing
from vmproxy.image.fetch import fetch, use_file
from vmproxy.image.resolve import resolve
from vmproxy.image.vhdx import Download, download_of, packed, vhdx

__all__ = [
    "SUITES",
    "Download",
    "Image",
    "build",
    "download_of",
    "fetch",
    "listing",
    "packed",
    "resolve",
    "use_file",
    "vhdx",
]
