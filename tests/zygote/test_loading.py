"""Claims about zygotes: what they load, what they say when they cannot, and what they leave alone."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from srvd.core.actions import KillZygote, StopZygote, Teach
from srvd.core.events import WorkerReport, ZygoteFailed, ZygoteLearned, ZygoteLoaded
from srvd.core.model import ErrorCode, Fault
from srvd.ids import GenerationId
from srvd.wire import links
from tests.support.performer import GOOD, Stage
from tests.support.waiting import wait_for


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    stage.close()


def fault(stage: Stage, generation: GenerationId) -> Fault:
    """Why it failed; nothing else may have been said about loading."""
    (failed,) = stage.until(lambda: stage.of(ZygoteFailed, generation))
    assert not stage.of(ZygoteLoaded, generation)
    stage.gone(generation)
    assert len(stage.of(ZygoteFailed, generation)) == 1
    return failed.fault


def test_a_good_application_is_preloaded_without_a_word(stage: Stage) -> None:
    generation = stage.load()
    (loaded,) = stage.of(ZygoteLoaded, generation)
    assert loaded == ZygoteLoaded(generation, True, (), loaded.at, str(stage.folder))
    assert stage.log_of(generation) == ""


def test_an_import_that_raises_is_told_with_its_traceback(stage: Stage) -> None:
    found = fault(stage, stage.start("import json\n1 / 0\n"))
    assert (found.code, found.step, found.pool) == (ErrorCode.LOAD_FAILED, "load", "web")
    assert "ZeroDivisionError: division by zero" in found.message
    assert "1 / 0" in found.traceback


def test_a_missing_module_is_told_with_what_to_check(stage: Stage) -> None:
    found = fault(stage, stage.start(app="no.such.module:app"))
    assert "No module named" in found.message
    assert "pythonpath" in found.hint


@pytest.mark.parametrize("call", ["sys.exit(0)", "sys.exit('no licence')", "raise SystemExit(3)"])
def test_an_application_that_exits_while_it_is_imported_has_failed(stage: Stage, call: str) -> None:
    generation = stage.start(f"import sys\n{call}\n")
    assert "SystemExit" in fault(stage, generation).message
    assert stage.gone(generation).cause == "exit 1"


def test_an_application_that_ends_the_process_leaves_its_last_words(stage: Stage) -> None:
    generation = stage.start("import os, sys\nprint('no licence found', file=sys.stderr, flush=True)\nos._exit(0)\n")
    found = fault(stage, generation)
    assert "ended while it was loaded (exit 0)" in found.message
    assert found.traceback == "no licence found\n"
    assert stage.log_of(generation) == "no licence found"


def test_an_application_that_crashes_the_interpreter_leaves_its_stack(stage: Stage) -> None:
    found = fault(stage, stage.start("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n"))
    assert "signal 11" in found.message
    assert "Fatal Python error" in found.traceback


def test_an_import_that_hangs_says_where_and_is_killed(stage: Stage) -> None:
    generation = stage.start("import time, sys\nprint('here', file=sys.stderr, flush=True)\ntime.sleep(1000)\n")
    stage.until(lambda: "here" in stage.log_of(generation))
    stage.performer.perform(KillZygote(generation, dump=True))
    gone = stage.gone(generation)
    assert gone.cause == "signal 9"
    assert "app1.py" in gone.stderr
    assert "line 3" in gone.stderr
    assert not stage.of(ZygoteFailed, generation)


def test_a_zygote_that_is_stopped_while_it_loads_ends_at_once(stage: Stage) -> None:
    generation = stage.start("import time, sys\nprint('here', file=sys.stderr, flush=True)\ntime.sleep(1000)\n")
    stage.until(lambda: "here" in stage.log_of(generation))
    stage.performer.perform(StopZygote(generation))
    assert stage.gone(generation).cause == "signal 9"
    assert not stage.of(ZygoteFailed, generation)


def test_what_an_import_started_ends_with_the_zygote_that_is_killed(stage: Stage) -> None:
    source = """
import subprocess, sys, time
print(subprocess.Popen(["sleep", "1000"]).pid, file=sys.stderr, flush=True)
time.sleep(1000)
"""
    generation = stage.start(source)
    sleeper = int(stage.until(lambda: stage.log_of(generation)))
    stage.performer.perform(KillZygote(generation))
    assert stage.gone(generation).cause == "signal 9"
    stage.until(stage.processes.reap)
    assert not os.path.exists(f"/proc/{sleeper}")


THREADS = """
import threading
threading.Thread(target=threading.Event().wait, name="poller", daemon=True).start()
from threading import active_count

