"""Claims about children that the application forks: they have nothing of srvd's, and never become a second worker."""

from __future__ import annotations

import http.client
import os
import socket
from contextlib import suppress

import psutil
import pytest

from tests.conftest import Starter
from tests.support.daemon import BOOT, Srvd, toml
from tests.support.waiting import wait_for

pytestmark = pytest.mark.system

CODE = """
import multiprocessing, os, signal, subprocess, sys, threading, time
from concurrent.futures import ProcessPoolExecutor

FORK = multiprocessing.get_context("fork")
go_on = os.path.abspath("go_on")

def wait():
    while not os.path.exists(go_on):
        time.sleep(0.01)

def square(number):
    return number * number

def app(environ, start_response):
    path, text = environ["PATH_INFO"], "one %s 0" % environ["srvd.worker"]
    if path in ("/exit", "/raise", "/return", "/write", "/generator"):
        pid = os.fork()
        if pid == 0:
            if path == "/exit":
                sys.exit(3)
            if path == "/raise":
                raise RuntimeError("in the child")
            if path == "/write":
                start_response("200 OK", [("Content-Length", "5")])(b"child")
            if path == "/generator":
                return (block for block in [b"child"])
        else:
            text = str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    elif path == "/long":
        pid = os.fork()
        if pid == 0:
            wait()
            os._exit(0)
        text = str(pid)
    elif path == "/process":
        child = FORK.Process(target=wait)
        child.start()
        text = str(child.pid)
    elif path == "/pool":
        with ProcessPoolExecutor(2, mp_context=FORK) as pool:
            text = str(list(pool.map(square, range(5))))
    elif path == "/program":
        text = subprocess.run(["echo", "done"], capture_output=True, text=True, preexec_fn=os.setpgrp).stdout.strip()
    body = text.encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"""

THREADS = pytest.mark.parametrize("threads", [1, 2])
CAME_BACK = "which the application forked, came back out of the application's code; it ends here"


def _start(starter: Starter, more: str = "") -> Srvd:
    return starter(config=toml(f"workers = 1\n{more}"), code=CODE)


@THREADS
@pytest.mark.parametrize("path", ["/exit", "/raise", "/return", "/write", "/generator"])
def test_a_child_that_comes_back_ends_and_never_serves(starter: Starter, threads: int, path: str) -> None:
    """The worker answers, as the one that it was; the child's exit is that of its exception."""
    srvd = _start(starter, f"threads = {threads}")
    (worker,) = srvd.serving()
    assert srvd.get(path) == ("3" if path == "/exit" else "1")
    srvd.wait_logged(CAME_BACK)
    assert {srvd.get() for _ in range(20)} == {f"one {worker['id']} 0"}
    wait_for(lambda: _counted(srvd) == (worker["pid"], 0, 21), BOOT)  # a request is counted when it has been answered
    assert "died" not in srvd.logged()


def _counted(srvd: Srvd) -> tuple[int, int, int]:
    (worker,) = srvd.call("workers")["workers"]
    return worker["pid"], worker["busy"], worker["requests"]


@THREADS
@pytest.mark.parametrize("path", ["/long", "/process"])
def test_a_child_holds_nothing_of_srvds(starter: Starter, threads: int, path: str) -> None:
    """Neither the connections, so that a client gets its end of file, nor ports, nor links."""
    srvd = _start(starter, f'threads = {threads}\nkeepalive_timeout = "300ms"')
    kept = srvd.connect()
    kept.request("GET", path)
    pid = int(kept.getresponse().read())
    try:
        assert kept.sock is not None
        kept.sock.settimeout(BOOT)
        assert kept.sock.recv(1) == b""
        links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        # A mapping of the scoreboard stays, which nothing in the child writes to.
        assert [link for link in links if link.startswith(("socket:", "anon_inode:[eventpoll"))] == []
    finally:
        (srvd.folder / "go_on").touch()
        kept.close()
    wait_for(lambda: _is_over(pid), BOOT)


