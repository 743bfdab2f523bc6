"""Claims about the access log of a real worker: complete, whole lines, prompt, and never in a request's way."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from srvd.http.access_line import Record
from srvd.linux import output
from srvd.log import Log
from srvd.wire import links
from srvd.worker.loop import Loop
from srvd.worker.observe.access_buffer import ROOM, AccessBuffer
from srvd.worker.observe.access_log import AccessLog, rescue
from srvd.worker.wsgi.environ import LOG_NAMES
from tests.support.waiting import stays, wait_for
from tests.support.worker_rig import Rig


def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes] | list[bytes]:
    path = environ["PATH_INFO"]
    if path == "/stream":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return iter([b"a" * 100, b"b" * 100])
    if path == "/raise":
        raise RuntimeError("as told")
    if path == "/big":
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(1 << 26))])
        return iter([b"x" * 65_536] * 1024)
    start_response("201 Created", [("Content-Type", "text/plain"), ("X-Shop", "17")])
    return [b"hello"]


def lines(path: Path, count: int = 1) -> list[str]:
    """The lines of the log, once there are so many."""
    wait_for(lambda: path.exists() and path.read_text().count("\n") >= count)
    found = path.read_text().splitlines()
    assert len(found) == count
    return found


def test_each_request_leaves_one_line_within_seconds(tmp_path: Path) -> None:
    log = tmp_path / "access"
    with Rig(app, tmp_path, access_log=str(log)) as rig:
        rig.serving()
        begun = time.monotonic()
        assert rig.get("/a?b=%22", "User-Agent: t\xe9st", "Referer: /x").status == 201
        (line,) = lines(log)
        assert time.monotonic() - begun < 8  # on any machine
        assert re.fullmatch(
            r'127\.0\.0\.1 - - \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "GET /a\?b=%22 HTTP/1\.1" 201 5 '
            r'"/x" "t\\xe9st"',
            line,
        )


def test_requests_that_a_rule_fits_leave_no_line(tmp_path: Path) -> None:
    log = tmp_path / "access"
    rules = ("/healthz 2xx", "GET /static/*", "OPTIONS")
    with Rig(app, tmp_path, access_log=str(log), access_log_format="%(m)s %(U)s %(s)s", access_log_skip=rules) as rig:
        rig.serving()
        for path in ("/healthz", "/static/a/b.css", "/a", "/healthz/deep"):
            rig.get(path)
        rig.drain()
        assert rig.wait() == 0
    assert log.read_text().splitlines() == ["GET /a 201", "GET /healthz/deep 201"]


def test_bytes_are_those_of_the_body_and_status_is_what_was_answered(tmp_path: Path) -> None:
    log = tmp_path / "access"
    atoms = "%(m)s %(U)s %(s)s %(B)s %({x-shop}o)s"
    with Rig(app, tmp_path, access_log=str(log), access_log_format=atoms) as rig:
        rig.serving()
        rig.get("/")
        rig.get("/raise")
        rig.get("/", method="HEAD")
        rig.get("/stream", version="1.0")
        rig.drain()
        assert rig.wait() == 0
    assert lines(log, 4) == ["GET / 201 5 17", "GET /raise 500 26 -", "HEAD / 201 0 17", "GET /stream 200 200 -"]


def test_refused_requests_are_logged_with_what_is_known_of_them(tmp_path: Path) -> None:
    log = tmp_path / "access"
    with Rig(app, tmp_path, access_log=str(log)) as rig:
        rig.serving()
        with rig.connect() as client:
            assert client.send(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").answer().status == 400
        with rig.connect() as client:
            client.send(b"POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n")
            assert client.answer().status == 400
        first, second = lines(log, 2)
        assert '"-" 400 16 "-" "-"' in first
        assert '"POST /up HTTP/1.1" 400 16' in second


def test_a_response_that_its_reader_gave_up_is_logged_too(tmp_path: Path) -> None:
    log = tmp_path / "access"
    with Rig(app, tmp_path, access_log=str(log), access_log_format="%(U)s %(s)s %(B)s") as rig:
        rig.serving()
        with rig.connect() as client:
            client.send(b"GET /big HTTP/1.1\r\nHost: t\r\n\r\n").read(1000)
        (line,) = lines(log)
        path, status, sent = line.split()
        assert (path, status) == ("/big", "200")
        assert 0 < int(sent) < 1 << 26


def test_a_response_to_a_client_that_is_gone_ends_for_the_scoreboard_as_well(tmp_path: Path) -> None:
    """Else the worker would be taken for one that is stuck in a request."""

    def slow(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        time.sleep(0.3)
        return list(app(environ, start_response))

    log = tmp_path / "access"
    with Rig(slow, tmp_path, access_log=str(log), access_log_format="%(s)s") as rig:
        rig.serving()
        with rig.connect() as client:
            client.send(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n" * 2)
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        wait_for(lambda: rig.facts().requests >= 1)
        wait_for(lambda: rig.facts().connections == 0)
        assert rig.facts().busy == 0
        assert len(lines(log, rig.facts().requests)) == rig.facts().requests


def test_json_lines_can_be_read_by_a_program(tmp_path: Path) -> None:
    log = tmp_path / "access"
    with Rig(app, tmp_path, access_log=str(log), access_log_format="json") as rig:
        rig.serving().get('/"\\', 'User-Agent: "q"')
        found = json.loads(lines(log)[0])
    assert found["target"] == '/"\\'
    assert found["user_agent"] == '"q"'
    assert found["worker"] == "web/1#3"
    assert 0 < found["duration_s"] < 5


def test_what_was_not_written_yet_is_written_when_the_worker_leaves(tmp_path: Path) -> None:
    log = tmp_path / "access"
    with Rig(app, tmp_path, access_log=str(log)) as rig:
        rig.serving()
        for _ in range(20):
            rig.get("/")
        rig.drain()
        assert rig.wait() == 0
    assert len(lines(log, 20)) == 20


def test_reopen_goes_on_in_the_new_file_and_loses_nothing(tmp_path: Path) -> None:
    log, moved = tmp_path / "access", tmp_path / "access.1"
    with Rig(app, tmp_path, access_log=str(log), access_log_format="%(U)s") as rig:
        rig.serving().get("/before")
        log.rename(moved)
        rig.say(links.Reopen())
        assert rig.hear() == links.Reopened("")
        assert moved.read_text() == "/before\n"
        rig.get("/after")
        assert lines(log) == ["/after"]
        assert moved.read_text() == "/before\n"


def test_a_path_that_cannot_be_opened_anew_leaves_the_former_file_in_use_and_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    with Rig(app, tmp_path, access_log=str(folder / "access"), access_log_format="%(U)s") as rig:
        rig.serving()
        folder.rename(tmp_path / "moved")
        rig.say(links.Reopen())
        heard = rig.hear()
        assert isinstance(heard, links.Reopened)
        assert heard.problem == f"open the access log {folder}/access: No such file or directory"
        rig.get("/still")
        assert lines(tmp_path / "moved" / "access") == ["/still"]


def test_without_an_access_log_reopen_is_answered_all_the_same(tmp_path: Path) -> None:
    with Rig(app, tmp_path) as rig:
        rig.serving().say(links.Reopen())
        assert rig.hear() == links.Reopened("")


def test_a_file_that_cannot_be_opened_costs_lines_and_no_request(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    with Rig(app, tmp_path, access_log=str(folder / "access"), access_log_format="%(U)s") as rig:
        assert isinstance(told := rig.hear(), links.Reopened)  # unasked: the daemon shows it
        assert "No such file" in told.problem
        rig.serving()
        assert "open the access log" in rig.log()
        assert rig.get("/lost").status == 201
        rig.say(links.Reopen())
        assert isinstance(heard := rig.hear(), links.Reopened)
        assert "No such file" in heard.problem
        folder.mkdir()
        rig.say(links.Reopen())
        assert rig.hear() == links.Reopened("")
        rig.get("/kept")
        assert lines(folder / "access") == ["/kept"]
        wait_for(lambda: "lines lost: 1; it takes them again" in rig.log())


def test_a_full_disk_costs_lines_and_no_request(tmp_path: Path) -> None:
    with Rig(app, tmp_path, access_log="/dev/full") as rig:
        rig.serving()
        for _ in range(100):
            assert rig.get("/").status == 201
        wait_for(lambda: "No space left on device; its lines are lost meanwhile" in rig.log())
        rig.drain()
        assert rig.wait() == 0


def test_a_full_pipe_costs_lines_and_no_request_and_tells_how_many(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with Rig(app, tmp_path, access_log=str(pipe), access_log_format="%(U)s " + "x" * 3000) as rig:
            rig.serving()
            with rig.connect() as client:
                for number in range(60):
                    assert client.get(f"/{number}").status == 201
            wait_for(lambda: "its lines are lost meanwhile" in rig.log())
            held, asked = b"", 60
            while "it takes them again" not in rig.log():
                held += _drain(reader)
                assert rig.get(f"/{asked}").status == 201
                asked += 1
                time.sleep(0.3)  # a few lines a second only: they fit
            wait_for(lambda: rig.facts().connections == 0)
            rig.drain()
            rig.wait()
            held += _drain(reader)
            lost = sum(map(int, re.findall(r"lines lost: (\d+)", rig.log())))
            assert all(len(line) > 3000 for line in held.splitlines())  # none is torn
            assert held.count(b"\n") + lost == asked
    finally:
        os.close(reader)


def _drain(fd: int) -> bytes:
    """What is in the pipe."""
    held = b""
    with suppress(BlockingIOError):
        while piece := os.read(fd, 1 << 20):
            held += piece
    return held


def test_eight_processes_write_one_file_and_tear_no_line(tmp_path: Path) -> None:
    path, count = tmp_path / "access", 20_000
    children = []
    for number in range(8):
        pid = os.fork()
        if not pid:
            code = 1
            try:
                log = AccessLog(str(path), f"%(U)s {str(number) * 80}", Loop(), Log(2), AccessBuffer(), LOG_NAMES)
                for index in range(count):
                    log.add(Record({"PATH_INFO": f"/{index}"}, 200, "", 0, 0.0, 0.0))
                log.close()
                code = 0 if log.lost == 0 else 2
            finally:
                os._exit(code)
        children.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0] * 8
    seen = [0] * 8
    with path.open() as file:
        for line in file:
            match = re.fullmatch(r"/(\d+) (\d)\2{79}\n", line)
            assert match, line
            assert int(match[1]) == seen[int(match[2])]  # and those of one process are in their order
            seen[int(match[2])] += 1
    assert seen == [count] * 8


def test_threads_of_one_worker_lose_no_line(tmp_path: Path) -> None:
    path = tmp_path / "access"
    log = AccessLog(str(path), "%(U)s", Loop(), Log(2), AccessBuffer(), LOG_NAMES)

    def write(number: int) -> None:
        for index in range(5000):
            log.add(Record({"PATH_INFO": f"/{number}/{index}"}, 200, "", 0, 0.0, 0.0))

    threads = [threading.Thread(target=write, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    assert len(set(path.read_text().splitlines())) == 20_000


def test_lines_of_a_process_that_was_killed_are_written_by_the_one_that_forked_it(tmp_path: Path) -> None:
    path = tmp_path / "access"
    waiting = AccessBuffer()
    pid = os.fork()
    if not pid:
        try:
            log = AccessLog(str(path), "%(U)s", Loop(), Log(2), waiting, LOG_NAMES)
            for index in range(20_000):  # some batches are written, and a rest is not
                log.add(Record({"PATH_INFO": f"/{index}"}, 200, "", 0, 0.0, 0.0))
        finally:
            os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)
    assert 0 < path.read_text().count("\n") < 20_000
    assert rescue(str(path), waiting) == (0, "")
    assert path.read_text() == "".join(f"/{index}\n" for index in range(20_000))
    waiting.close()


def test_who_rescues_lines_trusts_no_number_and_writes_whole_lines_only(tmp_path: Path) -> None:
    path = tmp_path / "access"
    waiting = AccessBuffer()
    waiting.add(b"whole\n")
    waiting.add(b"torn")
    assert rescue(str(path), waiting) == (0, "")
    assert path.read_bytes() == b"whole\n"
    waiting._sizes[0] = 1 << 63
    assert rescue(str(path), waiting) == (0, "")
    assert path.read_bytes() == b"whole\n" * 2
    assert len(waiting.take()) == ROOM
    assert rescue(str(tmp_path / "no" / "access"), waiting) == (1, "No such file or directory")
    waiting.close()


def test_lines_are_written_to_a_pipe_in_pieces_that_it_takes_whole(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    waiting = AccessBuffer()
    expected = [b"x" * (1 + 97 * number % 4000) + b"\n" for number in range(30)]
    for line in expected:
        waiting.add(line)
    assert rescue(str(path), waiting) == (0, "")
    assert os.read(reader, 1 << 20) == b"".join(expected)
    os.close(reader)
    waiting.close()


def test_an_idle_worker_has_no_timer_for_its_log(tmp_path: Path) -> None:
    with Rig(app, tmp_path, access_log=str(tmp_path / "access")) as rig:
        rig.serving().get("/")
        lines(tmp_path / "access")
        wait_for(lambda: rig.facts().connections == 0)

        def settled(seconds: float) -> bool:
            before = _switches(rig.pid)
            return stays(lambda: _switches(rig.pid) == before, seconds)

        wait_for(lambda: settled(0.1), within=5)  # after the sweep that follows at most
        assert settled(1.5)


def _switches(pid: int) -> int:
    """How often the process has gone to sleep."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^voluntary_ctxt_switches:\s+(\d+)$", status, re.MULTILINE)
    assert found
    return int(found[1])


@pytest.mark.parametrize("kind", ["pipe", "socket", "file"])
def test_a_dash_is_the_standard_output_whatever_it_is(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = _output(tmp_path, kind)
    monkeypatch.setattr(output, "NUMBER", theirs)  # it is shared with others, for whom nothing may change
    with Rig(app, tmp_path, access_log="-", access_log_format="%(U)s") as rig:
        rig.serving().get("/out")
        assert wait_for(lambda: os.read(ours, 100)) == b"/out\n"
        assert os.get_blocking(theirs)
    os.close(theirs)
    os.close(ours)


def _output(tmp_path: Path, kind: str) -> tuple[int, int]:
    """Our end, to be read, and the one that becomes the worker's standard output."""
    if kind == "pipe":
        return os.pipe()
    if kind == "socket":
        one, other = socket.socketpair()
        return one.detach(), other.detach()
    path = tmp_path / "out"
    return os.open(path, os.O_RDONLY | os.O_CREAT), os.open(path, os.O_WRONLY | os.O_CREAT)
