"""Claims about what loading leaves behind besides data: threads of C code, signal handlers, timers, processes."""

from __future__ import annotations

import ctypes.util
import importlib.util
from pathlib import Path

import pytest

from tests.conftest import Starter
from tests.support.daemon import toml
from tests.support.fault import under_load
from tests.support.waiting import stays

pytestmark = pytest.mark.system

GATHER = """
def app(environ, start_response):
    body = b"one %s 0" % environ["srvd.worker"].encode()
    if environ["PATH_INFO"] == "/ask":
        body = answer().encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"""

BLAS = {
    "numpy": (
        "import numpy\nm = numpy.arange(40000.0).reshape(200, 200) / 1e4\n"
        "def product():\n    return float((m @ m).sum())\n"
    ),
    "scipy": (
        "import numpy, scipy.linalg\nm = numpy.arange(40000.0).reshape(200, 200) / 1e4 + numpy.eye(200)\n"
        "def product():\n    return float(scipy.linalg.lu(m)[2].sum() + (m @ m).sum())\n"
    ),
    "pandas": (
        "import numpy, pandas\nf = pandas.DataFrame(numpy.arange(40000.0).reshape(200, 200) / 1e4)\n"
        "def product():\n    return float(f.dot(f).to_numpy().sum())\n"
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("package", ["numpy", pytest.param("scipy", marks=pytest.mark.long), "pandas"])
def test_threads_of_openblas_do_not_keep_an_application_from_being_preloaded(starter: Starter, package: str) -> None:
    """They end before a fork and come again. Matrices are multiplied in the zygote and, under load, in all workers: by
    one request of eight, because threads of OpenBLAS wait for each other by turning, which takes 50 times as long on a
    busy machine.
    """
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    code = BLAS[package] + (
        "first = product()\nimport itertools, os\nbefore = len(os.listdir('/proc/self/task'))\n"
        "requests = itertools.count()\n"
        "def answer():\n    same = all(abs(product() / first - 1) < 1e-9 for _ in range(3))\n"
        "    return f'{before > 1} {same}'\n"
        "def app(environ, start_response):\n"
        "    body = b'one %s 0' % environ['srvd.worker'].encode()\n"
        "    if environ['PATH_INFO'] == '/ask':\n        body = answer().encode()\n"
        "    elif next(requests) % 8 == 0:\n        product()\n"
        "    start_response('200 OK', [('Content-Type', 'text/plain'), ('Content-Length', str(len(body)))])\n"
        "    return [body]\n"
    )
    env = {"OPENBLAS_NUM_THREADS": "2"}
    srvd = starter(config=toml("workers = 2\nthreads = 2"), code=code, env=env)
    assert srvd.pool()["preloaded"]
    assert "behind" not in srvd.logged()
    with under_load(srvd, f"a reload of {package} after a product") as fault:
        assert srvd.get("/ask") == "True True"
        srvd.ctl("reload")
        assert srvd.get("/ask") == "True True"
    assert fault.lost() == []
    assert "worker died" not in srvd.logged()


NUMBER = "import os\ndef answer():\n    return f'{os.getpid()}'\n"


def test_a_thread_of_c_code_is_named_by_the_library_that_it_belongs_to(starter: Starter) -> None:
    """OpenMP's threads do not cope with forks: its next parallel region would wait for them for ever."""
    if ctypes.util.find_library("gomp") is None:
        pytest.skip("libgomp is not installed")
    code = (
        "import ctypes\nwork = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda argument: None)\n"
        "ctypes.CDLL('libgomp.so.1').GOMP_parallel(work, None, 3, 0)\n"
    )
    srvd = starter(config=toml(), code=code + NUMBER + GATHER)
    assert not srvd.pool()["preloaded"]
    srvd.wait_logged("loading app:app left 2 threads (of libgomp, of libgomp) behind")


def test_a_thread_without_a_python_name_is_named_too(starter: Starter) -> None:
    code = "import faulthandler\nfaulthandler.dump_traceback_later(3600)\n"
    srvd = starter(config=toml('preload = "on"'), code=code + NUMBER + GATHER)
    srvd.wait_logged("left 1 thread (of Python) behind, which no worker will have")


def test_a_thread_that_begins_anew_in_each_child_does_not_keep_an_application_from_being_preloaded(
    starter: Starter,
) -> None:
    """As exporters of OpenTelemetry do."""
    code = (
        "import os, threading\n"
        "def begin():\n    threading.Thread(target=threading.Event().wait, name='exporter', daemon=True).start()\n"
        "begin()\nos.register_at_fork(after_in_child=begin)\n"
        "def answer():\n    return ','.join(sorted(one.name for one in threading.enumerate()))\n"
    )
    srvd = starter(config=toml(), code=code + GATHER)
    assert srvd.pool()["preloaded"]
    assert "behind" not in srvd.logged()
    assert srvd.get("/ask") == "MainThread,exporter"


@pytest.mark.parametrize("preload", ["auto", "off"])
def test_a_thread_that_a_sitecustomize_started_is_started_again_in_each_worker(starter: Starter, preload: str) -> None:
    srvd = starter.new(
        config=toml(f'workers = 2\npreload = "{preload}"\nenv = {{ PYTHONPATH = "agent" }}'),
        code="import threading\ndef answer():\n    return str([one.name for one in threading.enumerate()])\n" + GATHER,
    )
    _agent(srvd.folder)
    srvd.start()
    srvd.wait_logged("the start of the interpreter (sitecustomize, or a .pth file) left 1 thread (agent) behind, which")
    assert srvd.get("/ask") == "['MainThread', 'agent']"


def test_with_preload_on_a_thread_of_a_sitecustomize_is_named(starter: Starter) -> None:
    srvd = starter.new(config=toml('preload = "on"\nenv = { PYTHONPATH = "agent" }'), code=NUMBER + GATHER)
    _agent(srvd.folder)
    srvd.start()
    srvd.wait_logged("left 1 thread (agent) behind, which no worker will have: they do not survive a fork")
    assert srvd.pool()["preloaded"]


def _agent(folder: Path) -> None:
    (folder / "agent").mkdir()
    (folder / "agent" / "sitecustomize.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, name='agent', daemon=True).start()\n"
    )


LATE = """
import faulthandler, os, signal, time
class Late(Exception): ...
def on_alarm(number, frame): raise Late
signal.signal(signal.SIGALRM, on_alarm)
seen = []
signal.signal(signal.SIGUSR1, lambda number, frame: seen.append("usr1"))
signal.signal(signal.SIGTERM, lambda number, frame: seen.append("term"))
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2, signal.SIGTERM])
dumped = open("dumped", "wb", buffering=0)
faulthandler.register(signal.SIGHUP, dumped)
def answer():
    signal.alarm(1)
    try:
        time.sleep(60)
        text = "slept"
    except Late:
        text = "interrupted"
    finally:
        signal.alarm(0)
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGHUP)
    blocked = [number.name for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())]
    return f"{text} {seen} {signal.getsignal(signal.SIGCHLD)!r} {signal.getsignal(signal.SIGPIPE)!r} {blocked}"
"""


@pytest.mark.parametrize("preload", ["auto", "on", "off"])
def test_signal_handlers_of_loading_are_put_back_in_workers(starter: Starter, preload: str) -> None:
    """All but those of srvd's own signals, preloaded or not; SIGPIPE would end a worker whose client has gone."""
    srvd = starter(config=toml(f'preload = "{preload}"'), code=LATE + GATHER)
    assert srvd.pool()["preloaded"] == (preload != "off")
    same = "interrupted ['usr1'] <Handlers.SIG_IGN: 1> <Handlers.SIG_IGN: 1> ['SIGUSR2']"
    assert srvd.get("/ask") == same
    assert "Current thread" in (srvd.folder / "dumped").read_text()
    assert srvd.stop() == 0  # TERM is heard
    assert "died" not in srvd.logged()


def test_what_a_worker_starts_has_the_signals_that_it_expects(starter: Starter) -> None:
    code = (
        "import signal, subprocess, sys\nsignal.signal(signal.SIGALRM, lambda *a: None)\n"
        "def answer():\n    show = 'import signal; print(repr(signal.getsignal(signal.SIGALRM)))'\n"
        "    return subprocess.run([sys.executable, '-c', show], capture_output=True, text=True).stdout.strip()\n"
    )
    assert starter(config=toml(), code=code + GATHER).get("/ask") == "<Handlers.SIG_DFL: 0>"


TIMER = "import signal\nsignal.signal(signal.SIGALRM, lambda *a: None)\nsignal.{call}\n"


@pytest.mark.parametrize("call", ["setitimer(signal.ITIMER_REAL, 0.05, 0.05)", "alarm(1)"])
@pytest.mark.parametrize("preload", ["auto", "on"])
def test_a_timer_that_loading_set_ends_no_zygote(starter: Starter, preload: str, call: str) -> None:
    code = TIMER.format(call=call) + "def answer():\n    return str(signal.getitimer(signal.ITIMER_REAL)[0] > 0)\n"
    srvd = starter(config=toml(f'preload = "{preload}"'), code=code + GATHER)
    srvd.wait_logged("loading app:app left 1 timer (alarm or ITIMER_REAL) behind, which")
    assert srvd.pool()["preloaded"] == (preload == "on")
    (zygote,) = srvd.zygotes()
    assert stays(zygote.is_running, 1.5)
    assert srvd.pool()["generation"] == 1
    if "alarm" not in call:
        assert srvd.get("/ask") == str(preload == "auto")


def test_a_timer_that_is_due_while_loading_ends_disturbs_nothing(starter: Starter) -> None:
    """Its handler raises wherever the process is: the exception is for a call that is over."""
    code = (
        "import signal\nclass Late(Exception): ...\ndef on_alarm(*a): raise Late\n"
        "signal.signal(signal.SIGALRM, on_alarm)\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])\n"
        "signal.raise_signal(signal.SIGALRM)\n"
    )
    srvd = starter(config=toml('preload = "on"'), code=code + NUMBER + GATHER)
    assert srvd.pool()["preloaded"]


def test_posix_timers_and_wakeup_descriptors_of_loading_are_named(starter: Starter) -> None:
    code = (
        "import ctypes, os, signal\nsignal.signal(signal.SIGUSR1, lambda *a: None)\n"
        "read, write = os.pipe2(os.O_NONBLOCK)\nsignal.set_wakeup_fd(write)\n"
        "libc, timer = ctypes.CDLL(None), ctypes.c_void_p()\n"
        "event = (ctypes.c_char * 64)()\nctypes.memmove(ctypes.addressof(event) + 8, bytes([signal.SIGUSR1]), 1)\n"
        "assert libc.timer_create(0, event, ctypes.byref(timer)) == 0\n"
        "assert libc.timer_settime(timer, 0, (ctypes.c_long * 4)(0, 50_000_000, 0, 50_000_000), None) == 0\n"
    )
    srvd = starter(config=toml('preload = "on"'), code=code + NUMBER + GATHER)
    srvd.wait_logged("left 1 timer (timer_create, signal/pid.")
    srvd.wait_logged("and a wakeup descriptor of signals (set_wakeup_fd(")
    (zygote,) = srvd.zygotes()
    assert stays(zygote.is_running, 0.5)
