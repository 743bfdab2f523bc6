"""Claims about what the daemon performs: forks, words, kills and ends, told once each; nothing leaks."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from srvd.core.actions import Fork, KillWorker, KillZygote, StopZygote, TellWorker, WorkerCommand
from srvd.core.events import (
    ForkRefused,
    WorkerForked,
    WorkerGone,
    WorkerReport,
    WorkerSaid,
    ZygoteFailed,
    ZygoteGone,
    ZygoteLoaded,
)
from srvd.core.model import Death
from srvd.daemon.children import workers
from srvd.daemon.children.stack_file import Trace
from srvd.ids import GenerationId, WorkerId
from srvd.linux.processes import procfs
from srvd.linux.processes.process import raise_open_files
from srvd.wire import links
from tests.support.performer import GOOD, Stage, open_fds
from tests.support.waiting import wait_for


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    stage.close()


SLOW = """
import time

def app(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        time.sleep(1000)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


def ask(address: tuple[str, int], path: str = "/") -> socket.socket:
    client = socket.create_connection(address, timeout=5)
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    return client


def answer(stage: Stage, client: socket.socket) -> bytes:
    client.setblocking(False)
    received = b""

    def all_of_it() -> bool:
        nonlocal received
        try:
            chunk = client.recv(65536)
        except BlockingIOError:
            return False
        received += chunk
        return not chunk

    stage.until(all_of_it)
    client.close()
    return received


def test_a_worker_is_forked_ready_serves_drains_and_leaves(stage: Stage) -> None:
    generation = stage.load()
    worker = stage.fork(generation, 1)
    address = stage.serve(worker)
    assert answer(stage, ask(address)).endswith(b"ok")
    stage.performer.perform(TellWorker(worker, WorkerCommand.DRAIN, 5.0))
    death = stage.gone(worker).death
    assert (death.exit_code, death.signal, death.requests, death.request_line) == (0, None, 1, "")
    kinds = [type(event).__name__ for event in stage.events if tuple(event)[:1] == (worker,)]
    assert (kinds[0], kinds[-1]) == ("WorkerForked", "WorkerGone")
    assert [said.word for said in stage.of(WorkerSaid, worker)] == [
        WorkerReport.READY,
        WorkerReport.SERVING,
        WorkerReport.CLOSED,
        WorkerReport.BYE,
    ]


def test_what_an_application_does_at_its_end_is_done_when_a_worker_leaves(stage: Stage) -> None:
    source = "import atexit, sys, threading\natexit.register(print, 'flushed', file=sys.stderr)\n"
    # A thread that nobody ends, started by the worker: it must not keep it.
    source += GOOD.replace("    start", "    threading.Thread(target=threading.Event().wait).start()\n    start", 1)
    worker = stage.fork(stage.load(source), 1)
    answer(stage, ask(stage.serve(worker)))
    stage.performer.perform(TellWorker(worker, WorkerCommand.DRAIN, 5.0))
    assert stage.gone(worker).death.exit_code == 0
    assert stage.log_of(worker).endswith("flushed")


def test_a_worker_that_boots_is_ended_with_its_link_and_by_no_order(stage: Stage) -> None:
    hanging = "import time\nopen('began', 'a').close()\nwhile True: time.sleep(1)\n"
    hung = stage.fork(stage.load(hanging, preload="off"), 1, ready=False)
    stage.until((stage.folder / "began").exists)
    process = stage.processes.workers._entries[hung].process
    process.close_link(stage.loop)
    assert stage.gone(hung).death.signal == signal.SIGKILL

    slow = "import os, time\nwhile not os.path.exists('go'): time.sleep(0.01)\n" + GOOD
    worker = stage.fork(stage.load(slow, preload="off"), 1, ready=False)
    stage.performer.perform(TellWorker(worker, WorkerCommand.REOPEN))
    (stage.folder / "go").touch()
    stage.until(lambda: stage.said(worker, WorkerReport.READY))
    stage.until(lambda: stage.said(worker, WorkerReport.REOPENED))
    assert not stage.of(WorkerGone, worker)


def test_a_probe_is_answered_by_the_application(stage: Stage) -> None:
    healthy = stage.fork(stage.load(health="/healthz"), 1)
    stage.performer.perform(TellWorker(healthy, WorkerCommand.PROBE, 5.0))
    assert stage.until(lambda: stage.said(healthy, WorkerReport.HEALTHY))
    source = "def app(environ, start_response):\n    start_response('500 Oh', [])\n    return []\n"
    ill = stage.fork(stage.load(source, health="/healthz"), 1)
    stage.performer.perform(TellWorker(ill, WorkerCommand.PROBE, 5.0))
    (said,) = stage.until(lambda: stage.said(ill, WorkerReport.UNHEALTHY))
    assert "/healthz" in said.text


def test_the_first_request_rings_when_nobody_watches(stage: Stage) -> None:
    worker = stage.fork(stage.load(), 1)
    address = stage.serve(worker)
    stage.bell.watching = True
    answer(stage, ask(address))
    assert stage.rung == 0
    stage.bell.watching = False
    answer(stage, ask(address))
    stage.until(lambda: stage.rung)


def test_a_killed_workers_certificate_names_its_request(stage: Stage) -> None:
    worker = stage.fork(stage.load(SLOW), 1)
    client = ask(stage.serve(worker), "/slow")
    stage.until(lambda: stage.processes.workers.facts(worker).busy)
    os.kill(stage.pid(worker), signal.SIGKILL)
    death = stage.gone(worker).death
    assert (death.exit_code, death.signal, death.out_of_memory) == (None, 9, False)
    assert "/slow" in death.request_line
    assert 0 < death.request_age < 10
    client.close()


def test_a_stuck_worker_leaves_its_stacks_when_it_is_killed(stage: Stage) -> None:
    worker = stage.fork(stage.load(SLOW), 1)
    client = ask(stage.serve(worker), "/slow")
    stage.until(lambda: stage.processes.workers.facts(worker).busy)
    stage.performer.perform(TellWorker(worker, WorkerCommand.DUMP))
    stage.until(lambda: "app1.py" in stage.log_of(worker))
    gone = stage.kill(worker, dump=True)
    assert gone.death.signal == signal.SIGKILL
    assert "in app" in gone.death.stacks
    assert "app1.py" not in gone.death.stderr  # that pipe is the application's
    assert stage.log_of(worker).count("in app") == 2  # as ordered, and before the kill
    assert stage.log_of(worker).count("srvd: in GET /slow for ") == 2
    client.close()


def test_a_worker_that_is_being_killed_leaves_its_stacks_to_the_next_program(stage: Stage) -> None:
    worker = stage.fork(stage.load(SLOW), 1)
    client = ask(stage.serve(worker), "/slow")
    stage.until(lambda: stage.processes.workers.facts(worker).busy)
    os.kill(stage.pid(worker), signal.SIGSTOP)  # so that it cannot answer before the other program is there
    stage.performer.perform(KillWorker(worker, dump=True))
    stage.hand_over()
    os.kill(stage.pid(worker), signal.SIGCONT)
    assert "in app" in stage.gone(worker).death.stacks
    assert stage.log_of(worker).count("in app") == 1
    client.close()


def test_what_a_worker_told_before_is_in_its_certificate_after_another_program_came(stage: Stage) -> None:
    worker = stage.fork(stage.load(SLOW), 1)
    client = ask(stage.serve(worker), "/slow")
    stage.until(lambda: stage.processes.workers.facts(worker).busy)
    stage.performer.perform(TellWorker(worker, WorkerCommand.DUMP))
    stage.until(lambda: "in app" in stage.log_of(worker))
    stage.hand_over()
    assert "in app" in stage.kill(worker).death.stacks
    client.close()


def test_a_zygote_that_is_being_killed_leaves_its_stacks_to_the_next_program(stage: Stage) -> None:
    generation = stage.start("import time\ntime.sleep(1000)\n")
    stage.until(lambda: "app1" in _stacks_of(stage, generation))
    pid = stage.zygote_pid(generation)
    os.kill(pid, signal.SIGSTOP)
    stage.performer.perform(KillZygote(generation, dump=True))
    stage.hand_over()
    os.kill(pid, signal.SIGCONT)
    assert "app1.py" in stage.gone(generation).stderr
    assert "app1.py" in stage.log_of(generation)


def _stacks_of(stage: Stage, generation: GenerationId) -> str:
    told: list[Trace] = []
    stage.processes.zygotes.ask_stacks(generation, 1.0, told.append)
    stage.until(lambda: told)
    return told[0].text


def test_the_last_order_of_a_worker_that_is_away_is_its_order_in_the_next_program_as_well(stage: Stage) -> None:
    worker = stage.fork(stage.load(), 1, ready=False)
    held = links.Drain(5.0, leaving=False, left_over=[])
    known = stage.processes.workers._entries[worker]
    stage.until(lambda: known.ready)
    known.pending = held  # as for one that was adopted, and has not come
    stage.hand_over()
    assert stage.processes.workers._entries[worker].pending == held


def test_a_worker_that_takes_no_signal_is_killed_all_the_same(stage: Stage) -> None:
    source = GOOD.replace("def app", "import os, signal\ndef app") + "\n"
    source = source.replace(
        "    start", "    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\n    start", 1
    )
    worker = stage.fork(stage.load(source), 1)
    answer(stage, ask(stage.serve(worker)))
    death = stage.kill(worker, dump=True).death
    assert (death.signal, death.stacks) == (signal.SIGKILL, "")
    assert "srvd: its stacks: it did not take the signal in time; it is sleeping" in stage.log_of(worker)


def test_what_a_killed_worker_started_ends_with_it(stage: Stage) -> None:
    source = "import subprocess, sys\n" + GOOD.replace(
        "    start", "    print(subprocess.Popen(['sleep', '1000']).pid, file=sys.stderr, flush=True)\n    start", 1
    )
    worker = stage.fork(stage.load(source), 1)
    client = ask(stage.serve(worker))
    stage.until(lambda: stage.log_of(worker))
    sleeper = int(stage.log_of(worker).splitlines()[0])
    answer(stage, client)
    stage.kill(worker)  # and its end is not waited for, though it holds the worker's stderr
    assert stage.until(stage.processes.reap) == [sleeper]


def test_the_tail_of_stderr_is_bounded_and_its_lines_are_told(stage: Stage) -> None:
    body = "    import os\n    for i in range(1000): os.write(2, b'%06d some words about it\\n' % i)\n"
    body += "    os.write(2, b'x' * 20000)\n    os._exit(5)\n"
    worker = stage.fork(stage.load("def app(environ, start_response):\n" + body), 1)
    client = ask(stage.serve(worker))
    death = stage.gone(worker).death
    assert death.exit_code == 5
    assert len(death.stderr) <= 4096
    told = [line for source, line in stage.lines if source == str(worker)]
    assert "000000 some words about it" in told
    assert "000999 some words about it" in told
    assert max(map(len, told)) == 8192
    assert sum(map(len, told)) == 26 * 1000 + 20000
    client.close()


def test_workers_of_a_killed_zygote_serve_on_and_their_ends_are_known(stage: Stage) -> None:
    generation = stage.load()
    first, second = stage.fork(generation, 1), stage.fork(generation, 2)
    address = stage.serve(first)
    os.kill(stage.zygote_pid(generation), signal.SIGKILL)
    assert stage.gone(generation).cause == "signal 9"
    assert answer(stage, ask(address)).endswith(b"ok")
    stage.performer.perform(TellWorker(first, WorkerCommand.DRAIN, 5.0))
    assert stage.gone(first).death.exit_code == 0
    os.kill(stage.pid(second), signal.SIGTERM)
    assert stage.gone(second).death.signal in (None, signal.SIGTERM)
    assert stage.gone(second).death != Death()
    stage.performer.perform(Fork(WorkerId(*generation, 3)))
    assert stage.of(ForkRefused, WorkerId(*generation, 3))[0].reason == "no zygote of it forks"


def test_a_worker_that_dies_with_its_zygote_is_told_once_with_its_status(stage: Stage) -> None:
    generation = stage.load()
    worker = stage.fork(generation, 1)
    zygote = stage.zygote_pid(generation)
    os.kill(zygote, signal.SIGSTOP)  # so that it does not reap
    os.kill(stage.pid(worker), signal.SIGKILL)
    os.kill(zygote, signal.SIGKILL)
    stage.gone(generation)
    assert stage.gone(worker).death.signal == 9
    stage.processes.reap()
    assert len(stage.of(WorkerGone, worker)) == 1


def test_a_silent_zygote_does_not_keep_a_death_secret(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "STATUS_PAUSE", 0.1)
    generation = stage.load()
    worker = stage.fork(generation, 1)
    os.kill(stage.zygote_pid(generation), signal.SIGSTOP)
    os.kill(stage.pid(worker), signal.SIGKILL)
    death = stage.gone(worker).death
    assert (death.exit_code, death.signal) == (None, None)
    os.kill(stage.zygote_pid(generation), signal.SIGCONT)
    stage.fork(generation, 2)
    assert len(stage.of(WorkerGone, worker)) == 1


def test_a_worker_that_ends_while_its_parent_is_looked_up_is_its_zygotes(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A zygote that told of a stranger would be killed."""
    code = "import os, time\nos.register_at_fork(after_in_child=lambda: (time.sleep(0.3), os._exit(9)))\n" + GOOD
    generation = stage.load(code, preload="on")
    parent = procfs.parent

    def when_it_has_ended(pid: int) -> int:
        wait_for(lambda: not os.path.exists(f"/proc/{pid}"))
        return parent(pid)

    monkeypatch.setattr(procfs, "parent", when_it_has_ended)
    worker = stage.fork(generation, 1, ready=False)
    assert stage.gone(worker).death.exit_code == 9
    assert not stage.of(ZygoteGone, generation)


def test_reaping_strangers_takes_no_status_from_those_that_are_known(stage: Stage) -> None:
    generation = stage.load()
    worker = stage.fork(generation, 1)
    zygote = stage.zygote_pid(generation)
    os.kill(zygote, signal.SIGKILL)
    os.waitid(os.P_PID, zygote, os.WEXITED | os.WNOWAIT)
    os.kill(stage.pid(worker), signal.SIGKILL)
    os.waitid(os.P_PID, stage.pid(worker), os.WEXITED | os.WNOWAIT)
    assert stage.processes.reap() == []
    assert [event.cause for event in stage.of(ZygoteGone, generation)] == ["signal 9"]
    assert stage.of(WorkerGone, worker)[0].death.signal == 9


def test_a_full_scoreboard_refuses_a_fork_and_frees_slots_of_the_dead(tmp_path: Path) -> None:
    stage = Stage(tmp_path, slots=1)
    generation = stage.load()
    first = stage.fork(generation, 1)
    second = WorkerId(*generation, 2)
    stage.performer.perform(Fork(second))
    assert "no free slot" in stage.of(ForkRefused, second)[0].reason
    stage.kill(first)
    third = stage.fork(generation, 3)
    assert stage.processes.workers.facts(third).requests == 0
    stage.close()


def test_a_zygote_that_does_not_listen_refuses_when_its_link_is_full(stage: Stage) -> None:
    raise_open_files()  # as the daemon does
    generation = stage.load()
    os.kill(stage.zygote_pid(generation), signal.SIGSTOP)
    asked = [WorkerId(*generation, serial) for serial in range(1, 251)]
    for worker in asked:
        stage.performer.perform(Fork(worker))
    os.kill(stage.zygote_pid(generation), signal.SIGKILL)
    stage.gone(generation)
    refused = [worker for worker in asked if stage.of(ForkRefused, worker)]
    # What the zygote took with it is answered by its end; a fork is never both refused and made.
    assert not any(stage.of(WorkerForked, worker) for worker in asked)
    assert all(event.reason == "its zygote does not listen" for w in refused for event in stage.of(ForkRefused, w))
    stage.until(lambda: all(stage.of(WorkerGone, worker) for worker in asked if stage.of(WorkerForked, worker)))
    assert not stage.commons._of


def test_two_hundred_workers_are_forked_and_ended(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    generation = stage.load()
    asked = [WorkerId(*generation, serial) for serial in range(1, 201)]
    began = time.monotonic()
    for worker in asked:
        stage.performer.perform(Fork(worker))
    stage.until(lambda: all(stage.said(worker, WorkerReport.READY) for worker in asked), within=60)
    took = time.monotonic() - began
    began = time.monotonic()
    sizes = [stage.processes.workers.rss(worker) for worker in asked]
    first = time.monotonic() - began
    began = time.monotonic()
    for worker in asked:
        stage.processes.workers.rss(worker)
        stage.processes.workers.facts(worker)
    again = time.monotonic() - began
    assert min(sizes) > 1 << 20
    for worker in asked:
        stage.performer.perform(KillWorker(worker))
    stage.until(lambda: all(stage.of(WorkerGone, worker) for worker in asked), within=60)
    figures = f"200 forks to READY: {took:.2f} s, {took * 5:.1f} ms each; rss of 200: {first * 1e3:.1f} ms"
    with capsys.disabled():
        print(f"\n{figures}; rss and scoreboard again: {again * 1e3:.2f} ms")  # noqa: T201 - the figure is the point


def test_cycles_of_spawn_and_kill_leak_no_descriptor(stage: Stage) -> None:
    counts = []
    for _ in range(4):
        generation = stage.load()
        for serial in range(1, 4):
            worker = stage.fork(generation, serial)
            stage.processes.workers.rss(worker)
            stage.kill(worker)
        stage.performer.perform(KillZygote(generation))
        stage.gone(generation)
        failed = stage.start("1 / 0")
        stage.gone(failed)
        counts.append(len(open_fds()))
    listeners = 2  # each revision of this stage names the same address, so there is one socket
    assert max(counts) - min(counts) < listeners


def test_a_fork_before_the_application_is_loaded_is_refused_and_harms_nobody(stage: Stage) -> None:
    generation = stage.start("import time\ntime.sleep(0.3)\n" + GOOD)
    early = WorkerId(*generation, 1)
    stage.performer.perform(Fork(early))
    assert stage.of(ForkRefused, early)[0].reason == "no zygote of it forks"
    stage.until(lambda: stage.of(ZygoteLoaded, generation))
    stage.fork(generation, 2)


def test_a_zygote_out_of_descriptors_refuses_and_goes_on(stage: Stage) -> None:
    source = """
import os, resource
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
lowest = os.dup(0)
os.close(lowest)
resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 20, hard))
"""
    generation = stage.load(source + GOOD)
    asked = [WorkerId(*generation, serial) for serial in range(1, 40)]
    for worker in asked:
        stage.performer.perform(Fork(worker))
    stage.until(lambda: all(stage.of(ForkRefused, w) or stage.of(WorkerForked, w) for w in asked))
    forked = [w for w in asked if stage.of(WorkerForked, w)]
    assert 0 < len(forked) < len(asked)
    stage.kill(forked[0])
    stage.until(lambda: stage.of(WorkerGone, forked[0]))
    stage.fork(generation, 99, ready=False)


def test_actions_on_what_is_gone_do_nothing(stage: Stage) -> None:
    generation = stage.load()
    worker = stage.fork(generation, 1)
    stage.kill(worker)
    for action in (
        KillWorker(worker, dump=True),
        TellWorker(worker, WorkerCommand.SERVE),
        TellWorker(worker, WorkerCommand.DUMP),
    ):
        stage.performer.perform(action)
    stage.performer.perform(KillZygote(generation))
    stage.gone(generation)
    for last in (KillZygote(generation, dump=True), StopZygote(generation)):
        stage.performer.perform(last)
    assert len(stage.of(WorkerGone, worker)) == len(stage.of(ZygoteGone, generation)) == 1


def test_from_start_to_loaded_to_ready_takes_few_milliseconds(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    loaded, ready = [], []
    for _ in range(5):
        began = time.monotonic()
        generation = stage.load()
        loaded.append(time.monotonic() - began)
        for serial in (1, 2):
            began = time.monotonic()
            stage.fork(generation, serial)
            ready.append(time.monotonic() - began)
    assert not any(isinstance(event, ZygoteFailed) for event in stage.events)
    with capsys.disabled():
        print(f"\nStartZygote to ZygoteLoaded: {_figures(loaded)}; Fork to READY: {_figures(ready)}")  # noqa: T201 - as above


def _figures(seconds: list[float]) -> str:
    ordered = sorted(value * 1e3 for value in seconds)
    return f"least {ordered[0]:.1f}, median {ordered[len(ordered) // 2]:.1f} ms"
