"""`reload`: a saved file is answered by its own code, broken code by its traceback; what editors do."""

from __future__ import annotations

import http.client
import os
import pty
import select
import signal
import subprocess
import sys
import time
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.conftest import Starter
from tests.support.daemon import Srvd, free_port, toml
from tests.support.waiting import stays, wait_for

pytestmark = pytest.mark.system

SAVES = 12
"""Of the short test; 100 in a long run."""


def code(answer: str, more: str = "") -> str:
    return f"""{more}
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [{answer!r}.encode()]
"""


ASGI = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            {fail}
            await send({{"type": kind + ".complete"}})
            if kind == "lifespan.shutdown":
                return
    await send({{"type": "http.response.start", "status": 200, "headers": []}})
    await send({{"type": "http.response.body", "body": b"{answer}"}})
"""


def developed(starter: Starter, source: str, mode: str = "true", more: str = "") -> Srvd:
    return starter(config=toml(f"reload = {mode}\n{more}"), code=source)


def save(srvd: Srvd, source: str, name: str = "app.py") -> None:
    """Saves as vim and PyCharm do: writes beside the file, and renames."""
    path = srvd.folder / name
    beside = path.with_suffix(".tmp")
    beside.write_text(source)
    beside.rename(path)


def answer(srvd: Srvd, accept: str = "*/*") -> tuple[int, str]:
    with closing(srvd.connect()) as connection:
        connection.request("GET", "/", headers={"Accept": accept})
        got = connection.getresponse()
        return got.status, got.read().decode()


def watcher(srvd: Srvd) -> psutil.Process:
    return next(one for one in psutil.Process(srvd.pid).children() if "watcher" in " ".join(one.cmdline()))


def save_often(srvd: Srvd, count: int) -> list[float]:
    """Saves good and broken code in turns, and waits for the answer of each. Returns the seconds of each."""
    took = []
    for number in range(count):
        began = time.monotonic()
        broken = number % 4 == 2
        save(srvd, f"raise ValueError('no {number}')\n" if broken else code(f"save {number:03}"))
        wanted = f"ValueError: no {number}" if broken else f"save {number:03}"
        wait_for(partial(answers, srvd, wanted))
        took.append(time.monotonic() - began)
    return took


def answers(srvd: Srvd, wanted: str) -> bool:
    return wanted in answer(srvd)[1]


def family(srvd: Srvd) -> int:
    return len(psutil.Process(srvd.pid).children(recursive=True))


def test_saves_in_a_row_are_answered_by_their_own_code(starter: Starter) -> None:
    srvd = developed(starter, code("first"))
    wait_for(lambda: family(srvd) == 4)  # watcher, zygote, worker, and the interpreter of the next zygote
    save_often(srvd, SAVES)
    wait_for(lambda: family(srvd) == 4)
    assert srvd.stop() == 0


@pytest.mark.long
def test_a_hundred_saves_in_a_row(starter: Starter) -> None:
    srvd = developed(starter, code("first"))
    took = sorted(save_often(srvd, 100))
    print(f"\nfrom a save to its answer: median {took[50]:.3f} s, longest {took[-1]:.3f} s")  # noqa: T201 - a figure
    wait_for(lambda: family(srvd) == 4)


def test_a_request_after_the_save_waits_for_the_new_code(starter: Starter) -> None:
    srvd = developed(starter, code("first"), more='boot_timeout = "20s"')
    save(srvd, code("second", more="import time; time.sleep(1)"))
    wait_for(lambda: "changed" in srvd.logged())
    assert answer(srvd) == (200, "second")


def test_broken_code_is_answered_with_its_traceback_and_escaped_for_a_browser(starter: Starter) -> None:
    srvd = developed(starter, code("first"))
    save(srvd, "raise ValueError('<b>wrong</b>')\n")
    wait_for(lambda: answer(srvd)[0] == 500)
    assert "ValueError: <b>wrong</b>" in answer(srvd)[1]
    page = answer(srvd, "text/html")[1]
    assert "&lt;b&gt;wrong" in page
    assert "<b>" not in page
    assert "ValueError: <b>wrong</b>" in srvd.logged()


def test_a_first_start_with_a_syntax_error_waits_for_the_save(starter: Starter) -> None:
    srvd = developed(starter, "def app(:\n")
    assert "SyntaxError" in answer(srvd)[1]
    save(srvd, code("mended"))
    wait_for(lambda: answer(srvd) == (200, "mended"))


def test_with_safe_the_last_good_code_serves_on(starter: Starter) -> None:
    srvd = developed(starter, code("first"), '"safe"')
    save(srvd, "raise ValueError('broken')\n")
    wait_for(lambda: "ValueError: broken" in srvd.logged())
    assert "Traceback (most recent call last):" in srvd.logged()
    assert stays(lambda: answer(srvd) == (200, "first"), 0.5)
    save(srvd, code("mended"))
    wait_for(lambda: answer(srvd) == (200, "mended"))


def test_code_that_ends_its_process_is_told_and_mended(starter: Starter) -> None:
    srvd = developed(starter, code("first"))
    save(srvd, "import os; os._exit(3)\n")
    wait_for(lambda: answer(srvd)[0] == 500)
    save(srvd, code("mended"))
    wait_for(lambda: answer(srvd) == (200, "mended"))


def test_an_import_that_hangs_is_ended_by_the_next_save(starter: Starter) -> None:
    srvd = developed(starter, code("first"))
    save(srvd, "import time\nwhile True: time.sleep(1)\n")
    wait_for(lambda: "changed" in srvd.logged())
    save(srvd, code("mended"))
    wait_for(lambda: answer(srvd) == (200, "mended"))


def test_a_startup_of_asgi_that_fails_is_answered_with_its_traceback(starter: Starter) -> None:
    srvd = developed(starter, ASGI.format(fail="raise OSError('no base')", answer="first"), more='lifespan = "on"')
    assert "no base" in answer(srvd)[1]
    save(srvd, ASGI.format(fail="", answer="mended"))
    wait_for(lambda: answer(srvd) == (200, "mended"))


def test_a_module_that_is_imported_late_removed_and_made_again(starter: Starter) -> None:
    late = """
