"""Claims about `srvd.migrate.containers`: the start line in a Procfile, a Dockerfile, a unit, a supervised program."""

from __future__ import annotations

import pytest

from srvd.errors import ConfigInvalid
from srvd.migrate.containers import kind_of, read

UNIT = """[Unit]
Requires=site.socket
[Service]
User=site
WorkingDirectory=/srv/site
EnvironmentFile=/srv/site/.env
ExecStart=/srv/site/.venv/bin/gunicorn --access-logfile - --workers 3 \\
    --bind unix:/run/site.sock site.wsgi:application
ExecReload=/bin/kill -s HUP $MAINPID
TimeoutStopSec=5
"""

SUPERVISOR = """[supervisord]
[program:site]
directory=/home/deploy/site
command=/home/deploy/env/bin/gunicorn --workers 3 --bind unix:/home/deploy/site/app.sock site.wsgi  ; the site
user=deploy
environment=SECRET="xxx",MODE="prod"
killasgroup=true
[program:jobs]
command=celery -A site worker
"""

PROCFILE = "release: python manage.py migrate\nweb: gunicorn -c conf.py site.wsgi\nworker: celery -A site worker\n"


@pytest.mark.parametrize(
    ("path", "text", "kind"),
    [
        ("Procfile", PROCFILE, "Procfile"),
        ("docker/Dockerfile.prod", "FROM x\n", "Dockerfile"),
        ("site.service", UNIT, "unit"),
        ("etc/site.conf", SUPERVISOR, "supervisor"),
        ("gunicorn.conf.py", "bind = ':80'\n", ""),
    ],
)
def test_a_file_is_known_by_its_name_or_its_text(path: str, text: str, kind: str) -> None:
    assert kind_of(path, text) == kind


def test_a_unit_has_a_line_a_folder_and_remarks() -> None:
    found = read("etc/site.service", UNIT)
    assert found.words[1:3] == ["--access-logfile", "-"]
    assert found.words[-1] == "site.wsgi:application"
    assert (found.folder, found.name) == ("/srv/site", "site")
    told = [str(one) for one in found.findings]
    assert "needless: etc/site.service: User=site: it stays in the unit" in told
    assert "needless: etc/site.service: TimeoutStopSec=5: it is 45 in the unit" in told
    assert any(one.startswith("changed: etc/site.service: site.socket: the socket unit needs") for one in told)
    assert list(found.files) == ["srvd-site.service"]


def test_a_program_of_supervisord_keeps_its_secrets() -> None:
    found = read("site.conf", SUPERVISOR)
    assert (found.words[-1], found.folder, found.name) == ("site.wsgi", "/home/deploy/site", "site")
    told = " ".join(map(str, found.findings))
    assert "environment with SECRET, MODE: it stays there" in told
    assert "killasgroup: take it out" in told
    assert "xxx" not in told


def test_the_web_process_of_a_procfile_is_read_and_the_others_are_named() -> None:
    found = read("Procfile", PROCFILE)
    assert found.words == ["gunicorn", "-c", "conf.py", "site.wsgi"]
    assert [str(one) for one in found.findings] == [
        "asked for: Procfile: release, worker: not read; srvd runs web processes alone"
    ]


@pytest.mark.parametrize(
    ("text", "words", "folder"),
    [
        ('FROM p\nWORKDIR /app\nCMD ["gunicorn", "-b", ":80", "a:b"]\n', ["gunicorn", "-b", ":80", "a:b"], "/app"),
        ("CMD exec gunicorn --bind :$PORT \\\n  a:b\n", ["exec", "gunicorn", "--bind", ":${PORT}", "a:b"], ""),
        ('ENTRYPOINT ["gunicorn"]\nCMD ["a:b"]\n', ["gunicorn", "a:b"], ""),
        ('CMD ["sh", "-c", "gunicorn -b :$PORT a:b"]\n', ["gunicorn", "-b", ":${PORT}", "a:b"], ""),
    ],
)
def test_a_dockerfile_has_its_command_in_one_of_two_forms(text: str, words: list[str], folder: str) -> None:
    found = read("Dockerfile", text)
    assert (found.words, found.folder) == (words, folder)


@pytest.mark.parametrize(
    ("path", "text", "program"),
    [
        ("Procfile", "worker: celery\n", ""),
        ("Dockerfile", 'CMD ["python", "x.py"]\n', ""),
        ("x.service", "[Service]\nExecStart=/bin/true\n", ""),
        ("x.conf", SUPERVISOR, "jobs"),
        ("x.conf", "[program:x\n[program:y]\n", ""),
    ],
)
def test_a_file_without_gunicorn_is_refused(path: str, text: str, program: str) -> None:
    with pytest.raises(ConfigInvalid, match="nothing was written"):
        read(path, text, program)