def app(environ, start_response):
    start_response("200 OK", [])
    return [b"%d" % active_count()]
"""

CONNECTED = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname())

def app(environ, start_response):
    start_response("200 OK", [])
    return [b""]
"""


def test_threads_left_behind_are_named_and_not_preloaded(stage: Stage) -> None:
    generation = stage.load(THREADS)
    (loaded,) = stage.of(ZygoteLoaded, generation)
    assert not loaded.preloaded
    assert "loading app1:app left 1 thread (poller) behind" in loaded.notes[0]
    # The zygote itself is clean again, as is each worker before it loads: the thread runs in the worker.
    assert len(os.listdir(f"/proc/{stage.zygote_pid(generation)}/task")) == 1
    worker = stage.fork(generation, 1)
    assert len(os.listdir(f"/proc/{stage.pid(worker)}/task")) >= 2


def test_connections_left_behind_are_named_and_not_preloaded(stage: Stage) -> None:
    generation = stage.load(CONNECTED)
    (loaded,) = stage.of(ZygoteLoaded, generation)
    assert not loaded.preloaded
    assert "connected socket" in loaded.notes[0]
    assert "to 127.0.0.1:" in loaded.notes[0]
    stage.fork(generation, 1)


def test_a_fresh_zygote_does_not_have_what_the_tainted_one_changed(stage: Stage) -> None:
    source = f"import os\nos.environ['LEFT'] = 'x'\nos.chdir('/')\nos.umask(0o77)\n{THREADS}"
    generation = stage.load(source)
    pid = stage.zygote_pid(generation)
    assert "LEFT=x" not in Path(f"/proc/{pid}/environ").read_text()
    assert os.readlink(f"/proc/{pid}/cwd") == str(stage.folder)
    assert "Umask:\t0077" not in Path(f"/proc/{pid}/status").read_text()


def test_preload_on_keeps_the_application_and_says_what_will_miss(stage: Stage) -> None:
    generation = stage.load(THREADS, preload="on")
    (loaded,) = stage.of(ZygoteLoaded, generation)
    assert loaded.preloaded
    assert "which no worker will have" in loaded.notes[0]


def test_preload_off_loads_nothing_in_the_zygote(stage: Stage) -> None:
    generation = stage.load("raise RuntimeError('not today')", preload="off")
    (loaded,) = stage.of(ZygoteLoaded, generation)
    assert loaded == ZygoteLoaded(generation, False, (), loaded.at, str(stage.folder))
    worker = stage.fork(generation, 1, ready=False)
    (failed,) = stage.until(lambda: stage.said(worker, WorkerReport.FAILED))
    assert "RuntimeError: not today" in failed.text
    assert stage.gone(worker).death.exit_code == 1


def test_threads_that_were_joined_and_datagram_sockets_do_no_harm(stage: Stage) -> None:
    source = """
import socket, threading
threads = [threading.Thread(target=str) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
log = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
log.connect(("127.0.0.1", 9))
"""
    generation = stage.load(source + GOOD)
    assert stage.of(ZygoteLoaded, generation)[0].preloaded


def test_the_folder_and_the_python_path_come_before_all_others(stage: Stage) -> None:
    (stage.folder / "extra").mkdir()
    (stage.folder / "extra" / "json.py").write_text("WHOSE = 'ours'")
    (stage.folder / "extra" / "both.py").write_text("WHOSE = 'extra'")
    stage.write("both", "WHOSE = 'folder'")
    source = """
import sys
sys.modules.pop("json", None)
import json, both
print(json.WHOSE, both.WHOSE, sys.argv[1:], file=sys.stderr)
"""
    generation = stage.load(source + GOOD, pythonpath=(str(stage.folder / "extra"),))
    stage.until(lambda: stage.log_of(generation) == "ours folder []")


def test_the_working_folder_shadows_nothing_that_the_zygote_is_made_of(stage: Stage) -> None:
    stage.write("socket", "raise RuntimeError('shadowed')")
    stage.write("msgpack", "raise RuntimeError('shadowed')")
    stage.load()


