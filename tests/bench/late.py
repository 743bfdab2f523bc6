"""A Django project as `startproject` makes it, with the admin: start, first requests, and memory that workers share.

python -m tests.bench.late [--rounds 3] [--before FOLDER]

FOLDER has another srvd (its `src`), for a comparison: the two take turns. Not a test.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from tests.support.daemon import Srvd, toml

VIEWS = """
import os
from django.contrib.auth.forms import AuthenticationForm
from django.http import HttpResponse
def hello(request):
    return HttpResponse("%s %s" % (request.environ["srvd.worker"], os.getpid()))
"""
POOL = 'app = "shop.wsgi:application"\nworkers = 4\n'

Figures = dict[str, float]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--before", default="")
    given = options.parse_args()
    found: dict[tuple[str, str], list[Figures]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="srvd-bench-") as folder:
        _project(Path(folder))
        for _ in range(given.rounds):
            for name in filter(None, (given.before, "here")):
                for health in ("", 'health = "/"'):
                    found[name, health].append(_measure(Path(folder), "" if name == "here" else name, health))
    for (name, health), rounds in found.items():
        figures = [f"{key} {statistics.median(one[key] for one in rounds):.1f}" for key in rounds[0]]
        print(f"{name}, {health or 'no health path'}: {', '.join(figures)}")  # noqa: T201 - a program that prints


def _project(folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "django", "startproject", "shop", "."], cwd=folder, check=True)
    (folder / "shop" / "views.py").write_text(VIEWS)
    urls = folder / "shop" / "urls.py"
    first = "from . import views\nurlpatterns = [path('', views.hello),"
    text = urls.read_text().replace("urlpatterns = [", first)
    urls.write_text(text)


def _measure(folder: Path, source: str, health: str) -> Figures:
    config = toml(POOL + health).replace('app = "app:app"\n', "")
    srvd = Srvd(folder, config=config, env={"PYTHONPATH": source} if source else None)
    began = time.perf_counter()
    srvd.start()
    ready = time.perf_counter() - began
    try:
        pids = [worker["pid"] for worker in srvd.serving()]
        before = {pid: _cpu(pid) for pid in pids}
        asked: set[int] = set()
        while asked != set(pids):
            asked.add(int(srvd.get().split()[1]))
        first = max(_cpu(pid) - before[pid] for pid in pids)
        pss = sum(_memory(pid, "Pss") for pid in pids)
        own = max(_memory(pid, "Private_Dirty") for pid in pids[1:])
        return {"ready ms": ready * 1e3, "CPU of a first request ms": first, "PSS of 4 MiB": pss, "own of one MiB": own}
    finally:
        srvd.stop()


def _cpu(pid: int) -> float:
    """Milliseconds."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e6


def _memory(pid: int, name: str) -> float:
    """MiB."""
    rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(row.split()[1]) for row in rows if row.startswith(f"{name}:")) / 1024


if __name__ == "__main__":
    main()
