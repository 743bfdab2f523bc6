"""nginx as Debian packages it (nginx-light), in front of daemons of a test."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.daemon import free_port
from tests.support.waiting import wait_for

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed (apt-get install nginx-light)")

_CONFIG = """
{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  scgi_temp_path {folder}/scgi;
  uwsgi_temp_path {folder}/uwsgi;
  {http}
}}
"""


@contextmanager
def nginx(folder: Path, http: str) -> Iterator[int]:
    """Runs nginx with the lines `http` in its block of that name, where PORT stands for the port; yields the port."""
    assert NGINX is not None
    port = free_port()
    user = "user root;" if os.geteuid() == 0 else ""  # its workers could not reach the folder otherwise
    config = folder / "nginx.conf"
    config.write_text(_CONFIG.format(user=user, folder=folder, http=http.replace("PORT", str(port))))
    with (folder / "nginx.log").open("wb") as log:
        process = subprocess.Popen([NGINX, "-c", str(config), "-p", str(folder)], stderr=log, stdin=subprocess.DEVNULL)
    try:
        wait_for(lambda: process.poll() is None and _is_open(port))
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0, (folder / "nginx.log").read_text()


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