@THREADS
def test_pools_of_processes_and_programs_work(starter: Starter, threads: int) -> None:
    srvd = _start(starter, f"threads = {threads}")
    assert srvd.get("/pool") == "[0, 1, 4, 9, 16]"
    assert srvd.get("/program") == "done"
    assert CAME_BACK not in srvd.logged()


@pytest.mark.parametrize("preload", ["auto", "off"])
def test_a_child_that_comes_back_out_of_an_import_ends(starter: Starter, preload: str) -> None:
    """Else it would be a second zygote, or a second worker."""
    code = f"import os\nif os.fork() == 0:\n    RELEASE = 1\nelse:\n    os.wait()\n{CODE}"
    srvd = starter(config=toml(f'workers = 1\npreload = "{preload}"'), code=code)
    srvd.wait_logged(CAME_BACK)
    (worker,) = srvd.serving()
    assert {srvd.get() for _ in range(20)} == {f"one {worker['id']} 0"}


@pytest.mark.parametrize("hook", ["on_fork", "on_worker_start"])
def test_a_child_that_comes_back_out_of_a_hook_ends(starter: Starter, hook: str) -> None:
    srvd = starter.new(config=toml('workers = 1\nhooks = "hooked"'), code=CODE)
    srvd.deploy(f"import os\ndef {hook}(worker):\n    if os.fork():\n        os.wait()\n", "hooked")
    srvd.start()
    srvd.wait_logged(CAME_BACK)
    (worker,) = srvd.serving()
    assert {srvd.get() for _ in range(20)} == {f"one {worker['id']} 0"}


def test_a_port_is_free_after_a_stop_although_a_child_lives(starter: Starter) -> None:
    srvd = _start(starter)
    host, port = srvd.address()
    pid = int(srvd.get("/long"))
    try:
        assert srvd.stop() == 0
        with suppress(OSError), socket.create_server((host, port)):
            return
        pytest.fail("the port is taken")
    finally:
        (srvd.folder / "go_on").touch()
        wait_for(lambda: _is_over(pid), BOOT)


def _is_over(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_connection_that_is_closed_in_order_ends_for_the_client(starter: Starter) -> None:
    """`Connection: close`, with a child in between."""
    srvd = _start(starter)
    connection = http.client.HTTPConnection(*srvd.address(), timeout=BOOT)
    connection.request("GET", "/long", headers={"Connection": "close"})
    response = connection.getresponse()
    pid = int(response.read())
    try:
        assert response.will_close
    finally:
        (srvd.folder / "go_on").touch()
        connection.close()
    wait_for(lambda: _is_over(pid), BOOT)


def test_a_worker_that_becomes_another_program_is_replaced(starter: Starter) -> None:
    """Its link has ended without a goodbye. No client waits for the request that it was in for ever."""
    code = CODE.replace(
        '    elif path == "/long":',
        '    elif path == "/exec":\n        os.execvp("sleep", ["sleep", "777"])\n    elif path == "/long":',
    )
    srvd = starter(config=toml('workers = 1\nrequest_timeout = "0s"'), code=code)
    (worker,) = srvd.serving()
    connection = srvd.connect()
    try:
        connection.request("GET", "/exec")
        with pytest.raises((http.client.HTTPException, OSError)):
            connection.getresponse()
    finally:
        connection.close()
    srvd.wait_logged(f"srvd: killed: it has closed its link, and runs on as sleep 777 (pid {worker['pid']})")
    srvd.wait_serving(1, without=worker["id"])
    assert srvd.get().startswith("one ")


def test_a_worker_that_waits_for_a_child_at_its_exit_is_not_said_to_have_requests(starter: Starter) -> None:
    """multiprocessing joins its children then."""
    srvd = _start(starter, 'drain_timeout = "1s"')
    (worker,) = srvd.serving()
    pid = int(srvd.get("/process"))
    assert srvd.ctl("recycle").returncode == 0
    srvd.wait_logged(f"worker {worker['id']} did not end in time; killing it")
    srvd.wait_logged("had no requests any more, and did not end: something that runs at its exit waits")
    wait_for(lambda: _is_over(pid), BOOT)
