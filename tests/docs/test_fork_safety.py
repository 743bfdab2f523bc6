"""What docs/explain/fork-safety.md says of a fork, shown: threads, connections, random numbers, hooks, locks."""

from __future__ import annotations

import pytest

from tests.conftest import Starter
from tests.support.daemon import BOOT, Srvd, toml
from tests.support.fault import under_load
from tests.support.waiting import wait_for

pytestmark = pytest.mark.system

ANSWERS = """
def app(environ, start_response):
    body = answer().encode() if environ["PATH_INFO"] == "/ask" else b"one %s 0" % environ["srvd.worker"].encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"""


def _ask_each(srvd: Srvd) -> list[str]:
    """What each worker answers, by its name: asked as often as it takes to meet them all."""
    found: dict[str, str] = {}

    def ask() -> bool:
        worker, _, text = srvd.get("/ask").partition(" ")
        found.setdefault(worker, text)
        return set(found) == srvd.names()

    wait_for(ask, within=BOOT)
    return [text for _, text in sorted(found.items())]


NAMED = "import os\ndef worker():\n    return open('/proc/self/cmdline').read().split('worker ')[1].strip('\\0 ')\n"


def test_an_application_that_starts_threads_while_it_is_loaded_is_repaired_like_any_other(starter: Starter) -> None:
    """Each worker loads it, and has the thread; it takes as long as the import, and nobody loses a request."""
    thread = "import threading\nthreading.Thread(target=threading.Event().wait, name='poller', daemon=True).start()\n"
    code = NAMED + thread + "def answer():\n    return f'{worker()} {threading.active_count()}'\n" + ANSWERS
    srvd = starter(config=toml("workers = 2"), code=code)
    srvd.wait_logged("loading app:app left 1 thread (poller) behind, which would not survive a fork: each worker loads")
    assert _ask_each(srvd) == ["2", "2"]
    with under_load(srvd, "SIGKILL of a worker that loads the application itself") as fault:
        victim = fault.kills()
        fault.replaced(victim, 2)
    assert fault.lost() == []
    assert "killed by signal 9" in fault.why(victim)
    assert _ask_each(srvd) == ["2", "2"]


def test_a_lock_that_a_thread_holds_while_it_is_loaded_holds_up_no_worker(starter: Starter) -> None:
    """A fork would copy the lock and not who lets go of it. With `auto` nobody is forked out of such a process."""
    code = (
        "import threading, time\nLOCK = threading.Lock()\n"
        "def hold():\n    with LOCK:\n        time.sleep(0.5)\n"
        "threading.Thread(target=hold, daemon=True).start()\n"
        "def answer():\n    with LOCK:\n        return f'{worker()} mine'\n"
    )
    srvd = starter(config=toml("workers = 2"), code=NAMED + code + ANSWERS)
    assert _ask_each(srvd) == ["mine", "mine"]


def test_random_numbers_differ_between_workers_but_for_generators_that_were_made_before_the_fork(
    starter: Starter,
) -> None:
    """Python seeds `random` anew in a child; a generator of the application's own is its own affair."""
    answer = "def answer():\n    return f'{worker()} {random.random()} {OWN.random()}'\n"
    code = f"import random\nOWN = random.Random()\n{answer}"
    srvd = starter(config=toml("workers = 3"), code=NAMED + code + ANSWERS)
    assert srvd.pool()["preloaded"]
    answers = [text.split() for text in _ask_each(srvd)]
    assert len({shared for shared, _ in answers}) == 3
    assert len({own for _, own in answers}) == 1


def test_what_on_fork_opens_is_each_workers_own(starter: Starter) -> None:
    """The place for connections: after the fork, before anything is served."""
    code = "import random\nOWN = None\ndef answer():\n    return f'{worker()} {OWN.random()} {PID == os.getpid()}'\n"
    hooked = "import os, random, app\ndef on_fork(worker):\n    app.OWN, app.PID = random.Random(), os.getpid()\n"
    srvd = starter.new(config=toml('workers = 3\nhooks = "hooked"'), code=NAMED + code + ANSWERS)
    srvd.deploy(hooked, "hooked")
    srvd.start()
    assert srvd.pool()["preloaded"]
    answers = [text.split() for text in _ask_each(srvd)]
    assert len({own for own, _ in answers}) == 3
    assert {mine for _, mine in answers} == {"True"}


def test_a_connection_that_was_opened_at_import_is_named_and_each_worker_has_its_own(starter: Starter) -> None:
    code = (
        "import socket\n"
        "SERVER = socket.create_server(('127.0.0.1', 0))\n"
        "CLIENT = socket.create_connection(SERVER.getsockname())\n"
        "def answer():\n    return f'{worker()} {CLIENT.getsockname()[1]}'\n"
    )
    srvd = starter(config=toml("workers = 2"), code=NAMED + code + ANSWERS)
    assert not srvd.pool()["preloaded"]
    srvd.wait_logged("left 1 connected socket (to 127.0.0.1:")
    assert len(set(_ask_each(srvd))) == 2


def test_preload_on_forks_all_the_same_and_says_what_workers_lack(starter: Starter) -> None:
    thread = "import threading\nthreading.Thread(target=threading.Event().wait, name='poller', daemon=True).start()\n"
    tasks = "def answer():\n    return f'{worker()} {len(os.listdir(chr(47) + \"proc/self/task\"))}'\n"
    srvd = starter(config=toml('workers = 2\npreload = "on"'), code=NAMED + thread + tasks + ANSWERS)
    assert srvd.pool()["preloaded"]
    srvd.wait_logged("left 1 thread (poller) behind, which no worker will have: they do not survive a fork")
    assert _ask_each(srvd) == ["1", "1"]
