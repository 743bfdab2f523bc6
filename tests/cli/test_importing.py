"""Claims about `srvd import`: what it writes and where, its exit codes, and that what it writes serves."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.conftest import Starter
from tests.support.daemon import free_port
from tests.support.waiting import wait_for

CONFIGURATION = """
import multiprocessing
import os

bind = "127.0.0.1:" + os.environ.get("APP_PORT", "1")
workers = min(2, multiprocessing.cpu_count() * 2 + 1)
threads = os.environ["APP_THREADS"]
wsgi_app = "app"
proc_name = "Ledger"


def post_fork(server, worker):
    worker.log.info("hello")
    os.write(2, f"hook forked {os.getpid() == worker.pid}\\n".encode())


def child_exit(server, worker):
    os.write(2, f"hook gone {worker.pid}\\n".encode())
"""


def srvd(*words: str, cwd: Path, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    env = {"PATH": "/usr/bin:/bin", **(environ or {})}
    command = [sys.executable, "-m", "srvd", "import", *words]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120, check=False)


def test_an_imported_configuration_serves_with_its_variables_and_hooks(starter: Starter) -> None:
    port = free_port()
    daemon = starter.new(config="# replaced", env={"APP_PORT": str(port), "APP_THREADS": "2"})
    (daemon.folder / "gunicorn.conf.py").write_text(CONFIGURATION)
    done = srvd("-o", "srvd.toml", "--force", cwd=daemon.folder)
    assert done.returncode == 10, done.stderr
    assert "the environment has no APP_THREADS" in done.stderr  # where it is imported
    text = (daemon.folder / "srvd.toml").read_text()
    assert 'bind = ["127.0.0.1:${APP_PORT:-1}"]' in text
    assert 'threads = "${APP_THREADS}"' in text
    assert 'name = "ledger"' in text
    daemon.good()
    daemon.start()
    assert daemon.get("/").startswith("one ")
    assert daemon.address()[1] == port
    daemon.wait_logged("hook forked True")
    pids = {worker["pid"] for worker in daemon.serving()}
    killed = daemon.kill_worker()
    daemon.wait_serving(2, without=killed)
    wait_for(lambda: any(f"hook gone {pid}\n" in daemon.logged() for pid in pids))


def test_what_is_written_is_told_and_never_replaced_unasked(tmp_path: Path) -> None:
    (tmp_path / "gunicorn.conf.py").write_text("bind = ':8000'\nworkers = 2\n")
    done = srvd("gunicorn.conf.py", "shop.wsgi", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.splitlines()[-1] == "wrote srvd.toml"
    (tmp_path / "srvd.toml").write_text("# mine\n")
    done = srvd("gunicorn.conf.py", "shop.wsgi", cwd=tmp_path)
    assert (done.returncode, (tmp_path / "srvd.toml").read_text()) == (73, "# mine\n")
    assert "srvd.toml exists; nothing was written" in done.stderr
    assert srvd("--force", "gunicorn.conf.py", "shop.wsgi", cwd=tmp_path).returncode == 0
    assert 'app = "shop.wsgi"' in (tmp_path / "srvd.toml").read_text()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--", "gunicorn", "-w", "3", "shop.wsgi"], 0),
        (["gunicorn -w 3 -b :$PORT_OF_NONE shop.wsgi"], 10),
        (["--", "gunicorn", "-k", "eventlet", "shop.wsgi"], 1),
        (["--", "gunicorn", "--keepalive", "3", "shop.wsgi"], 65),
        (["absent.py"], 65),
        (["broken.py"], 65),
        (["--no-such-flag"], 2),
        ([], 65),
    ],
)
def test_the_exit_code_says_whether_it_can_move(words: list[str], code: int, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("1 / 0\n")
    done = srvd("--check", *words, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["broken.py"]


def test_of_a_unit_comes_a_unit_too(tmp_path: Path) -> None:
    (tmp_path / "site.service").write_text("[Service]\nExecStart=/venv/bin/gunicorn -w 2 shop.wsgi\n")
    assert srvd("--check", "site.service", cwd=tmp_path).returncode == 0
    assert srvd("-o", "-", "site.service", cwd=tmp_path).stdout.count("ExecStart=/venv/bin/srvd start") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["site.service"]
    assert srvd("site.service", cwd=tmp_path).returncode == 0
    assert "ExecStart=/venv/bin/srvd start" in (tmp_path / "srvd-site.service").read_text()
    assert srvd("site.service", cwd=tmp_path).returncode == 73
    document = json.loads(srvd("--json", "site.service", cwd=tmp_path).stdout)
    assert sorted(document["files"]) == ["srvd-site.service", "srvd.toml"]


def test_what_cannot_run_is_written_only_if_it_is_wanted_anyway(tmp_path: Path) -> None:
    line = ["--", "gunicorn", "-k", "eventlet", "shop.wsgi"]
    assert srvd(*line, cwd=tmp_path).returncode == 1
    assert list(tmp_path.iterdir()) == []
    assert srvd("--anyway", *line, cwd=tmp_path).returncode == 1
    assert [path.name for path in tmp_path.iterdir()] == ["srvd.toml"]


def test_a_configuration_that_fails_is_told_with_its_traceback(tmp_path: Path) -> None:
    (tmp_path / "gunicorn.conf.py").write_text("import os\nworkers = int('many')\n")
    done = srvd(cwd=tmp_path)
    assert done.returncode == 65
    assert 'gunicorn.conf.py", line 2, in <module>' in done.stderr
    assert "ValueError: invalid literal" in done.stderr


def test_one_that_acts_while_it_is_read_is_executed_once(tmp_path: Path) -> None:
    source = (
        "import os\nos.makedirs('made', exist_ok=True)\nopen('made/runs', 'a').write('x')\nworkers = os.cpu_count()\n"
    )
    (tmp_path / "gunicorn.conf.py").write_text(source + "bind = os.environ.get('BIND', ':80')\n")
    done = srvd("--check", "gunicorn.conf.py", "shop.wsgi", cwd=tmp_path)
    assert (tmp_path / "made" / "runs").read_text() == "x"
    assert "executed once, with this environment: it acts while it is read (os.makedirs())" in done.stderr


def test_json_has_the_files_and_the_findings(tmp_path: Path) -> None:
    done = srvd("--json", "--", "gunicorn", "--spew", "shop.wsgi", cwd=tmp_path)
    found = json.loads(done.stdout)
    assert (found["exit"], done.returncode, list(found["files"])) == (10, 10, ["srvd.toml"])
    assert {"category": "lost", "where": "", "text": found["findings"][0]["text"]} == found["findings"][0]
    assert list(tmp_path.iterdir()) == []


def test_a_procfile_leads_to_the_configuration_that_it_names(tmp_path: Path) -> None:
    (tmp_path / "Procfile").write_text("web: gunicorn -c conf/web.py shop.wsgi\nworker: celery\n")
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "web.py").write_text("workers = 7\n")
    done = srvd("-o", "-", "Procfile", cwd=tmp_path)
    assert 'app = "shop.wsgi"' in done.stdout
    assert "workers = 7" in done.stdout
    assert "worker: not read" in done.stderr


@pytest.mark.parametrize(
    "source",
    [
        "def prepare():\n    ACT\n\nprepare()\n",
        "class Folder:\n    def __init__(self):\n        ACT\n\nfolder = Folder()\n",
        "if True:\n    ACT\n",
    ],
    ids=["in a function", "in a class", "under a condition"],
)
@pytest.mark.parametrize(
    "act", ["open('runs', 'a').write('x')", "Path('runs').write_text(Path('runs').read_text() + 'x')"]
)
def test_a_file_that_writes_is_executed_once_wherever_it_does(source: str, act: str, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    text = "import os\nfrom pathlib import Path\nworkers = os.cpu_count()\nbind = os.environ.get('BIND', ':80')\n"
    (tmp_path / "gunicorn.conf.py").write_text(text + source.replace("ACT", act))
    srvd("--check", "gunicorn.conf.py", "shop.wsgi", cwd=tmp_path)
    assert (tmp_path / "runs").read_text() == "x"


def test_a_hook_that_would_write_is_no_act(tmp_path: Path) -> None:
    source = "import os\nbind = os.environ.get('BIND', ':80')\nwhen_ready = lambda server: open('/tmp/ready', 'w')\n"
    (tmp_path / "gunicorn.conf.py").write_text(source)
    done = srvd("-o", "-", "gunicorn.conf.py", "shop.wsgi", cwd=tmp_path)
    assert '"${BIND:-:80}"' in done.stdout, done.stderr


def test_a_long_configuration_and_one_that_leaves_a_process_are_read(tmp_path: Path) -> None:
    source = (
        "import subprocess\n"
        "subprocess.Popen(['sleep', '300'], stdin=subprocess.DEVNULL)\n"  # it inherits what is open
        "raw_env = [f'NAME{number}=' + 'x' * 100 for number in range(2000)]\n"
    )
    (tmp_path / "gunicorn.conf.py").write_text(source)
    before = set(psutil.pids())
    try:
        done = srvd("-o", "-", "gunicorn.conf.py", "shop.wsgi", cwd=tmp_path)
    finally:
        for pid in set(psutil.pids()) - before:
            with contextlib.suppress(psutil.Error):
                left = psutil.Process(pid)
                if left.cmdline() == ["sleep", "300"] and left.cwd() == str(tmp_path):
                    left.kill()
    assert done.stdout.count("NAME") == 2000, done.stderr


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ('umask = "rwx"', "umask: found 'rwx', which is no mask"),
        ("umask = [7]", "umask: found [7], which is no mask"),
        ("cert_reqs = 7", "cert_reqs: 7 is not 0, 1 or 2"),
        ('secure_scheme_headers = "X-Proto"', "secure_scheme_headers: "),
        ('root_path = "/shop"', "root_path: it is for ASGI alone"),
    ],
)
def test_a_value_that_means_nothing_is_told(setting: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "gunicorn.conf.py").write_text(setting + "\n")
    done = srvd("-o", "-", "gunicorn.conf.py", "shop.wsgi", cwd=tmp_path)
    assert (done.returncode, told in done.stderr) == (10, True), done.stderr
    assert 'app = "shop.wsgi"' in done.stdout


def test_a_variable_that_is_given_alone_is_taken(tmp_path: Path) -> None:
    (tmp_path / "gunicorn.conf.py").write_text('raw_env = "COLOUR=red"\n')
    assert 'env = { COLOUR = "red" }' in srvd("-o", "-", "gunicorn.conf.py", "shop.wsgi", cwd=tmp_path).stdout


def test_words_that_the_shell_has_split_stay_as_they_are(tmp_path: Path) -> None:
    words = ["--", "gunicorn", "-b", "unix:/tmp/my shop.sock", "-e", "TITLE=my shop", "shop:create('a b')"]
    done = srvd("-o", "-", *words, cwd=tmp_path)
    assert '"unix:/tmp/my shop.sock"' in done.stdout, done.stderr
    assert 'env = { TITLE = "my shop" }' in done.stdout
    assert "app = \"shop:create('a b')\"" in done.stdout


def test_relative_paths_are_judged_where_the_file_is_to_be(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "gunicorn.conf.py").write_text('chdir = "app"\n')
    done = srvd("--check", "gunicorn.conf.py", "shop.wsgi", cwd=tmp_path)
    assert "srvd check, here" not in done.stderr
    (tmp_path / "app").rmdir()
    done = srvd("--check", "gunicorn.conf.py", "shop.wsgi", cwd=tmp_path)
    assert "srvd check, here: pools.web.chdir: " in done.stderr
