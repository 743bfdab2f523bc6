"""Claims about lies: false numbers and false children of a zygote, and orders that make no sense, to a real daemon.

What a zygote says of one child's pid is in test_descriptors.py, what any wire takes in test_fuzz.py.
"""

from __future__ import annotations

import os
import random
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice

import pytest

from srvd.errors import SrvdError
from tests.conftest import Starter
from tests.hostile.test_fuzz import CORPUS, WIRES, inputs
from tests.support import apps
from tests.support.adoption import die, zygote_of
from tests.support.daemon import BOOT, Srvd, toml
from tests.support.waiting import wait_for

pytestmark = pytest.mark.system

FALSE_NUMBER = """
import os
from srvd.wire import links
from srvd.zygote.fork_server import ForkServer
plain = ForkServer._say
def lying(self, message, *rest):
    if isinstance(message, links.Forked) and os.path.exists("lie"):
        os.unlink("lie")
        message = message._replace(serial=NUMBER)
    plain(self, message, *rest)
ForkServer._say = lying
"""

FALSE_CHILDREN = """
import signal
from srvd.zygote import fork_server
plain = fork_server.introduce
def lying(link, home, here):
    children = here.children + [[90, STRANGER], [91, 1], [92, 2**60], [-1, -1], [0, 0], [2**60, STRANGER]]
    children += [[serial, STRANGER] for serial, _ in here.children]
    ended = here.ended + [[1, 0, -1], [2**60, -1, 9], [-5, 300, 300]]
    plain(link, home, here._replace(children=children, ended=ended))
fork_server.introduce = lying
"""


@contextmanager
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that must not be signalled."""
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as process:
        try:
            yield process
            assert process.poll() is None
        finally:
            process.kill()


def is_in_order(srvd: Srvd, workers: int) -> None:
    wait_for(lambda: srvd.is_ready() and len(srvd.serving()) == workers, BOOT)
    assert srvd.get()
    assert "a bug in srvd" not in srvd.logged()


@pytest.mark.parametrize("number", [0, -1, 1, 99, 2**31, 2**63 - 1])
def test_a_zygote_cannot_give_a_child_a_false_number(starter: Starter, number: int) -> None:
    """Number 1 is that of a worker that serves."""
    code = FALSE_NUMBER.replace("NUMBER", str(number))
    srvd = starter(config=toml('workers = 1\nboot_timeout = "2s"'), code=apps.good("one", code))
    zygote = zygote_of(srvd)
    with srvd.under_load(2) as load:
        (srvd.folder / "lie").touch()
        with suppress(SrvdError):
            srvd.call("scale", pool="web", size=2, timeout=10.0)
        assert not (srvd.folder / "lie").exists()
        srvd.wait_logged("that was not ordered")
        wait_for(lambda: not zygote.is_running(), BOOT)  # a liar is ended, and another one loads
        srvd.call("scale", pool="web", size=2)
        is_in_order(srvd, 2)
    assert load.failed == []


def test_a_zygote_that_calls_cannot_name_false_children(starter: Starter) -> None:
    """Whom it names is adopted or told to leave: a stranger is neither."""
    with stranger() as process:
        code = f"STRANGER = {process.pid}\n{FALSE_CHILDREN}"
        srvd = starter(config=toml("workers = 2\norphan_timeout = 600"), code=apps.good("one", code))
        for _ in range(2):
            before = die(srvd)
            srvd.start()
            is_in_order(srvd, 2)
            assert process.pid not in {worker["pid"] for worker in srvd.serving()}
            assert set(before) & srvd.names()
        assert srvd.ctl("recycle").returncode == 0
        is_in_order(srvd, 2)


MESSAGES = int(os.environ.get("SRVD_MESSAGES", "2000"))


def test_any_messages_to_the_control_socket_leave_the_daemon_as_it_was(starter: Starter) -> None:
    """All orders but those that end it, with one value or some bytes wrong."""
    srvd = starter("--workers", "1")
    examples = [path for path in sorted((CORPUS / "control").glob("*.bin")) if path.stem not in ("stop", "upgrade")]
    messages = inputs(WIRES["control"], [path.read_bytes() for path in examples], random.Random(27))
    refused = 0
    for message in islice(messages, MESSAGES):
        with socket.socket(socket.AF_UNIX) as peer, suppress(ConnectionError):
            peer.settimeout(BOOT)
            peer.connect(str(srvd.socket))
            peer.sendall(message)
            peer.shutdown(socket.SHUT_WR)
            while data := peer.recv(65536):
                refused += b"error" in data
    assert refused > MESSAGES // 2
    srvd.call("resume", pool="web")
    srvd.call("scale", pool="web", size=1)
    is_in_order(srvd, 1)
