"""Claims about `srvctl` as a program: what it prints where, and which exit code says what."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from srvd import __version__
from srvd.client.find import Named
from srvd.client.reconnecting import ReconnectingClient
from srvd.ctl.commands import Asked, _interrupted
from srvd.ctl.stacks import stack_lines
from srvd.ctl.views import _strength
from srvd.errors import EXIT
from srvd.wire.codec import SCHEMA, encode
from srvd.wire.commands import COMMANDS, Command
from tests.daemon.control.test_bounds import connected
from tests.support.fake_daemon import pool
from tests.support.srvctl_process import run_srvctl
from tests.support.waiting import wait_for

SRVCTL = [sys.executable, "-c", "from srvd.ctl.main import main; main()"]


def environment(path: str, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "PYTHONPATH", "LANG")}
    return {**kept, "SRVD_SOCKET": path, "TERM": "xterm", "TZ": "UTC", **more}


class Daemon:
    """The fake daemon as a process, and `srvctl` to ask it."""

    def __init__(self, path: str, pools: list[dict[str, Any]] | None = None) -> None:
        self.path = path
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.fake_daemon", path, "shop"],
            stdout=subprocess.PIPE,
            text=True,
            env=environment(path, FAKE_POOLS=json.dumps(pools)),
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def ctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run_srvctl(arguments, environment(self.path))

    def json(self, *arguments: str) -> dict[str, Any]:
        done = self.ctl(*arguments, "--json")
        assert (done.returncode, done.stderr) == (0, "")
        answer = json.loads(done.stdout)
        assert answer["schema"] == SCHEMA
        return dict(answer)

    def close(self) -> None:
        self.process.terminate()
        self.process.communicate(timeout=10)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    running = Daemon(str(tmp_path_factory.mktemp("run") / "a.sock"))
    yield running
    running.close()


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("ping", EXIT.DONE),
        ("status", EXIT.DONE),
        ("reload", EXIT.DONE),
        ("reload broken", EXIT.FAILED),
        ("scale", EXIT.USAGE),
        ("scale eight", EXIT.USAGE),
        ("scale 8 web extra", EXIT.USAGE),
        ("scale --reset 8 web", EXIT.USAGE),
        ("scale 99999", EXIT.USAGE),
        ("scale --timeout 5parsecs 8", EXIT.USAGE),
        ("reload --wait 5s --no-wait", EXIT.USAGE),
        ("relaod", EXIT.USAGE),
        ("op", EXIT.USAGE),
        ("op show", EXIT.USAGE),
        ("op show x", EXIT.USAGE),
        ("workers --limit 0", EXIT.USAGE),
        ("events --topic nothing", EXIT.USAGE),
        ("-s a -n b ping", EXIT.USAGE),
        ("-n a/b ping", EXIT.USAGE),
        ("op show 999", EXIT.NOT_FOUND),
        ("op wait 999", EXIT.NOT_FOUND),
        ("pause nothing", EXIT.NOT_FOUND),
        ("dump web/3#404", EXIT.NOT_FOUND),
        ("scale 8 partial", EXIT.CHANGED),
        ("-s /nonexistent/a.sock ping", EXIT.NO_DAEMON),
        ("-s /nonexistent/a.sock status", EXIT.NOT_READY),
        ("scale 8 busy", EXIT.BUSY),
        ("reload invalid", EXIT.CONFIG),
        ("reload slow --wait 100ms", EXIT.WAITED),
        ("--version", EXIT.DONE),
    ],
)
def test_the_exit_code_says_how_it_went(daemon: Daemon, line: str, code: int) -> None:
    done = daemon.ctl(*line.split())
    assert done.returncode == code, done.stderr
    assert bool(done.stderr) == (code != 0)
    assert (done.stdout == "") == (code != 0)


@pytest.mark.parametrize("state", ["starting", "degraded", "crashing", "paused", "stopping"])
def test_status_exits_with_3_unless_every_pool_is_ready(tmp_path: Path, state: str) -> None:
    daemon = Daemon(str(tmp_path / "a.sock"), [pool(), pool("jobs", state)])
    try:
        done = daemon.ctl("status")
        assert done.returncode == EXIT.NOT_READY
        assert state in done.stdout
    finally:
        daemon.close()


@pytest.mark.parametrize(
    ("line", "args"),
    [
        ("scale 8", {"size": 8}),
        ("scale +2", {"delta": 2}),
        ("scale -2", {"delta": -2}),
        ("scale -12 web", {"delta": -12, "pool": "web"}),
        ("scale web2 --reset", {"reset": True, "pool": "web2"}),
        ("scale --reset", {"reset": True}),
        ("scale 0 --timeout 1m", {"size": 0, "timeout": 60.0}),
        ("reload --bake", {"bake": True}),
        ("reload web --timeout 500ms", {"pool": "web", "timeout": 0.5}),
        ("recycle web/3#17", {"worker": "web/3#17"}),
        ("recycle web", {"pool": "web"}),
        ("rollback", {}),
    ],
)
def test_what_is_typed_is_what_is_asked(daemon: Daemon, line: str, args: dict[str, Any]) -> None:
    sent = daemon.json(*line.split(), "--no-wait")["operation"]["args"]
    entry = next(entry for entry in COMMANDS if entry.name == line.split()[0])
    expected = {field.name: field.default for field in entry.fields} | args | {"wait": False}
    assert sent == expected


@pytest.mark.parametrize(
    "line", ["ping", "status", "workers", "why", "dump", "config", "history", "op list", "op show 1", "reload"]
)
def test_json_is_the_wires_result_in_one_line(daemon: Daemon, line: str) -> None:
    daemon.json("reload")
    assert daemon.json(*line.split())
    assert daemon.ctl("--json", *line.split()).stdout.count("\n") == 1


@pytest.mark.parametrize("line", ["op show 999", "relaod", "scale x", "-s /nonexistent ping", "reload broken"])
def test_with_json_an_error_is_json_on_stderr(daemon: Daemon, line: str) -> None:
    done = daemon.ctl(*line.split(), "--json")
    answer = json.loads(done.stderr)
    assert done.stdout == ""
    assert answer["schema"] == SCHEMA
    assert set(answer["error"]) == {"code", "message", "hint", "retryable", "detail"}


def test_a_failed_reload_prints_the_applications_traceback_and_steers_no_terminal(daemon: Daemon) -> None:
    done = daemon.ctl("reload", "broken")
    assert done.stdout == ""
    assert "ImportError: no \\x1b[31mred\\x1b[0m module\n" in done.stderr
    assert done.stderr.endswith("error: load web@4: ImportError (step: load)\n")


def test_a_dump_says_who_is_where_and_steers_no_terminal(daemon: Daemon) -> None:
    done = daemon.ctl("dump")
    assert done.stdout == (
        "worker web/3#7: serving, pid 1007, running\n"
        "  in GET /report\\x1b]0;owned\\x07 for 1 min 1 s\n"
        "  thread 0x7f01, the innermost call first:\n"
        "    /srv/shop/views\\x1b[31m.py:12 in report\n"
        "    ...\n"
        "  2 threads (0x7f02, 0x7f03 pool), the innermost call first:\n"
        "    /usr/lib/python3/threading.py:629 in wait\n"
        "    2 more, of srvd and of Python\n"
        "  outside of the application: worker/loop.py:100 in turn\n"
        "\n"
        "worker web/3#8: serving, pid 1008, stopped\n"
        "  no stacks: it is stopped, by SIGSTOP or a debugger: SIGCONT lets it go on\n"
        "\n"
    )
    assert done.stderr == "2 of 3; see more with --offset\n"


def test_op_wait_ends_like_the_order_itself(daemon: Daemon) -> None:
    op = str(daemon.json("reload", "broken", "--no-wait")["operation"]["id"])
    done = daemon.ctl("op", "wait", op)
    assert done.returncode == EXIT.FAILED
    assert "ImportError" in done.stderr


def test_op_wait_stops_waiting_after_its_timeout(daemon: Daemon) -> None:
    op = str(daemon.json("reload", "slow", "--no-wait")["operation"]["id"])
    done = daemon.ctl("op", "wait", op, "--timeout", "100ms")
    assert done.returncode == EXIT.WAITED
    assert f"srvctl op wait {op}" in done.stderr
    assert daemon.ctl("op", "cancel", op).returncode == EXIT.DONE


def test_what_comes_from_the_daemon_is_escaped_for_people(daemon: Daemon) -> None:
    for line in ("why", "workers", "events"):
        shown = daemon.ctl(line).stdout
        assert "\\x1b" in shown
        assert not any(char < " " and char not in "\n\t" for char in shown)
        assert not any("\x7f" <= char <= "\x9f" for char in shown)


def test_tables_have_columns_and_no_colours_where_no_terminal_is(daemon: Daemon) -> None:
    head, *rows = daemon.ctl("workers").stdout.splitlines()
    assert head.split()[:3] == ["WORKER", "PID", "STATE"]
    assert rows[0].split()[:3] == ["web/3#0", "1000", "serving"]
    assert head.index("STATE") == rows[0].index("serving")
    assert "\t" not in head
    assert "\x1b" not in "".join(rows)


def test_why_knows_one_worker_or_a_pool(daemon: Daemon) -> None:
    assert "killed by SIGKILL" in daemon.ctl("why", "web/3#7").stdout
    assert daemon.ctl("why", "web/3#8").stdout.startswith("no worker has died; ")
    assert "out of memory" in daemon.ctl("why", "web").stdout
    assert daemon.ctl("why", "web/2#1").stdout.count("\n") == 1  # left as it was told to: no riddle


def test_workers_that_left_alike_stand_together_and_hide_no_death(daemon: Daemon) -> None:
    shown = daemon.ctl("why").stdout
    (left,) = [line for line in shown.splitlines() if line.startswith("web/2#")]
    assert left.startswith("web/2#1, #2, #3: was told to leave (reload), ")
    assert shown.count("web/3#7 (pid 1007): killed by SIGKILL in a request") == 2


def test_the_stacks_of_a_death_are_shown_like_those_of_a_dump(daemon: Daemon) -> None:
    assert (
        "  stacks:\n"
        "    thread 0x7f01, the innermost call first:\n"
        "      /srv/shop/stock\\x1b[31m.py:61 in reserve\n"
        "      2 more, of srvd and of Python\n"
        "    outside of the application: worker/wsgi/scheduler.py:252 in _await_call\n"
    ) in daemon.ctl("why").stdout


def test_what_leads_to_the_applications_first_line_is_folded_also_where_it_is_imported() -> None:
    text = (
        'Thread 0x1 (most recent call first):\n  File "/srv/shop/views.py", line 2 in <module>\n'
        '  File "<frozen importlib._bootstrap>", line 241 in _call_with_frames_removed\n'
        '  File "/usr/lib/python3.11/importlib/__init__.py", line 126 in import_module\n'
        '  File "/opt/srvd/worker/application.py", line 48 in import_module\n'
        '  File "/opt/srvd/zygote/main.py", line 66 in live\n'
    )
    assert list(stack_lines(text)) == [
        "thread 0x1, the innermost call first:",
        "  /srv/shop/views.py:2 in <module>",
        "  4 more, of srvd and of Python",
    ]


def test_a_message_of_several_lines_is_told_in_several_lines(daemon: Daemon) -> None:
    assert daemon.ctl("reload", "invalid").stderr == (
        "error: 1 problem; nothing was changed\n  shop.toml:3: no wrokers; did you mean workers?\n"
    )


def test_settings_are_shown_as_they_stand_in_a_file(daemon: Daemon) -> None:
    rows = [re.split(r" {2,}", line)[:2] for line in daemon.ctl("config").stdout.splitlines()[1:]]
    assert rows == [
        ["pools.web.workers", "4"],
        ["pools.web.boot_timeout", '"60s"'],
        ["pools.web.max_body", '"1GiB"'],
        ["control.roles", '{ viewer = ["%adm"] }'],
    ]


def test_a_size_of_none_is_shown_beside_the_configured_one() -> None:
    assert _strength({**pool("web", wish=0), "override": 0}) == "0 (config 4)"
    assert _strength(pool()) == "4"


def test_a_done_order_says_what_is_true_now(daemon: Daemon) -> None:
    assert ": done after 1.5 s: 4 serving (operation " in daemon.ctl("scale", "4").stdout


def test_events_are_one_json_text_a_line(daemon: Daemon) -> None:
    lines = daemon.ctl("events", "--json", "--topic", "worker").stdout.splitlines()
    events = [json.loads(line) for line in lines]
    assert [event["topic"] for event in events] == ["worker"]
    assert events[0]["data"]["worker"] == "web/3#1"


def test_followed_events_come_as_they_happen_until_interrupted(daemon: Daemon) -> None:
    with subprocess.Popen(
        [*SRVCTL, "events", "-f", "--since", "-1"], env=environment(daemon.path), stdout=subprocess.PIPE, text=True
    ) as following:
        assert following.stdout is not None
        try:
            printed = following.stdout.fileno()
            wait_for(lambda: daemon.ctl("reload") and select.select([printed], [], [], 1)[0])
            assert any("operation" in line for line in following.stdout)
            following.send_signal(signal.SIGINT)
            following.wait(60)
        finally:
            following.kill()
    assert following.returncode == EXIT.INTERRUPTED


def test_a_reader_that_leaves_is_no_bug(daemon: Daemon) -> None:
    command = " ".join(f"'{word}'" for word in SRVCTL) + " workers | true"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], env=environment(daemon.path), capture_output=True, text=True
    )
    assert "Traceback" not in done.stderr
    assert "bug" not in done.stderr


def test_an_interrupt_says_that_the_operation_goes_on_and_how_to_follow_it(daemon: Daemon) -> None:
    def running() -> set[int]:
        return {entry["id"] for entry in daemon.json("op", "list")["operations"]}

    before = running()
    with subprocess.Popen(
        [*SRVCTL, "reload", "slow"], env=environment(daemon.path), stderr=subprocess.PIPE, text=True
    ) as waiting:
        try:
            (op,) = wait_for(lambda: running() - before)
            wait_for(lambda: _sleeps(waiting.pid))
            waiting.send_signal(signal.SIGINT)
            _, said = waiting.communicate(timeout=10)
        finally:
            waiting.kill()
    assert waiting.returncode == EXIT.INTERRUPTED
    assert f"operation {op} goes on" in said
    assert f"srvctl op wait {op}" in said
    assert daemon.json("op", "show", str(op))["operation"]["state"] == "running"


def test_an_interrupted_stop_is_told_how_to_hurry_it_not_how_to_take_it_back() -> None:
    line = SimpleNamespace(operation=3)
    (stop,) = [entry for entry in COMMANDS if entry.name == "stop"]
    (wait,) = [entry for entry in COMMANDS if entry.name == "op.wait"]
    told = _interrupted(cast(ReconnectingClient, line), Asked(stop, {}, Named(), as_json=False))
    assert told.message == "stop: interrupted; operation 3 goes on"
    assert "srvctl stop --now" in told.hint
    assert "cancel" not in told.hint
    assert _interrupted(cast(ReconnectingClient, line), Asked(wait, {}, Named(), as_json=False)).message.startswith(
        "op wait: "
    )


def _sleeps(pid: int) -> bool:
    return "\nState:\tS" in Path(f"/proc/{pid}/status").read_text()


def test_stop_returns_when_the_daemon_is_gone(tmp_path: Path) -> None:
    daemon = Daemon(str(tmp_path / "a.sock"))
    done = daemon.ctl("stop")
    assert done.stdout == f"srvd shop (pid {daemon.process.pid}) is gone\n"
    assert done.returncode == EXIT.DONE
    assert daemon.process.poll() == 0  # not in a moment: now
    assert os.listdir(tmp_path) == []
    daemon.close()


def test_stop_of_a_daemon_that_dies_meanwhile_is_done_too(tmp_path: Path) -> None:
    daemon = Daemon(str(tmp_path / "a.sock"))
    with subprocess.Popen([*SRVCTL, "stop"], env=environment(daemon.path), stdout=subprocess.DEVNULL) as stopping:
        daemon.process.kill()
        daemon.process.wait(10)
    assert stopping.returncode in (EXIT.DONE, EXIT.NO_DAEMON)  # killed before it was asked
    daemon.close()


def answer_once(path: Path, frame: bytes) -> threading.Thread:
    """A server that says one thing and ends."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        with listener:
            sock, _ = listener.accept()
            with sock:
                sock.sendall(frame)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("frame", "code", "said"),
    [
        (encode({"type": "hello", "protocol": 99, "version": "9.0"}), EXIT.PROTOCOL, "speaks protocol 99"),
        (b"HTTP/1.1 400 Bad Request\r\n", EXIT.PROTOCOL, "read a frame"),
        (encode({"type": "hello", "protocol": 1}), EXIT.PROTOCOL, "wrong type"),
        (
            encode({"type": "bye", "reason": "permission", "message": "uid 7 has no role here"}),
            EXIT.PERMISSION,
            "no role",
        ),
        (encode({"type": "bye", "reason": "busy", "message": "too many"}), EXIT.BUSY, "too many"),
        (b"", EXIT.NO_DAEMON, "without a word"),
    ],
)
def test_a_daemon_that_does_not_let_us_in_has_its_exit_code(tmp_path: Path, frame: bytes, code: int, said: str) -> None:
    serving = answer_once(tmp_path / "a.sock", frame)
    done = subprocess.run(
        [*SRVCTL, "ping"], env=environment(str(tmp_path / "a.sock")), capture_output=True, text=True, timeout=30
    )
    serving.join()
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr


