"""Claims about `srvctl reopen` and SIGUSR1: the answer comes when every worker writes to the new file."""

from __future__ import annotations

import re
import signal
import socket
import threading

import pytest

from tests.conftest import Starter
from tests.support.daemon import Srvd, toml
from tests.support.waiting import wait_for

CONFIG = 'workers = 4\naccess_log = "access"\naccess_log_format = "%(U)s %({srvd.worker}e)s"'


@pytest.fixture
def logging(starter: Starter) -> Srvd:
    return starter(config=toml(CONFIG))


def asked(srvd: Srvd, count: int, name: str) -> None:
    for number in range(count):
        srvd.get(f"/{name}/{number}")


def test_after_reopen_nobody_writes_to_the_former_file(logging: Srvd) -> None:
    log, moved = logging.folder / "access", logging.folder / "access.1"
    asked(logging, 40, "before")
    log.rename(moved)
    done = logging.ctl("reopen")
    assert done.returncode == 0, done.stderr
    assert "4 workers and the daemon have reopened their logs" in done.stdout
    kept = moved.read_text()
    assert kept.count("/before/") == 40
    asked(logging, 40, "after")
    wait_for(lambda: log.read_text().count("/after/") == 40)
    assert moved.read_text() == kept


def test_usr1_does_the_same(logging: Srvd) -> None:
    log = logging.folder / "access"
    log.rename(logging.folder / "access.1")
    logging.signal(signal.SIGUSR1)
    logging.wait_logged("reopen: done: 4 workers and the daemon have reopened their logs")
    assert log.exists()


def test_a_rotation_under_load_loses_no_line(logging: Srvd) -> None:
    folder = logging.folder
    with logging.under_load(4) as load:
        for number in range(5):
            (folder / "access").rename(folder / f"access.{number}")
            assert logging.ctl("reopen").returncode == 0
    assert load.failed == []
    logging.stop()
    lines = "".join(path.read_text() for path in folder.glob("access*")).splitlines()
    assert len(lines) == load.answered
    assert all(re.fullmatch(r"/ web/1#\d+", line) for line in lines)


def test_with_threads_no_line_is_lost_and_the_last_one_is_not_late(starter: Starter) -> None:
    srvd = starter(config=toml(f"{CONFIG}\nthreads = 4"))
    with srvd.under_load(8, "/sleep/0.02") as load:
        load.more(200)
        assert srvd.ctl("reopen").returncode == 0
    assert load.failed == []
    wait_for(lambda: (srvd.folder / "access").read_text().count("/sleep/0.02 ") == load.answered)


def test_reopen_says_which_worker_does_not_answer(starter: Starter) -> None:
    srvd = starter(config=toml(CONFIG))
    waiting = threading.Thread(target=srvd.get, args=["/until/over"])
    waiting.start()
    try:
        wait_for(lambda: any(worker["busy"] for worker in srvd.serving()))
        busy = next(worker["id"] for worker in srvd.serving() if worker["busy"])
        done = srvd.ctl("reopen", "--timeout", "500ms")
        assert waiting.is_alive()
    finally:
        (srvd.folder / "over").touch()
        waiting.join()
    assert done.returncode == 10
    said = rf"{re.escape(busy)} did not answer within [\d.]+ s, and will reopen as soon as it hears of it"
    assert re.search(said, done.stderr)
    assert srvd.ctl("reopen").returncode == 0


def test_reopen_says_which_worker_cannot(logging: Srvd) -> None:
    folder = logging.folder
    (folder / "access").unlink()
    (folder / "access").mkdir()
    done = logging.ctl("reopen")
    assert done.returncode == 10
    assert re.search(r"web/1#1: open the access log \S+/access: Is a directory", done.stderr)
    assert "the former file stays in use there" in done.stderr
    assert logging.get("/").startswith("one ")


def test_the_configuration_is_refused_with_a_format_that_is_none_or_a_folder_that_is_not_there(
    starter: Starter,
) -> None:
    srvd = starter.new(config=toml('access_log = "logs/access"\naccess_log_format = "combinde"'))
    done = srvd.run()
    assert done.returncode == 78
    assert "expected a file in a folder that exists" in done.stderr
    srvd.configure(toml('access_log_format = "%(h)s %(x)s"'))
    done = srvd.run()
    assert done.returncode == 78
    assert "there is no atom %(x)s" in done.stderr


def test_the_standard_output_of_the_daemon_takes_the_lines(starter: Starter) -> None:
    srvd = starter(config=toml('workers = 1\naccess_log = "-"\naccess_log_format = "line %(U)s"'))
    srvd.get("/out")
    srvd.wait_logged("\nline /out\n")


def test_requests_over_a_unix_socket_have_a_dash_for_the_address(starter: Starter) -> None:
    pool = 'workers = 1\naccess_log = "access"\naccess_log_format = "%(h)s %(r)s"'
    srvd = starter.new(config=toml(pool, bind="unix:web.sock"))
    srvd.start()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(srvd.folder / "web.sock"))
        client.sendall(b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        while client.recv(4096):
            pass
    wait_for(lambda: (srvd.folder / "access").read_text() == "- GET /x HTTP/1.1\n")