def app(environ, start_response):
    import late
    start_response("200 OK", [])
    return [late.TEXT]
"""
    srvd = starter.new(config=toml("reload = true"), code=late)
    (srvd.folder / "late.py").write_text("TEXT = b'one'\n")
    srvd.start()
    assert answer(srvd) == (200, "one")
    save(srvd, "TEXT = b'two'\n", "late.py")
    wait_for(lambda: answer(srvd) == (200, "two"))
    save(srvd, late.replace("    import late\n", "").replace("\ndef", "import late\ndef"))
    (srvd.folder / "late.py").unlink()
    wait_for(lambda: "No module named 'late'" in answer(srvd)[1])
    save(srvd, "TEXT = b'three'\n", "late.py")
    wait_for(lambda: answer(srvd) == (200, "three"))


def test_files_of_reload_extra_and_behind_links(starter: Starter) -> None:
    reads = "import part\nTEXT = open('data/page.html').read() + part.TEXT\n" + code("").replace("''", "TEXT")
    srvd = starter.new(config=toml('reload = true\nreload_extra = ["data"]'), code=reads)
    (srvd.folder / "data").mkdir()
    (srvd.folder / "data" / "page.html").write_text("a")
    (srvd.folder / "elsewhere").mkdir()
    (srvd.folder / "elsewhere" / "real.py").write_text("TEXT = 'b'\n")
    (srvd.folder / "part.py").symlink_to("elsewhere/real.py")
    srvd.start()
    assert answer(srvd) == (200, "ab")
    save(srvd, "A", "data/page.html")
    wait_for(lambda: answer(srvd) == (200, "Ab"))
    (srvd.folder / "elsewhere" / "real.py").write_text("TEXT = 'B'\n")
    wait_for(lambda: answer(srvd) == (200, "AB"))


def test_many_files_at_once_are_few_reloads(starter: Starter) -> None:
    """As `git checkout` of another branch; files that are not loaded count for nothing."""
    source = "".join(f"import m{number}\n" for number in range(60)) + code("").replace("''", "str(m59.N)")
    srvd = starter.new(config=toml("reload = true"), code=source)
    for number in range(60):
        (srvd.folder / f"m{number}.py").write_text("N = 1\n")
    srvd.start()
    before = srvd.logged().count("changed")
    for number in range(60):
        (srvd.folder / f"m{number}.py").write_text("N = 2\n")
        (srvd.folder / f"unused{number}.py").write_text("N = 2\n")
    wait_for(lambda: answer(srvd) == (200, "2"))
    assert srvd.logged().count("changed") - before < 20


def test_an_idle_watcher_is_never_woken(starter: Starter) -> None:
    srvd = developed(starter, code("first"))
    assert answer(srvd) == (200, "first")
    process = watcher(srvd)

    def switches() -> int:
        return int(process.num_ctx_switches().voluntary)

    def is_still() -> bool:
        count = switches()
        return stays(lambda: switches() == count, 0.3)

    wait_for(is_still)
    (srvd.folder / "unrelated").mkdir()
    count = switches()
    assert stays(lambda: switches() <= count + 1, 2, every=0.5)


def test_without_inotify_files_are_looked_at(starter: Starter) -> None:
    srvd = starter(config=toml("reload = true"), code=code("first"), env={"WATCHFILES_FORCE_POLLING": "1"})
    assert "files are looked at twice a second" in srvd.logged()
    save_often(srvd, 3)


def test_a_changed_configuration_is_read(starter: Starter) -> None:
    srvd = developed(starter, code("first"))
    srvd.configure(toml('reload = true\napp = "other:app"'))
    (srvd.folder / "other.py").write_text(code("other"))
    srvd.configure(toml("reload = true").replace('"app:app"', '"other:app"'))
    wait_for(lambda: answer(srvd) == (200, "other"))


def test_production_is_refused(starter: Starter) -> None:
    srvd = starter.new(config=toml("reload = true"), env={"NOTIFY_SOCKET": "@nothing"})
    done = srvd.run()
    assert done.returncode == 78
    assert "which is for development, but systemd has started this process" in done.stderr
    srvd = starter.new("--daemonize", config=toml("reload = true"))
    assert srvd.run().returncode == 78


def test_a_running_daemon_does_not_begin_to_watch(starter: Starter) -> None:
    srvd = starter(config=toml("workers = 2"))
    srvd.configure(toml("workers = 2\nreload = true"))
    srvd.call("reload")
    assert "reload is for development, and begins at a start" in srvd.logged()
    srvd.wait_serving(2)
    assert not any("watcher" in " ".join(one.cmdline()) for one in srvd.family())


def test_breakpoint_reads_from_the_terminal_and_no_limit_ends_it(tmp_path: Path) -> None:
    """Also after `request_timeout` of production, and while another client waits."""
    stops = "    word = 'debugged'\n    breakpoint()\n    start"
    (tmp_path / "app.py").write_text(code("seen").replace("    start", stops))
    port = free_port()
    with Terminal(tmp_path, port) as (master, process):
        read_until(master, b"^C stops")
        clients = [http.client.HTTPConnection("127.0.0.1", port, timeout=60) for _ in range(2)]
        try:
            for client in clients:
                client.request("GET", "/")
            read_until(master, b"(Pdb) ")
            assert stays(lambda: process.poll() is None, 5)  # longer than any limit that would end the worker
            os.write(master, b"p word.upper()\n")
            read_until(master, b"DEBUGGED")
            os.write(master, b"c\n")
            assert clients[0].getresponse().read() == b"seen"
            read_until(master, b"(Pdb) ")
            os.write(master, b"c\n")
            assert clients[1].getresponse().read() == b"seen"
        finally:
            for client in clients:
                client.close()
        os.write(master, b"\x03")
        assert process.wait(30) == 0


class Terminal:
    """`srvd start --reload` in a terminal of its own: the master's descriptor, and the process."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port

    def __enter__(self) -> tuple[int, subprocess.Popen[bytes]]:
        self.master, slave = pty.openpty()
        words = [sys.executable, "-m", "srvd", "start", "app:app", "--reload", "--bind", f"127.0.0.1:{self.port}",
                 "--request-timeout", "1s", "--name", f"t{self.port}"]  # fmt: skip

        def begin() -> None:
            os.setsid()
            import fcntl
            import termios

            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(words, cwd=self.folder, stdin=slave, stdout=slave, stderr=slave,
                                        preexec_fn=begin, env={**os.environ, "TERM": "dumb"})  # fmt: skip  # noqa: PLW1509
        os.close(slave)
        return self.master, self.process

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGKILL) if self.process.poll() is None else None
        self.process.wait(30)
        os.close(self.master)


def read_until(master: int, wanted: bytes, within: float = 60) -> bytes:
    """What comes from the terminal, up to the text."""
    got, deadline = b"", time.monotonic() + within
    while wanted not in got:
        ready, _, _ = select.select([master], [], [], max(0, deadline - time.monotonic()))
        assert ready, got
        got += os.read(master, 4096)
    return got
