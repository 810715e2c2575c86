"""Where containerd finds CNI's programs and configurations: a table for its config.toml."""

from __future__ import annotations

import json
import textwrap
from dataclasses import dataclass
from typing import Literal

Version = Literal[2, 3]

_TABLES: dict[Version, str] = {2: "io.containerd.grpc.v1.cri", 3: "io.containerd.cri.v1.runtime"}
"""By version of the configuration: 2 is containerd 1.x's, 3 that of 2.1 and later."""


@dataclass(frozen=True)
class Folders:
    """On the Windows host. The defaults are those of containerd's own for Windows."""

    programs: str = r"C:\Program Files\containerd\cni\bin"
    configurations: str = r"C:\Program Files\containerd\cni\conf"


def fragment(version: Version, folders: Folders | None = None, note: str = "") -> str:
    """The table, and above it the version that it is for, and the note as a comment. containerd 2.1 and
    later have a default for `bin_dirs`, and refuse `bin_dir` beside it (internal/cri/config:
    ValidateRuntimeConfig)."""
    used = folders or Folders()
    programs = _quoted(used.programs)
    comment = "".join(f"# {line}\n" for line in textwrap.wrap(note, 100))
    return (
        f"{comment}version = {version}\n\n"
        f'[plugins."{_TABLES[version]}".cni]\n'
        f"  {f'bin_dir = {programs}' if version == 2 else f'bin_dirs = [{programs}]'}\n"
        f"  conf_dir = {_quoted(used.configurations)}\n"
    )


def _quoted(value: str) -> str:
    """A basic string of TOML is JSON's, but for characters outside ASCII and for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
