"""Claims about what an application prints and what a start says: nothing is lost, forged, or without a name."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess

import pytest

from srvd.errors import EXIT
from tests.conftest import Starter
from tests.support import apps
from tests.support.daemon import toml
from tests.support.waiting import wait_for

pytestmark = pytest.mark.system

PRINTS = """
import sys
print("at import")
def app(environ, start_response):
    print("asked for", environ["PATH_INFO"])
    print("\\x1b]0;owned\\x07\\n2026-01-01 00:00:00.000 ERROR forged")
    start_response("200 OK", [])
    return [b"hello"]
"""


def test_what_an_application_prints_is_named_and_escaped_like_its_standard_error(starter: Starter) -> None:
    srvd = starter(code=PRINTS)
    assert srvd.get("/x") == "hello"
    srvd.wait_logged("web@1 | at import\n")
    srvd.wait_logged("| asked for /x\n")
    srvd.wait_logged("| \\x1b]0;owned\\x07\n")
    srvd.wait_logged("| 2026-01-01 00:00:00.000 ERROR forged\n")
    assert re.search(r"^web/1#\d+ \| asked for /x$", srvd.logged(), re.MULTILINE)


def test_nothing_that_is_printed_is_lost_in_the_background_and_the_start_says_where_it_serves(starter: Starter) -> None:
    srvd = starter.new("--log-file", "d.log", code=PRINTS)
    srvd.log = srvd.folder / "d.log"
    done = srvd.daemonize()
    assert (done.returncode, done.stderr) == (EXIT.DONE, "")
    assert re.fullmatch(
        r"daemon srvd, pid \d+, serves http://127.0.0.1:\d+; `srvctl -s \S+ status` asks it\n", done.stdout
    )
    assert srvd.get("/x") == "hello"
    srvd.wait_logged("| asked for /x\n")


def test_an_access_log_to_an_output_that_is_given_up_is_refused(starter: Starter) -> None:
    srvd = starter.new("--access-log", "-", "--log-file", "d.log")
    done = srvd.daemonize()
    assert done.returncode == EXIT.CONFIG
    assert (
        'flag --access-log: pools.web.access_log: found "-", the standard output, which --daemonize gives'
        in done.stderr
    )
    with (srvd.folder / "out").open("ab") as out:  # a file is kept
        subprocess.run(srvd.command, cwd=srvd.folder, env=srvd.env, stdout=out, stderr=out, timeout=60, check=True)
    srvd.daemonized = int(srvd.status()["daemon"]["pid"])
    srvd.get("/x")
    wait_for(lambda: '"GET /x HTTP/1.1" 200' in (srvd.folder / "out").read_text())


def test_an_access_log_on_the_standard_output_is_not_mixed_with_what_is_printed(starter: Starter) -> None:
    srvd = starter.new("--access-log", "-", code=PRINTS)
    with (srvd.folder / "out").open("ab") as out, srvd.log.open("ab") as log:
        srvd.process = subprocess.Popen(srvd.command, cwd=srvd.folder, env=srvd.env, stdout=out, stderr=log)
    wait_for(srvd.is_ready, within=30)
    srvd.get("/x")
    srvd.wait_logged("| asked for /x\n")
    wait_for(lambda: '"GET /x HTTP/1.1" 200' in (srvd.folder / "out").read_text())
    assert "asked for" not in (srvd.folder / "out").read_text()
    for worker in srvd.serving():  # only the pool that needs it has the daemon's output
        assert os.readlink(f"/proc/{worker['pid']}/fd/4") == str(srvd.folder / "out")


def test_a_workers_own_lines_keep_their_level_and_time_in_json(starter: Starter) -> None:
    code = "def app(environ, start_response):\n    raise ValueError('boom')\n"
    srvd = starter("--log-format", "json", code=code)
    with pytest.raises(AssertionError):  # 500
        srvd.get("/")
    srvd.wait_logged("the application failed")
    (line,) = [json.loads(one) for one in srvd.logged().splitlines() if "the application failed" in one]
    assert line["level"] == "error"
    assert line["source"].startswith("web/1#")
    assert line["text"].endswith("the application failed")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])


def test_on_a_terminal_the_last_line_of_a_start_says_where_it_serves_and_how_to_stop_it(starter: Starter) -> None:
    srvd = starter.new()
    ours, theirs = pty.openpty()
    try:
        srvd.process = subprocess.Popen(
            srvd.command, cwd=srvd.folder, env=srvd.env, stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        seen = b""
        while b"^C stops" not in seen:
            seen += os.read(ours, 4096)
        assert re.search(rb"serving http://127\.0\.0\.1:\d+; \^C stops", seen)
        srvd.signal(signal.SIGINT)
        assert srvd.wait() == 0
    finally:
        os.close(ours)


def test_a_start_that_fails_leaves_nothing_beside_its_socket(starter: Starter) -> None:
    first = starter()
    host, port = first.address()
    second = starter.new("--bind", f"{host}:{port}")
    second.command[second.command.index("127.0.0.1:0") - 1 : second.command.index("127.0.0.1:0") + 1] = []
    assert second.run().returncode == EXIT.SYSTEM
    third = starter.new(code=apps.BROKEN["is a syntax error"])
    assert third.run().returncode == EXIT.FAILED
    for failed in (second, third):
        assert [path.name for path in failed.folder.iterdir() if path.name.startswith("control.sock")] == []


JSON_LINES = """
import json, sys
def app(environ, start_response):
    print(json.dumps({"level": "warning", "path": environ["PATH_INFO"]}), file=sys.stderr)
    start_response("200 OK", [])
    return [b"hello"]
"""


def test_json_lines_of_an_application_stay_objects_with_their_source(starter: Starter) -> None:
    srvd = starter("--log-format", "json", code=JSON_LINES)
    srvd.get("/x")
    srvd.wait_logged('"level": "warning", "path": "/x"')
    (line,) = [line for line in srvd.logged().splitlines() if '"path": "/x"' in line]
    assert json.loads(line).keys() == {"source", "level", "path"}
    assert json.loads(line)["source"].startswith("web/1#")


def test_raw_lines_of_an_application_are_its_own_also_after_an_upgrade(starter: Starter) -> None:
    srvd = starter.new(config=toml("workers = 1", '[daemon]\nworker_output = "raw"'), code=JSON_LINES)
    srvd.start()
    srvd.get("/one")
    srvd.wait_logged('\n{"level": "warning", "path": "/one"}\n')
    assert srvd.ctl("upgrade").returncode == 0
    srvd.get("/two")
    srvd.wait_logged('\n{"level": "warning", "path": "/two"}\n')