def test_the_pools_environment_is_the_applications(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/notify")
    monkeypatch.setenv("INHERITED", "yes")
    source = """
import os, sys
print(*(os.environ.get(name) for name in ("ADDED", "INHERITED", "NOTIFY_SOCKET")), file=sys.stderr)
"""
    generation = stage.load(source + GOOD, env={"ADDED": "a"})
    stage.until(lambda: stage.log_of(generation) == "a yes None")


def test_a_folder_that_is_not_there_is_named(stage: Stage) -> None:
    found = fault(stage, stage.start(chdir="/no/such/folder"))
    assert found.message.startswith("change to /no/such/folder: No such file")
    assert found.hint == "correct `chdir`"


def test_an_unknown_user_is_named_before_anything_is_loaded(stage: Stage) -> None:
    generation = stage.start("print('loaded', flush=True)\n", user="no-such-user")
    assert "no such user" in fault(stage, generation).message


def test_an_interpreter_that_is_not_there_is_named(stage: Stage) -> None:
    generation = stage.start(python="/no/such/python")
    found = fault(stage, generation)
    assert "start /no/such/python for web@1: No such file" in found.message
    assert stage.gone(generation).cause == "never started"


def test_an_interpreter_without_srvd_is_told_how_to_get_it(stage: Stage, tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {os.path.realpath(sys.executable)} -S -E "$@"\n')  # no site-packages
    bare.chmod(0o755)
    found = fault(stage, stage.start(python=str(bare)))
    assert "srvd is not installed there" in found.message
    assert f"{bare} -m pip install PATH_TO_SRVD" in found.hint


def test_an_interpreter_that_is_too_old_is_told(stage: Stage, tmp_path: Path) -> None:
    old = tmp_path / "python"
    old.write_text('#!/bin/sh\necho "unknown option -P" >&2\nexit 2\n')
    old.chmod(0o755)
    assert "older than Python 3.11" in fault(stage, stage.start(python=str(old))).message


def test_a_zygote_that_speaks_nonsense_is_not_believed(stage: Stage, tmp_path: Path) -> None:
    other = tmp_path / "python"
    other.write_text(
        f"#!{sys.executable}\nimport socket, time\nsocket.socket(fileno=3).send(b'hello')\ntime.sleep(1000)\n"
    )
    other.chmod(0o755)
    found = fault(stage, stage.start(python=str(other)))
    assert "was not understood" in found.message
    assert "install srvd" in found.hint


def test_an_application_may_close_descriptors_and_spoil_signals(stage: Stage) -> None:
    source = """
import os, signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.signal(signal.SIGTERM, lambda *_: None)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGTERM})
"""
    generation = stage.load(source + GOOD)
    worker = stage.fork(generation, 1)
    os.kill(stage.pid(worker), 9)
    assert stage.gone(worker).death.signal == 9
    closing = stage.start("import os\nos.closerange(3, 100)\n" + GOOD)
    assert "ended while it was loaded" in fault(stage, closing).message


HELD_UP = """
import os, time
open("began", "w").close()
while not os.path.exists("go"):
    time.sleep(0.01)
"""


def _say_meanwhile(stage: Stage, generation: GenerationId) -> None:
    """A message arrives while the zygote runs foreign code. The kernel may also raise the signal of its arrival only
    after the zygote has read it.
    """
    wait_for((stage.folder / "began").exists)
    zygote = stage.processes.zygotes.find(generation)
    assert zygote is not None
    assert zygote.process.say(links.Introduce())
    (stage.folder / "go").touch()


def test_a_message_that_arrives_during_the_load_does_not_end_the_zygote(stage: Stage) -> None:
    generation = stage.start(HELD_UP + GOOD)
    _say_meanwhile(stage, generation)
    stage.until(lambda: stage.of(ZygoteLoaded, generation))


def _learning(stage: Stage) -> GenerationId:
    generation = stage.load()
    stage.write("late", HELD_UP)
    stage.performer.perform(Teach(generation, ("late",)))
    return generation


def test_a_message_that_arrives_while_it_learns_does_not_end_the_zygote(stage: Stage) -> None:
    generation = _learning(stage)
    _say_meanwhile(stage, generation)
    stage.until(lambda: stage.of(ZygoteLearned, generation))


def test_a_zygote_that_learns_is_killed_if_it_has_to_leave(stage: Stage) -> None:
    generation = _learning(stage)
    wait_for((stage.folder / "began").exists)
    stage.performer.perform(StopZygote(generation))
    assert "signal 9" in stage.gone(generation).cause


def test_a_zygote_leaves_when_the_daemon_is_gone(stage: Stage) -> None:
    generation = stage.load()
    stage.performer.perform(StopZygote(generation))
    assert stage.gone(generation).cause == "exit 0"


def test_ids_of_a_terminal_do_not_reach_it(stage: Stage) -> None:
    generation = stage.load()
    pid = stage.zygote_pid(generation)
    worker = stage.fork(generation, 1)
    assert os.getsid(pid) == pid
    assert os.getsid(stage.pid(worker)) == stage.pid(worker)
    title = wait_for(lambda: Path(f"/proc/{stage.pid(worker)}/cmdline").read_text().strip("\0 "))
    assert title.startswith("srvd: ")
    assert "web/1#1" in title
    assert Path(f"/proc/{pid}/cmdline").read_text().startswith("srvd: zygote web@1")


def test_scores_offer_workers_to_the_oom_killer_before_zygotes(stage: Stage) -> None:
    generation = stage.load()
    worker = stage.fork(generation, 1)
    assert Path(f"/proc/{stage.zygote_pid(generation)}/oom_score_adj").read_text() == "100\n"
    assert Path(f"/proc/{stage.pid(worker)}/oom_score_adj").read_text() == "500\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_an_application_never_runs_as_root_where_its_pool_has_a_user(stage: Stage) -> None:
    """Not while it is loaded, either. The zygote can still see what loading has left behind."""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to other users
        os.chmod(folder, 0o755)
        Path(folder, "app.py").write_text("import os\nassert os.getuid() == 65534\ndef app(e, s): return []\n")
        generation = stage.load(user="nobody", umask="0027", chdir=folder, app="app:app")
    worker = stage.fork(generation, 1)
    status = Path(f"/proc/{stage.pid(worker)}/status").read_text()
    assert "Uid:\t65534\t65534\t65534\t65534" in status
    assert "Umask:\t0027" in status
    zygote = Path(f"/proc/{stage.zygote_pid(generation)}/status").read_text()
    assert "Uid:\t65534\t65534\t65534\t65534" in zygote
    assert "Umask:\t0027" in zygote


def test_a_worker_holds_only_what_is_its_own(stage: Stage) -> None:
    """Its std streams, link, epoll and the like – and not its siblings' links, nor the zygote's."""
    generation = stage.load()
    first = stage.fork(generation, 1)
    counts = []
    for serial in range(2, 6):
        worker = stage.fork(generation, serial)
        counts.append(len(os.listdir(f"/proc/{stage.pid(worker)}/fd")))
    assert set(counts) == {len(os.listdir(f"/proc/{stage.pid(first)}/fd"))}
    shared = {
        os.readlink(f"/proc/{stage.pid(worker)}/fd/{fd}")
        for worker in (first,)
        for fd in os.listdir(f"/proc/{stage.pid(worker)}/fd")
    } & {
        os.readlink(f"/proc/{stage.zygote_pid(generation)}/fd/{fd}")
        for fd in os.listdir(f"/proc/{stage.zygote_pid(generation)}/fd")
    }
    sockets = {name for name in shared if name.startswith("socket:")}
    listening = {os.readlink(f"/proc/self/fd/{sock.fileno()}") for _, sock in stage.listeners.of(stage._revision, ())}
    assert sockets == listening


def test_an_interpreter_is_found_by_name_and_given_the_application(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapper = tmp_path / "other-python"
    wrapper.write_text(f'#!/bin/sh\necho "with $1 $2" >&2\nexec {sys.executable} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    generation = stage.load(python="other-python")
    assert stage.log_of(generation) == "with -P -c"


def test_a_zygote_inherits_nothing_of_the_daemon_but_what_it_is_given(stage: Stage) -> None:
    generation = stage.load()
    folder = f"/proc/{stage.zygote_pid(generation)}/fd"
    of_the_shell = {int(fd) for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")}
    of_the_shell = {fd for fd in of_the_shell if fd > 2 and os.get_inheritable(fd)}

    def names() -> list[str]:
        held = {int(fd) for fd in os.listdir(folder)} - of_the_shell - {1}
        return sorted(os.readlink(f"{folder}/{fd}").partition(":")[0] for fd in held)

    # stdin, the scoreboard, the bell, their mappings, the file for stacks, epoll, nudge, stderr, the pipe for SIGCHLD,
    # the lifeline to hold, the link and one listener
    own = ["/dev/null", *["/memfd"] * 5, *["anon_inode"] * 2, *["pipe"] * 4, "socket", "socket"]
    stage.until(lambda: names() == own)
