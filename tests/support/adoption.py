"""What tests of adoptions share: the death of a daemon, its state, and the next start.

Claims nothing by itself but that an adopted family is whole.
"""

from __future__ import annotations

import signal
from pathlib import Path

import psutil

from srvd.core.model import OpId
from srvd.daemon.recovery import envelope
from srvd.daemon.recovery.state_file import unseal
from srvd.daemon.state import handover
from tests.support.daemon import BOOT, Srvd
from tests.support.waiting import wait_for


def state(srvd: Srvd) -> Path:
    return srvd.socket.with_name("control.sock.state")


def pids(srvd: Srvd) -> dict[str, int]:
    """Of the workers that serve, by name."""
    return {worker["id"]: worker["pid"] for worker in srvd.serving()}


def is_written(srvd: Srvd) -> bool:
    """Whether the state has everybody who serves."""
    text = state(srvd).read_bytes() if state(srvd).exists() else b""
    return all(worker.encode() in text for worker in pids(srvd))


def zygote_of(srvd: Srvd) -> psutil.Process:
    """Its only one; the daemon is not asked."""
    return psutil.Process(srvd.pid).children()[0]


def is_known(srvd: Srvd, operation: int) -> bool:
    """Whether the state has it."""
    found = handover.read(envelope.unpack(unseal(state(srvd).read_bytes()).data).state).state
    return OpId(operation) in found.operations


def die(srvd: Srvd) -> dict[str, int]:
    """Kills the daemon when its state is written; who served."""
    wait_for(lambda: is_written(srvd))
    before = pids(srvd)
    srvd.die()
    return before


def die_with_zygote(srvd: Srvd) -> dict[str, int]:
    """The daemon and its zygote are killed; who served."""
    wait_for(lambda: is_written(srvd))
    before = pids(srvd)
    srvd.signal(signal.SIGSTOP)
    zygote_of(srvd).kill()
    srvd.die()
    return before


def adopted(srvd: Srvd) -> None:
    """Starts it, and does not wait until it is as it was."""
    already = srvd.logged().count("control socket")
    srvd.start(ready=False)
    wait_for(lambda: srvd.logged().count("control socket") > already, BOOT)


def is_whole(srvd: Srvd) -> None:
    """Everything that an operator does works, and changes what it shall."""
    size = srvd.pool()["desired"]
    srvd.call("scale", pool="web", size=size + 2)
    assert len(srvd.serving()) == size + 2
    srvd.call("scale", pool="web", reset=True)
    old = set(pids(srvd))
    srvd.call("reload")
    assert not old & set(pids(srvd))
    srvd.wait_serving(size)
