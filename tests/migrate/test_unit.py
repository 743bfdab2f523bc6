"""Claims about the unit that comes of a unit: what it says of the service stays, what stands against srvd does not."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from srvd.migrate.unit import made_of, name_of

SOURCE = """# site
[Unit]
Description=Site
After=network.target postgresql.service

[Service]
Type=forking
PIDFile=/run/site.pid
User=site
Environment=MODE=prod
EnvironmentFile=-/srv/site/.env
WorkingDirectory=/srv/site
# the program
ExecStartPre=/bin/true
ExecStart=/srv/site/venv/bin/gunicorn --workers 3 \\
    site.wsgi
ExecReload=/bin/kill -s HUP $MAINPID
KillMode=mixed
TimeoutStopSec=5
Restart=always
PrivateTmp=true

[Install]
WantedBy=multi-user.target
"""

MADE = """# made by srvd import from etc/site.service; `srvd help systemd` has more, as for hardening
# site
[Unit]
Description=Site
After=network.target postgresql.service

[Service]
Type=notify
User=site
Environment=MODE=prod
EnvironmentFile=-/srv/site/.env
WorkingDirectory=/srv/site
# the program
ExecStartPre=/bin/true
ExecStart=/srv/site/venv/bin/srvd start -c /srv/site/srvd.toml
ExecReload=/srv/site/venv/bin/srvctl --socket /run/site/srvd.sock reload
KillMode=process
TimeoutStopSec=45
Restart=always
RestartPreventExitStatus=78 200 203 217
FileDescriptorStoreMax=16
RestartKillSignal=SIGRTMIN
OOMPolicy=continue
RestartSec=1
Environment=SRVD_SOCKET=/run/site/srvd.sock
Environment=FDSTORE=16
RuntimeDirectory=site

[Install]
WantedBy=multi-user.target
"""


def test_what_a_unit_says_of_the_service_stays() -> None:
    made, told = made_of("etc/site.service", SOURCE, "/srv/site/venv/bin/gunicorn", "/srv/site")
    assert made == MADE
    assert name_of("etc/site.service") == "srvd-site.service"
    texts = [str(one) for one in told]
    assert "needless: etc/site.service: KillMode=mixed: it is process in the unit" in texts
    assert any("PIDFile=/run/site.pid: it is not in the unit" in one for one in texts)
    assert any("PrivateTmp=true: it is not in the unit: systemd would empty it" in one for one in texts)


@pytest.mark.parametrize(
    ("line", "made"),
    [
        ("TimeoutStopSec=90", "TimeoutStopSec=90"),
        ("TimeoutStopSec=2min", "TimeoutStopSec=2min"),
        ("TimeoutStopSec=30s", "TimeoutStopSec=45"),
        ("RuntimeDirectory=web more", "Environment=SRVD_SOCKET=/run/web/srvd.sock"),
        ("Type=simple", "Type=notify"),
    ],
)
def test_times_and_folders_of_the_source_are_used(line: str, made: str) -> None:
    text, _ = made_of("x.service", f"[Service]\nExecStart=/v/gunicorn a\n{line}\n", "/v/gunicorn", "")
    assert made in text.splitlines()
    assert "ExecStart=/v/srvd start -c /etc/srvd/srvd.toml" in text


def test_a_program_without_a_folder_is_asked_for() -> None:
    _, told = made_of("x.service", "[Service]\nExecStart=gunicorn a\n", "gunicorn", "")
    assert any(one.category == "asked for" for one in told)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_has_no_complaint(tmp_path: Path) -> None:
    for program in ("gunicorn", "srvd", "srvctl"):
        (tmp_path / program).write_text("#!/bin/sh\n")
        (tmp_path / program).chmod(0o755)
    text, _ = made_of("x.service", SOURCE, f"{tmp_path}/gunicorn", str(tmp_path))
    path = tmp_path / "srvd-x.service"
    path.write_text(text)
    done = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True, check=False)
    assert "srvd-x.service" not in done.stderr, done.stderr