@pytest.mark.parametrize("entry", COMMANDS, ids=lambda entry: entry.name)
def test_the_help_of_every_command_teaches_with_examples(daemon: Daemon, entry: Command) -> None:
    shown = daemon.ctl(*entry.words, "--help").stdout
    assert entry.summary in shown
    assert all(example in shown for example in entry.examples)


def test_a_misspelt_command_is_answered_with_the_nearest(daemon: Daemon) -> None:
    assert "did you mean reload?" in daemon.ctl("relaod").stderr


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("restart", "`srvctl reload` loads new code"),
        ("start", "`srvd start`"),
        ("logs", "`srvctl events -f`"),
        ("top", "`srvctl workers`"),
        ("kill", "`srvctl recycle WORKER`"),
        ("xyzzy", "there is no command 'xyzzy'\n"),
        ("why --limt 3", "hint: did you mean --limit?"),
        ("why --reload", "hint: srvctl why --help"),
        ("why --limit abc", "invalid value for '--limit': 'abc' is no whole number"),
        ("status web", "got unexpected extra argument (web)"),
        ("help xyzzy", "there is no command, setting or page 'xyzzy'; `srvctl help` lists the pages"),
        ("help relaod", "did you mean reload?"),
        ("help start", "`srvd help start`"),
        ("help op relase", "there is no command, setting or page 'op relase'"),
    ],
)
def test_wrong_words_are_answered_in_one_form_with_what_was_meant(daemon: Daemon, line: str, told: str) -> None:
    done = daemon.ctl(*line.split())
    assert (done.returncode, done.stdout) == (EXIT.USAGE, "")
    assert done.stderr.startswith("error: ")
    assert told in done.stderr


