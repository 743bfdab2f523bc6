"""Rows of the rival's table that are about workers with several threads.

The docstrings quote the row: the scenario – what gunicorn 27.0.1 was seen to do.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import Starter
from tests.support.daemon import toml
from tests.support.waiting import wait_for

pytestmark = pytest.mark.system

THREADS = 4
CONFIG = toml(f'workers = 1\nthreads = {THREADS}\nrequest_timeout = "1s"\ndrain_timeout = "2s"')


def test_all_threads_of_a_worker_stuck_thread_worker(starter: Starter) -> None:
    """All threads of a worker stuck (thread worker) – never noticed; status says all is well."""
    srvd = starter(config=CONFIG)
    with ThreadPoolExecutor() as pool:
        for _ in range(THREADS):
            pool.submit(srvd.get, "/hang").add_done_callback(lambda stuck: stuck.exception())
        wait_for(lambda: srvd.serving()[0]["busy"] == THREADS)
        wait_for(lambda: srvd.names() == {"web/1#2"}, within=60)
        assert srvd.get().startswith("one web/1#2 ")
        wait_for(lambda: srvd.pool()["draining"] == 0, within=60)
    log = srvd.logged()
    assert log.count("in hang") >= THREADS  # the stack of each
    assert (
        log.index("has given nothing to GET /hang for 1 s")
        < log.index("worker web/1#2 ready")
        < log.index("web/1#1 left")
    )
    death = srvd.deaths(worker="web/1#1")[0]
    assert death["cause"] == "request_timeout"
    assert death["request"] == "GET /hang"
    assert "in hang" in death["stacks"]


def test_one_stuck_thread_of_a_worker(starter: Starter) -> None:
    """One thread stuck – the capacity is lost for good, and nobody is told. Here the others answer, the worker is
    replaced, and what runs in it is answered before it leaves.
    """
    srvd = starter(config=CONFIG)
    with ThreadPoolExecutor() as pool:
        pool.submit(srvd.get, "/hang").add_done_callback(lambda stuck: stuck.exception())
        wait_for(lambda: srvd.serving()[0]["busy"] == 1)
        assert srvd.get().startswith("one web/1#1 ")
        srvd.wait_logged("has given nothing to GET /hang for 1 s")
        wait_for(lambda: srvd.names() == {"web/1#2"})
        wait_for(lambda: srvd.pool()["draining"] == 0, within=60)
    assert srvd.deaths(worker="web/1#1")[0]["cause"] == "request_timeout"
    srvd.wait_logged("in hang")
