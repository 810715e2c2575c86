"""How the base image gets to the emulated host: sent, resumed, fetched, and what a full disk says."""

from __future__ import annotations

import gzip
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer

import pytest

from tests.winhost.presence import require
from tests.winhost.tests.product import DIRECTORY, IMAGE, VIA, Windows, windows
from vmproxy.errors import NotReady, RemoteFailed, VmproxyError
from vmproxy.image import Download
from vmproxy.util import netns
from vmproxy.util.run import run

pytestmark = pytest.mark.winhost
MIB = 1 << 20


@pytest.fixture(params=["2022"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Windows]:
    require()
    with windows(tmp_path, version=request.param) as running:
        pad(running, 8 * MIB)
        yield running


def pad(world: Windows, size: int) -> None:
    """Something behind the VHDX, so that it takes several pieces to send."""
    content = gzip.decompress(world.file.read_bytes()) + os.urandom(size)
    world.file.write_bytes(gzip.compress(content, 1, mtime=0))


def base(world: Windows) -> Path:
    return world.state.local(rf"{DIRECTORY}\images\{IMAGE}.vhdx")


def brought(world: Windows) -> bool:
    return base(world).read_bytes() == gzip.decompress(world.file.read_bytes())


def test_an_image_that_is_sent_arrives_whole_and_its_progress_is_shown(world: Windows) -> None:
    world.run()
    assert brought(world)
    assert [line for line in world.said if "sending the image" in line] == [
        "sending the image to win-01: 8 MiB"
    ]
    assert "1 MiB of 8 MiB sent" in world.said


def test_what_was_sent_before_the_connection_was_lost_is_not_sent_again(world: Windows) -> None:
    rule = world.winhost.switchboard.add("drop", operation="Send", nth=30, when="before")
    with pytest.raises(VmproxyError):
        world.run()
    world.winhost.switchboard.clear()
    (part,) = world.state.local(rf"{DIRECTORY}\images").glob("*.part")
    have = part.stat().st_size
    assert 0 < have < world.file.stat().st_size
    before = len(world.winhost.messages)
    world.run()
    assert brought(world)
    assert world.winhost.messages[before:].count("Send") < rule.seen + 12


def test_a_part_that_was_damaged_is_thrown_away_and_said(world: Windows) -> None:
    images = world.state.local(rf"{DIRECTORY}\images")
    images.mkdir(parents=True)
    (images.parent / "vmproxy.lock").touch()
    digest = hashlib.sha256(world.file.read_bytes()).hexdigest()
    (images / f"{digest}.part").write_bytes(b"not that" * 1000)
    with pytest.raises(RemoteFailed, match=f"expected {digest}"):
        world.run()
    world.run()
    assert brought(world)


@pytest.fixture
def small(world: Windows, tmp_path: Path) -> Iterator[Path]:
    """Drive D, 64 MiB small, which holds the product's folder."""
    drive = tmp_path / "D"
    drive.mkdir()
    run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", drive])
    try:
        world.winhost.environment["WINPS_DRIVE_D"] = str(drive)
        world.state.drives["D"] = drive
        world.directory = r"D:\vmproxy"
        yield drive
    finally:
        run(["umount", drive])


def test_a_disk_that_is_too_small_is_found_before_anything_is_sent(world: Windows, small: Path) -> None:
    pad(world, 16 * MIB)
    with pytest.raises(NotReady, match=r"needs \d+ MiB in D:\\vmproxy, \d+ MiB are free"):
        world.run()
    assert not list(small.rglob("*.part"))


def test_a_disk_that_fills_up_while_the_image_comes_is_named_and_the_rest_comes_later(
    world: Windows, small: Path
) -> None:
    filler = small / "somebody else's"

    class FillsUp(list[str]):
        def append(self, line: str) -> None:
            super().append(line)
            if line.startswith("sending the image"):
                filler.write_bytes(bytes(59 * MIB))

    world.said = FillsUp()
    with pytest.raises(NotReady, match="the disk is full") as caught:
        world.run()
    assert "free space" in str(caught.value.hint)
    filler.unlink()
    world.said = []
    world.run()
    assert "0 MiB of" not in "".join(world.said)


@pytest.mark.parametrize("world", ["2016", "2022"], indirect=True)  # 2016 has no curl.exe
@pytest.mark.parametrize("pack", [bytes, gzip.decompress])
def test_a_published_image_is_fetched_by_the_host_itself(
    world: Windows, pack: Callable[[bytes], bytes]
) -> None:
    content = pack(world.file.read_bytes())
    with published(world, content) as url:
        world.download = Download(url, hashlib.sha256(content).hexdigest())
        world.run()
    assert brought(world)
    assert f"win-01 downloads the image from {url}" in world.said
    assert not [line for line in world.said if "sending" in line]


@pytest.mark.parametrize("world", ["2016", "2022"], indirect=True)
def test_what_the_host_can_not_fetch_is_sent_from_here(world: Windows) -> None:
    with published(world, b"") as url:
        world.download = Download(f"{url}.not-there", "0" * 64)
        world.run()
    assert brought(world)
    (why,) = [line for line in world.said if "cannot download it" in line]
    assert "404" in why


def test_a_published_image_with_another_checksum_is_refused(world: Windows) -> None:
    with published(world, b"something else") as url:
        world.download = Download(url, "0" * 64)
        with pytest.raises(RemoteFailed, match="expected 0000"):
            world.run()
    assert not base(world).exists()


def test_what_is_no_vhdx_is_refused(world: Windows) -> None:
    world.file.write_bytes(gzip.compress(b"QFI\xfb" + bytes(MIB)))
    with pytest.raises(RemoteFailed, match="is not a VHDX"):
        world.run()
    assert not base(world).exists()


def test_a_gzip_file_of_several_members_is_refused(world: Windows) -> None:
    """.NET Framework unpacks the first one only."""
    content = gzip.decompress(world.file.read_bytes())
    world.file.write_bytes(gzip.compress(content[:MIB]) + gzip.compress(content[MIB:]))
    with pytest.raises(RemoteFailed, match="of several members"):
        world.run()
    assert not base(world).exists()


@contextmanager
def published(world: Windows, content: bytes) -> Iterator[str]:
    """A web server in the host's network, with one file."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/debian.vhdx":
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Silent."""

    assert world.state.switch_namespace is not None
    server = ThreadingTCPServer((VIA, 0), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = netns.open_socket(world.state.switch_namespace, "tcp")
    server.server_bind()
    server.server_activate()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://{VIA}:{server.server_address[1]}/debian.vhdx"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