def test_srvctl_explains_itself(daemon: Daemon) -> None:
    assert daemon.ctl(*["version"]).stdout == daemon.ctl(*["-V"]).stdout == f"srvctl {__version__}\n"
    assert "Usage: srvctl scale" in daemon.ctl(*["help", "scale"]).stdout
    assert "Usage: srvctl op cancel" in daemon.ctl(*["help", "op", "cancel"]).stdout
    assert "variable: SRVD_MAX_RSS" in daemon.ctl(*["help", "max_rss"]).stdout
    assert "# A worker is stuck" in daemon.ctl(*["help", "stuck-worker"]).stdout
    assert "stuck-worker" in daemon.ctl(*["help"]).stdout
    assert "..." not in daemon.ctl("--help").stdout.partition("Commands:")[2]  # no sentence is cut off


def test_completion_knows_commands_options_and_the_pools_of_the_daemon(daemon: Daemon, tmp_path: Path) -> None:
    def complete(line: str, path: str) -> list[str]:
        words = line.split(" ")
        more = {"_SRVCTL_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
        done = subprocess.run(SRVCTL, env=environment(path, **more), capture_output=True, text=True, timeout=30)
        assert done.stderr == ""
        return [row.partition(",")[2] for row in done.stdout.split()]

    assert {"reload", "op", "status"} <= set(complete("srvctl ", daemon.path))
    assert complete("srvctl op sh", daemon.path) == ["show"]
    assert complete("srvctl reload w", daemon.path) == ["web"]
    assert complete("srvctl why ", daemon.path) == ["web"]
    assert complete("srvctl reload ", str(tmp_path / "none.sock")) == []


def test_a_ping_imports_nothing_that_it_does_not_need(daemon: Daemon) -> None:
    script = "import sys; from srvd.ctl.main import main\ntry: main()\nfinally: sys.stderr.write(' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script, "ping"], env=environment(daemon.path), capture_output=True, text=True, timeout=30
    )
    loaded = set(done.stderr.split())
    heavy = {"asyncio", "logging", "subprocess", "argparse", "email", "http", "urllib.request", "tempfile", "tomllib"}
    ours = {"srvd.core", "srvd.daemon", "srvd.config.settings", "srvd.config.load", "dataclasses", "ctypes", "shutil"}
    assert done.returncode == 0
    assert not loaded & (heavy | ours)


def test_a_bug_ends_with_70_and_a_traceback(daemon: Daemon) -> None:
    script = "import srvd.ctl.main as m; m.run = lambda asked: 1 // 0; m.main()"
    done = subprocess.run(
        [sys.executable, "-c", script, "ping"], env=environment(daemon.path), capture_output=True, text=True, timeout=30
    )
    assert done.returncode == EXIT.BUG
    assert "ZeroDivisionError" in done.stderr
    assert "please report it" in done.stderr


def test_connections_of_srvctl_leave_the_daemon_with_none(daemon: Daemon) -> None:
    with connected(daemon.path):
        daemon.ctl("ping")
    wait_for(lambda: _sockets(daemon.process.pid) <= 4)


def _sockets(pid: int) -> int:
    links = [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir() if entry.is_symlink()]
    return sum(link.startswith("socket:") for link in links)
