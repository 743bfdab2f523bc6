"""A zygote from its job to its end: loads, reports, and forks workers, or begins anew without the application.

Sets up no process (`becoming.py`) and forks nothing by itself (`fork_server.py`).
"""

from __future__ import annotations

import gc
import os
import socket
import time

from srvd.config import packing
from srvd.errors import BadFrame, LoadFailed
from srvd.linux import fds
from srvd.linux.processes.tether import tethered
from srvd.wire import links, paths
from srvd.worker import forked
from srvd.worker.app.releases import Watch
from srvd.zygote import fronting, loading, renewal
from srvd.zygote.becoming import become
from srvd.zygote.fork_server import ForkServer
from srvd.zygote.job import LoadJob, Origin, home_of, misunderstood, say_failed, understand
from srvd.zygote.template import Loaded, make_template

__all__ = ["serve"]


def serve(link: socket.socket, job: LoadJob, born: float) -> int:
    """Load and fork until the daemon lets go; the exit code."""
    origin = Origin.now()
    try:
        loaded = _load(link, job)
    except LoadFailed as failed:
        say_failed(link, failed)
        return 1
    except BadFrame as bad:
        say_failed(link, misunderstood(bad))
        return 1
    outcome = loaded.outcome
    seconds, notes = job.seconds + time.monotonic() - born, [*job.notes, *outcome.notes]
    if outcome.tainted:
        renewal.begin_anew(link, job._replace(notes=notes, seconds=seconds), origin, outcome)
    template = make_template(loaded, job)
    answer = links.Loaded(outcome.preloaded is not None, notes, seconds, links.clip(loaded.folder))
    fds.send(link, links.encode(answer), wait=True)
    loaded.watch.tell_to(lambda file: fds.send(link, links.encode(links.Mixed(file))))
    # After the answer, so that the daemon need not wait. No garbage is left for a collection in a worker, and the
    # collector of a worker touches none of these objects: their pages stay shared.
    gc.collect()
    gc.freeze()
    ForkServer(link, template).run()
    return 0


def _load(link: socket.socket, job: LoadJob) -> Loaded:
    """Become the pool's process, and load the application. Raises `LoadFailed`, `BadFrame`."""
    wanted = understand(job.datagram)
    pool = packing.unpack(wanted.settings)
    become(wanted, pool, job)
    folder = loading.enter(wanted)
    watch = Watch(folder, "" if pool.reload == "off" else paths.watcher_address(os.getppid()))
    watch.begin()
    with tethered(link), forked.guarded(lambda: (link.fileno(), *job.fds)):
        outcome = loading.load(wanted if job.fresh else wanted._replace(preload="off"))
    home, rest = home_of(wanted, job.fds)
    fronts = [] if outcome.tainted else fronting.make(wanted, rest)
    return Loaded(wanted, pool, folder, watch, outcome, home, fronts)
