"""Replaces what blocks by what waits as a greenlet, for the application: gevent's monkey patch. In the zygote, before
hooks and application.

srvd's own modules keep the originals (`linux/originals.py`). Needs the package gevent.
"""

from __future__ import annotations

from srvd.errors import LoadFailed
from srvd.linux import originals

__all__ = ["patch"]


def patch() -> None:
    """Patches this process. Raises `LoadFailed` without gevent."""
    try:
        from gevent import monkey
    except ImportError as exc:
        raise LoadFailed(
            f'load gevent, which engine = "gevent" needs: {exc}; the application was not loaded',
            hint="install it beside the application: pip install 'srvd[gevent]'",
        ) from exc
    # All that srvd uses later, so that it has the originals, too.
    import srvd.worker.gevent.serving
    import srvd.worker.net.tls  # noqa: F401

    originals.keep("gevent")
    # Not `signal`: gevent would reap the children of the zygote and of the application by SIGCHLD.
    monkey.patch_all(signal=False)
