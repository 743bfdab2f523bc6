"""Starts the interpreter of a pool, as the pool's user where that is necessary.

Tells it nothing: `spawn.py` sends what to load.
"""

from __future__ import annotations

import os
import sys
from functools import partial

from srvd.config.check import find_wrapper
from srvd.config.settings import PoolSettings
from srvd.errors import LoadFailed
from srvd.linux.interpreter import Started, pinned, start, take
from srvd.linux.processes import identity, limits
from srvd.linux.processes.identity import Identity

__all__ = ["interpreter", "later", "launch", "with_user_variables"]


def interpreter(pool: PoolSettings) -> str:
    """The interpreter that runs the pool's application: a path, or a name on PATH."""
    return pool.python or sys.executable


def with_user_variables(pool: PoolSettings) -> PoolSettings:
    """The pool with the variables of its user, such as HOME, that it does not set itself."""
    return pool._replace(env={**identity.environment(pool.user), **pool.env})


def launch(pool: PoolSettings) -> Started:
    """Start the interpreter. Raises `OSError`; `LoadFailed`: no such user.

    The pool's own interpreter, and code that its variables let an interpreter load, never run as root: the process
    becomes the user first. The daemon's interpreter with the daemon's variables starts as the daemon's user, which is
    quicker and needs no permission to read it; it becomes the pool's user before it touches anything else.
    """
    program, user = pinned(interpreter(pool)), identity.resolve(pool.user, pool.group)
    if pool.wrap:
        settle = None if user is None else partial(_settle, pool, user)
        return start(program, pool.env, settle, find_wrapper(pool.wrap, interpreter(pool), os.environ))
    if user is None:
        return take(program, pool.env)
    if later(pool) == pool.env and program == pinned(sys.executable):
        return take(program, {})
    return start(program, pool.env, partial(_settle, pool, user))


def later(pool: PoolSettings) -> dict[str, str]:
    """The variables that may be set while the interpreter runs already: those by which neither the interpreter nor the
    dynamic loader finds code.
    """
    return {name: value for name, value in pool.env.items() if not name.startswith(("LD_", "PYTHON"))}


def _settle(pool: PoolSettings, user: Identity) -> None:
    """Take on limits and user, in the new process, before it touches anything of the user's. Raises `LoadFailed`."""
    limits.take_on(
        pool.rlimits, pool.nice, pool.oom_score_adj, wished=pool.oom_score_adj != PoolSettings("").oom_score_adj
    )
    try:
        identity.assume(user)
    except OSError as exc:
        raise LoadFailed(f"run as {pool.user}:{pool.group}: {exc}; the application was not loaded") from exc
