"""Makes a zygote the pool's process: title, limits, user, group, umask and environment.

Runs before any code of the application, and loads none.
"""

from __future__ import annotations

import os

from srvd.config.settings import PoolSettings
from srvd.errors import LoadFailed
from srvd.ids import GenerationId
from srvd.linux import output
from srvd.linux.processes import identity, limits, stacks
from srvd.linux.processes.proctitle import set_title
from srvd.wire import links
from srvd.worker.observe.access_file import STANDARD_OUTPUT
from srvd.zygote.job import STACKS, LoadJob

__all__ = ["become"]


def become(wanted: links.Load, pool: PoolSettings, job: LoadJob) -> None:
    """Take on what is the pool's. Raises `LoadFailed`."""
    # From here on an application that hangs while it is loaded can be asked for its stacks.
    stacks.tell_to(job.fds[STACKS])
    set_title(f"srvd: zygote {GenerationId(wanted.pool, wanted.generation)}")
    if job.fresh and pool.access_log != STANDARD_OUTPUT:
        output.close()
    _assume(wanted, pool, fresh=job.fresh)
    os.environ.update(wanted.environ)
    if wanted.umask >= 0:
        os.umask(wanted.umask)


def _assume(wanted: links.Load, pool: PoolSettings, *, fresh: bool) -> None:
    """Take on the pool's limits, then its user and group.

    Limits come first, because the pool's user may not raise any. Workers inherit all of it. Raises `LoadFailed`.

    fresh: False after an exec of the zygote, which keeps the nice value; `wanted.settled`: limits and user were set
    before the process became this interpreter.
    """
    user = None if wanted.settled else identity.resolve(wanted.user, wanted.group)
    if wanted.settled:
        limits.set_limits(pool.rlimits)  # `raise_open_files` has lifted one
    else:
        limits.take_on(
            pool.rlimits,
            pool.nice * fresh,
            pool.oom_score_adj,
            wished=pool.oom_score_adj != PoolSettings("").oom_score_adj,
        )
    if user is not None:
        # Imported here: needs ctypes, which not every Python has. Without this call /proc/self could not be read.
        from srvd.linux.processes.prctl import stay_readable

        try:
            identity.assume(user)
            stay_readable()
        except OSError as exc:
            raise LoadFailed(f"run as {wanted.user}:{wanted.group}: {exc}; the application was not loaded") from exc
