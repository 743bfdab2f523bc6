"""Rows of the rival's table: stuck workers, crash loops, and a stop that must lose nothing.

The docstrings quote the row: the scenario – what gunicorn 27.0.1 was seen to do. The row about all threads of a worker
is shown with one thread; more than one come with the threads themselves, max_requests with that setting.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import Starter
from tests.support import apps
from tests.support.daemon import Srvd, toml
from tests.support.waiting import wait_for

pytestmark = pytest.mark.system


def test_all_threads_of_a_worker_stuck(starter: Starter) -> None:
    """All threads of a worker stuck – never noticed; status says all is well."""
    srvd = starter(config=toml('workers = 1\nrequest_timeout = "1s"\ndrain_timeout = "2s"'))
    with ThreadPoolExecutor() as pool:
        pool.submit(srvd.get, "/hang").add_done_callback(lambda stuck: stuck.exception())
        wait_for(lambda: srvd.serving()[0]["busy"])
        wait_for(lambda: srvd.pool()["draining"] == 1)
        # The replacement serves while the stuck one is still there.
        assert srvd.names() == {"web/1#2"}
        assert srvd.get().startswith("one web/1#2 ")
        wait_for(lambda: srvd.pool()["draining"] == 0)
    log = srvd.logged()
    assert "in hang" in log  # its stack
    assert (
        log.index("has given nothing to GET /hang for 1 s")
        < log.index("worker web/1#2 ready")
        < log.index("web/1#1 left")
    )
    death = srvd.deaths(worker="web/1#1")[0]
    assert death["cause"] == "request_timeout"
    assert death["request"] == "GET /hang"
    assert death["request_age_s"] > 1
    assert "in hang" in death["stacks"]
    why = srvd.ctl("why", "web/1#1")
    assert why.returncode == 0
    assert "request_timeout" in why.stdout or "stuck in a request" in why.stdout
    assert "GET /hang" in why.stdout


def test_crash_loop(starter: Starter) -> None:
    """Crash loop – 19 forks a second for ever."""
    bystander = '[pools.other]\napp = "other:app"\nworkers = 1\nlisteners = ["other"]\n'
    config = toml('workers = 2\nlisteners = ["web"]', f'{bystander}[listeners.other]\nbind = ["127.0.0.2:0"]')
    srvd = starter.new(config=config, code=apps.good("one", apps.CRASH_IF_TOLD))
    srvd.deploy(apps.good("other"), "other")
    srvd.start()
    (srvd.folder / "crash").touch()
    began = time.monotonic()
    for worker in srvd.serving():
        os.kill(worker["pid"], signal.SIGKILL)
    wait_for(lambda: srvd.pool()["state"] == "crashing")
    status = srvd.ctl("status")
    assert status.returncode == 3
    assert "crashing" in status.stdout
    assert srvd.get(listener="other").startswith("other ")
    wait_for(lambda: time.monotonic() - began > 2)
    # 0.1·2ⁿ s ± 20 % between attempts: 5 of them are made within 2 s, and a few are in pairs at the beginning.
    forks = [death for death in srvd.deaths(pool="web", limit=100) if not death["ready"]]
    assert 4 <= len(forks) <= 8
    assert {death["exit_code"] for death in forks} == {9}
    assert "could not boot; exited with code 9" in srvd.ctl("why", "web").stdout
    assert srvd.pool("other")["restarts"] == 0
    (srvd.folder / "crash").unlink()
    assert srvd.ctl("resume", "web").returncode == 0  # an order clears the wait
    assert srvd.pool()["state"] == "ready"
    assert srvd.get().startswith("one ")


@pytest.mark.parametrize("code", [0, 3])
def test_an_application_that_ends_its_process_before_it_is_ready_never_came_up(starter: Starter, code: int) -> None:
    """A worker that ends at boot ends the rival's master with an exit code that init scripts take for its own."""
    dying = f"import os\nos.register_at_fork(after_in_child=lambda: os._exit({code}))\n"
    done = starter.new(code=apps.good("one", dying)).run()
    assert done.returncode == 1
    assert f"exited with code {code}" in done.stderr


def test_stop_with_12_requests_on_2_workers(srvd: Srvd) -> None:
    """Stop with 12 requests on 2 sync workers – 10 of 12 reset."""
    address = srvd.address()
    clients = [socket.create_connection(address, timeout=30) for _ in range(12)]
    for client in clients:
        client.sendall(b"GET /sleep/0.2 HTTP/1.1\r\nHost: a\r\n\r\n")
    wait_for(lambda: any(worker["busy"] for worker in srvd.serving()))
    with ThreadPoolExecutor(12) as pool:
        answers = pool.map(_whole_answer, clients)
        assert srvd.stop() == 0
        assert [answer.split(b"\r\n")[0] for answer in answers] == [b"HTTP/1.1 200 OK"] * 12


def _whole_answer(client: socket.socket) -> bytes:
    """Everything up to the end of the connection; what was asked for is a body that begins with `one`."""
    answer = b""
    with client:
        while chunk := client.recv(65536):
            answer += chunk
    assert b"\r\n\r\none web/1#" in answer
    return answer


def test_stop_under_keep_alive_load_loses_no_request_that_was_accepted(srvd: Srvd) -> None:
    """The same for clients that go on asking: each connection ends with an answer that says so."""
    with srvd.under_load() as load:
        address = load.address
        stop = srvd.ctl("stop")
        load.over.set()
    assert stop.returncode == 0
    assert srvd.wait() == 0
    # Whoever connected after the stop is refused, or waits in vain: nobody who was let in lost a request.
    assert [failure for failure in load.failed if failure.holder] == []
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(address, timeout=5)
    assert not os.path.exists(srvd.socket)
