"""Claims about the state of the performing side as bytes: another program reads what this one wrote, or refuses it.

`python -m tests.daemon.state.test_handover` writes the recorded one anew, which is right only for a new version of it.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import msgpack
import pytest

from srvd.config.load import load
from srvd.config.settings import Config
from srvd.config.source import Source
from srvd.core.model import Revision
from srvd.core.state.codec import codec
from srvd.daemon.children import commons, worker, zygote
from srvd.daemon.children.output import Output, Read
from srvd.daemon.children.processes import Family
from srvd.daemon.control import server
from srvd.daemon.control.event_log import EventLog, EventLogState
from srvd.daemon.control.idempotency import IdempotencyKeys, Remembered
from srvd.daemon.control.idempotency import SavedKey as KeptOrder
from srvd.daemon.control.requests import RequestsState
from srvd.daemon.control.socket_path import SocketPathState
from srvd.daemon.family import lock
from srvd.daemon.fd_table import FdTable
from srvd.daemon.listener import Key, Plan
from srvd.daemon.listeners import ListenerState, Listening
from srvd.daemon.state import handover
from srvd.daemon.state.model import Handover, Shell
from srvd.daemon.upgrade.program import Program, this_program
from srvd.errors import Unsupported
from srvd.ids import GenerationId, WorkerId
from srvd.linux.socket_files import PathId
from srvd.linux.sockets import Address
from srvd.linux.systemd import Passed, Unit
from srvd.wire import links
from tests.core.test_snapshot import STATES, busy_state
from tests.support.certificates import Authority

RECORDED = STATES / f"handover-{handover.VERSION}.msgpack"


def config(folder: Path) -> Config:
    """One with everything in it that is not a plain text: a certificate, roles, lists, variables, names of bytes."""
    path = folder / "srvd.toml"
    certificate = Authority(folder).file("shop.example")
    path.write_text(
        f"""
        [control]
        roles = {{ operator = ["root"], viewer = ["%root"] }}
        [listeners.web]
        bind = ["127.0.0.1:0", "unix:/run/shop.sock"]
        certificate = ["{certificate}"]
        [pools.web]
        app = "shop:app"
        env = {{ SECRET = "x" }}
        """
    )
    return load(str(path), {}, {})


def shell(made: Config) -> Shell:
    generation, first = GenerationId("web", 1), WorkerId("web", 1, 1)
    keys = Key(Address("inet", "127.0.0.1", 0), "web.0"), Key(Address("unix", "/run/shop.sock"))
    ring = EventLog()
    ring.add(1.0, "worker", "worker.ready", {"text": "web/1#1 is there"})
    idems = IdempotencyKeys()
    idems.remember(0, "a key", Remembered("scale", {"size": 3, "wait": True}, 2))
    return Shell(
        version="0.1.0",
        protocol=links.PROTOCOL,
        program=Program(("/usr/bin/srvd",), "/usr/bin/python3", "/usr/lib/python3"),
        source=Source(None, {"--workers": "2", "--bind": (":80", ":81")}).save(),
        daemonized=False,
        began=1.5,
        configs={Revision(1): made},
        current=Revision(1),
        listening=Listening(
            (
                ListenerState(keys[0], None, False, False),
                ListenerState(keys[1], PathId("/run/shop.sock", 1, 2), True, False),
            ),
            {Revision(1): tuple(Plan("web", key, 2048, 0o666, False) for key in keys)},
            (Passed("web", 3),),
        ),
        family=Family(
            {generation: Revision(1)},
            (zygote.ZygoteState(generation, 10, True, True, False, Read(b"half a l", b"a line\n\xff")),),
            (worker.WorkerState(first, 0, 11, ready=True), worker.WorkerState(first._replace(serial=2), 1)),
            (commons.CommonsState(generation, 8, 1, 77),),
        ),
        overdue={first: 3.25},
        control=server.ControlState(
            "10-abcd", SocketPathState("/run/srvd.sock", (1, 2)), RequestsState(ring.save(), idems.save())
        ),
        unit=Unit(),
        stored=("srvd/listener/web",),
        lock=lock.FamilyLockState("/run/srvd.sock.family", "srvd-0"),
    )


def test_what_one_program_packs_another_one_reads(tmp_path: Path) -> None:
    written = Handover(busy_state(), shell(config(tmp_path)))
    again = handover.read(handover.pack(written))
    assert again.shell == written.shell
    assert handover.pack(again) == handover.pack(written)
    assert again.shell.configs[Revision(1)].tls["web"].identities[0].pem


def test_the_recorded_state_of_a_version_that_had_one_scoreboard_for_all_is_refused() -> None:
    with pytest.raises(Unsupported, match="of version 1, this program reads version 2") as refused:
        handover.read((STATES / "handover-1.msgpack").read_bytes())
    assert "needs a restart" in refused.value.hint


@pytest.mark.parametrize("path", sorted(STATES.glob("handover-[2-9]*.msgpack")), ids=lambda path: path.stem)
def test_a_recorded_state_is_read(path: Path) -> None:
    """As far as it is the daemon's: workers that speak another version are a reason of their own to refuse."""
    plain = msgpack.unpackb(path.read_bytes(), strict_map_key=False)
    plain["shell"]["protocol"] = links.PROTOCOL
    found = handover.read(msgpack.packb(plain))
    assert found.shell.source.texts == {"--workers": "2"}
    assert found.shell.family.workers[0].id == WorkerId("web", 1, 1)
    assert found.shell.configs[found.shell.current].pools["web"].app == "shop:app"
    assert found.state.open_operations


