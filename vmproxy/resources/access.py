"""Who may change vmproxy's folders in the guest, and read its token."""

from __future__ import annotations

from collections.abc import Iterator

from vmproxy.model.names import FOLDERS, TOKEN
from vmproxy.model.seen import FolderSeen, GuestSeen
from vmproxy.model.steps import SetAccess

_FOLDER, _SECRET = "0755", "0600"


def plan(seen: GuestSeen) -> Iterator[SetAccess]:
    """What does not exist comes with the files that are pushed into it."""
    for path in FOLDERS:
        folder = seen.folders.get(path)
        if folder and _open(folder):
            yield SetAccess(path, _FOLDER, folder)
    token = seen.files.get(TOKEN)
    if token and token.kind == "file":  # anything else is no token, and gives way to a new one
        step = SetAccess(TOKEN, _SECRET, token)
        if step.drift:
            yield step


def _open(folder: FolderSeen) -> bool:
    """A folder that is closed more tightly does no harm: all that uses it is root's."""
    others_write = any(digit in "2367" for digit in folder.mode[-2:])
    return others_write or folder.kind != "folder" or (folder.owner, folder.group) != ("root", "root")
