"""Where nothing can be written: full disks, pipes that nobody reads, applications that write without end.

Lines may be lost, and are counted. Requests, workers and the daemon are not.
"""

from __future__ import annotations

import os
import re
import subprocess

import psutil
import pytest

from tests.conftest import Starter
from tests.support import apps
from tests.support.daemon import BOOT, Srvd, toml
from tests.support.fault import full_disk, small_disk, under_load
from tests.support.waiting import wait_for

pytestmark = pytest.mark.system

# -- full disks ---------------------------------------------------------------------------------------------------


def test_a_full_disk_costs_lines_of_the_logs_and_nothing_else(starter: Starter) -> None:
    """Both logs. When there is room again they go on, and say how much they lack."""
    with small_disk(starter.folder / "disk") as disk:
        srvd = starter(
            config=toml(f'workers = 2\naccess_log = "{disk}/access"', f'[daemon]\nlog_file = "{disk}/srvd.log"')
        )
        log = disk / "srvd.log"
        with under_load(srvd, "a worker killed while the disk is full") as fault:
            with full_disk(disk):
                fault.load.more(500)  # the access log has what was left in its page by now
                before = log.stat().st_size
                victim = fault.kills()
                fault.replaced(victim, 2)
                for number in range(40):  # more than the rest of its last page
                    srvd.call("scale", size=2 + number % 2)
                assert srvd.call("reload")["operation"]["state"] == "done"
                assert log.stat().st_size - before < 4096
            second = fault.kills()
            fault.replaced(second, srvd.pool()["desired"])
            wait_for(lambda: re.search(r"WARN +\d+ lines of the log were lost", log.read_text()))
        assert fault.lost() == []
        assert "killed by signal 9" in fault.why(victim)
        assert srvd.stop() == 0


def test_a_disk_that_is_full_at_the_start_is_told_and_nothing_is_left_there(starter: Starter) -> None:
    """Nobody has ever served: no request can be lost, and nobody is left who could be asked why. The command tells.
    With a daemon that has died before, see test_daemon.py.
    """
    with small_disk(starter.folder / "disk") as disk, full_disk(disk):
        srvd = starter.new(config=toml("workers = 1", f'[daemon]\npidfile = "{disk}/srvd.pid"'))
        done = srvd.run()
        assert done.returncode == 71
        assert f"write the pidfile {disk}/srvd.pid: No space left on device; nothing was started" in done.stderr
        assert os.listdir(disk) == ["hog"]


def test_a_log_that_takes_nothing_at_all_lets_everything_else_go_on(starter: Starter) -> None:
    srvd = starter.new(config=toml("workers = 2", '[daemon]\nlog_file = "/dev/full"'))
    srvd.start()
    with under_load(srvd, "a worker killed, the log is /dev/full") as fault:
        victim = fault.kills()
        fault.replaced(victim, 2)
    assert fault.lost() == []
    assert "killed by signal 9" in fault.why(victim)


@pytest.mark.parametrize("threads", [1, 4], ids=["one thread", "threads"])
@pytest.mark.parametrize("room", [0, 500, 1496], ids=["no room", "room for a part", "room for all but the end"])
def test_a_body_for_which_the_disk_has_no_room_costs_its_request_alone(
    starter: Starter, threads: int, room: int
) -> None:
    """It is too long for memory. There is nothing to repair: the next one is taken as soon as there is room."""
    with small_disk(starter.folder / "disk", kilobytes=3000) as disk:
        pool = f'workers = 2\nthreads = {threads}\nbody_memory = "1MiB"'
        srvd = starter.new(config=toml(pool), env={"TMPDIR": str(disk)})
        srvd.start()
        workers = srvd.serving()
        with under_load(srvd, "bodies that are too long for the disk, until the next answer") as fault:
            fds = [len(os.listdir(f"/proc/{worker['pid']}/fd")) for worker in workers]
            with full_disk(disk, room << 10):
                for _ in range(4):
                    assert _upload(srvd, 1500 << 10) == 500
            fault.strikes()
            fault.repaired(lambda: _upload(srvd, 1500 << 10) == 200)
        assert fault.lost() == []
        wait_for(lambda: [len(os.listdir(f"/proc/{worker['pid']}/fd")) for worker in workers] <= fds)
        assert srvd.names() == {worker["id"] for worker in workers}
        srvd.wait_logged("No space left on device")
        assert "no worker has died" in fault.why()
        assert srvd.stop() == 0


def _upload(srvd: Srvd, size: int) -> int:
    """The status that such a body is answered with."""
    connection = srvd.connect()
    try:
        connection.request("POST", "/", body=b"x" * size)
        return connection.getresponse().status
    finally:
        connection.close()


# -- pipes --------------------------------------------------------------------------------------------------------

PRINTS = apps.good().replace('os.write(2, b"said on stderr\\n")', 'print("x" * 4096, flush=True)')
"""GET /say prints a page to standard output."""


def test_a_full_pipe_that_nobody_reads_holds_up_nobody(starter: Starter) -> None:
    """`srvd start | something that has stopped`: what an application prints goes by the daemon, which reads it always,
    and writes what fits. Lines are lost; neither the daemon nor a worker ever waits.
    """
    srvd = starter.new(config=toml('workers = 2\nrequest_timeout = "5s"'), code=PRINTS)
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    try:
        srvd.process = subprocess.Popen(srvd.command, cwd=srvd.folder, env=srvd.env, stderr=writer, stdout=writer)
        wait_for(srvd.is_ready, within=BOOT)
        for _ in range(40):
            srvd.get("/say")
        assert srvd.deaths() == []
        assert srvd.stop() == 0
    finally:
        os.close(reader)
        os.close(writer)


# -- floods -------------------------------------------------------------------------------------------------------

FLOODS = apps.good().replace(
    'os.write(2, b"said on stderr\\n")',
    """for fd in (1, 2):
            for _ in range(200):
                os.write(fd, bytes(range(256)).replace(b"\\n", b"") * 64)""",
)
"""GET /say writes 6 MB of bytes without an end of line, to standard output and standard error."""

LINE = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} (DEBUG|INFO |WARN |ERROR) \S|web[/@][\d#]+ \| |    ")


def test_a_flood_of_binary_output_harms_neither_the_daemon_nor_the_log(starter: Starter) -> None:
    """Standard output and standard error are the daemon's to read, a line at a time, escaped and with the worker's
    name. Nothing reaches the daemon's own standard output.
    """
    srvd = starter.new("--workers", "2", code=FLOODS)
    output = srvd.folder / "stdout"
    with srvd.log.open("ab") as log, output.open("ab") as stdout:
        srvd.process = subprocess.Popen(srvd.command, cwd=srvd.folder, env=srvd.env, stderr=log, stdout=stdout)
    wait_for(srvd.is_ready, within=BOOT)
    daemon = psutil.Process(srvd.pid)
    before = daemon.memory_info().rss
    with under_load(srvd, "a worker killed in a flood of output") as fault:
        srvd.get("/say")
        victim = fault.kills()
        fault.replaced(victim, 2)
        srvd.get("/say")
    assert fault.lost() == []
    assert daemon.memory_info().rss - before < 16 << 20
    assert "killed by signal 9" in fault.why(victim)
    srvd.stop()
    assert output.stat().st_size == 0
    strange = [line[:80] for line in srvd.log.read_bytes().splitlines() if not LINE.match(line)]
    assert strange == []
    assert not re.search(rb"[\x00-\x08\x0b-\x1f\x7f]", srvd.log.read_bytes())