def test_the_version_in_use_is_recorded() -> None:
    assert RECORDED.exists()


def packed(tmp_path: Path, change: Any) -> bytes:
    plain = msgpack.unpackb(handover.pack(Handover(busy_state(), shell(config(tmp_path)))), strict_map_key=False)
    change(plain)
    return bytes(msgpack.packb(plain))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda plain: plain.update(version=1), "of version 1, this program reads version 2"),
        (lambda plain: plain["core"].update(version=9), "of version 9"),
        (lambda plain: plain["shell"].update(colour=1), "Shell knows no colour"),
        (lambda plain: plain["shell"].pop("unit"), "Shell has no unit"),
        (
            lambda plain: plain["shell"]["configs"][0][1]["pools"]["web"].update(threads="4"),
            "PoolSettings.threads: str",
        ),
        (lambda plain: plain["shell"].update(protocol=99), "speak version 99"),
        (lambda plain: plain.pop("version"), "it is none"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(tmp_path: Path, change: Any, why: str) -> None:
    with pytest.raises(Unsupported, match=why):
        handover.read(packed(tmp_path, change))


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x93\x01\x02\x03", b"\x00" * 64], ids=["nothing", "bad", "list", "x"])
def test_what_is_no_state_is_refused(data: bytes) -> None:
    with pytest.raises(Unsupported):
        handover.read(data)


@pytest.mark.parametrize("record", [Shell, Config, Family, Listening, EventLogState, KeptOrder])
def test_every_record_can_be_carried(record: type) -> None:
    assert codec(record)


# -- parts ----------------------------------------------------------------------------------------------------------


def test_descriptors_are_taken_by_name_and_close_on_exec() -> None:
    read, write = os.pipe()
    os.set_inheritable(read, True)
    kept = FdTable()
    kept.give("one", read)
    with pytest.raises(AssertionError):
        kept.give("one", write)
    assert kept.take("one") == read
    assert not os.get_inheritable(read)
    assert kept.find("two") == -1
    with pytest.raises(Unsupported, match="'two': it was not handed over"):
        kept.take("two")
    os.close(read)
    with pytest.raises(Unsupported, match="Bad file descriptor"):
        kept.take("one")
    os.close(write)


def test_a_ring_goes_on_with_its_numbers() -> None:
    ring, again = EventLog(), EventLog()
    for number in range(1100):
        ring.add(float(number), "pool" if number % 2 else "worker", "worker.ready", {"text": str(number)})
    again.restore(ring.save())
    assert (again.oldest, again.newest) == (ring.oldest, ring.newest) == (101, 1100)
    assert [again[seq] for seq in range(101, 1101)] == [ring[seq] for seq in range(101, 1101)]
    again.add(0.0, "worker", "worker.ready", {})
    assert (again.oldest, again.newest) == (102, 1101)
    assert again.last_of(frozenset({"pool"})) == 1100
    empty = EventLog()
    empty.restore(EventLog().save())
    assert (empty.oldest, empty.newest) == (1, 0)


def test_half_a_line_is_continued() -> None:
    lines: list[str] = []
    read, write = os.pipe()
    first = Output(read, lines.append)
    os.write(write, b"one\ntw")
    first.read()
    again = Output(read, lines.append, first.save())
    os.write(write, b"o\n")
    again.read()
    assert (lines, again.tail) == (["one", "two"], "one\ntwo\n")
    os.close(write)
    again.finish()


def test_this_program_knows_how_it_is_run() -> None:
    program = this_program(("/bin/srvd", "-x"))
    assert program.command == ("/bin/srvd", "-x")
    assert os.access(program.interpreter, os.X_OK)
    assert (Path(program.folder) / "srvd" / "__init__.py").exists()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        made = config(Path(folder))
        plain = made.listeners["web"]._replace(certificate=())  # its key is nobody's business
        made = made._replace(path="/etc/srvd/srvd.toml", origins={}, listeners={"web": plain}, tls={})
        RECORDED.write_bytes(handover.pack(Handover(busy_state(), shell(made))))
