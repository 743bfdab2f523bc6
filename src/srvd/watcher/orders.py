"""Orders reloads of the daemon, one at a time, in a thread: the watcher goes on noticing changes meanwhile.

Decides no reload: `plan.py` does.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from threading import Thread
from typing import Any

from srvd.client.connection import Client
from srvd.client.find import Named, find
from srvd.errors import NoDaemon, ShuttingDown, SrvdError
from srvd.record import Record

__all__ = ["Done", "Orders"]


class Done(Record):
    """How a reload ended. text: the daemon's error, with the traceback if there is one; "": none."""

    text: str
    seconds: float


class Orders:
    """The reload that is under way, if any; `fd` becomes readable when it is over."""

    def __init__(self, named: Named) -> None:
        self._named = named
        self.fd, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._done: Done | None = None
        self._thread: Thread | None = None

    @property
    def under_way(self) -> bool:
        return self._thread is not None

    def reload(self, pool: str) -> None:
        """Orders the reload of a pool; "": of the whole configuration."""
        self._thread = Thread(target=self._run, args=({"pool": pool} if pool else {},), daemon=True)
        self._thread.start()

    def take(self) -> Done:
        """Returns how the reload ended, once `fd` is readable."""
        os.read(self.fd, 1)
        assert self._thread is not None
        assert self._done is not None
        self._thread.join()
        self._thread, done = None, self._done
        return done

    def _run(self, args: Mapping[str, Any]) -> None:
        began, text = time.monotonic(), ""
        try:
            path = find(self._named, os.environ, os.geteuid())
            with Client.connect(path) as client:
                client.call("reload", args)
        except (NoDaemon, ShuttingDown):  # it is stopped
            text = ""
        except SrvdError as error:
            text = _told(error)
        except Exception as exc:  # the thread ends here
            text = repr(exc)
        self._done = Done(text, time.monotonic() - began)
        os.write(self._write, b"!")


def _told(error: SrvdError) -> str:
    """Returns the traceback of an error, or what it says."""
    proof = str(error.detail.get("traceback", "") or error.detail.get("stderr", ""))
    return f"{proof}\n{error.message}" if proof else f"{error.message}{f'; {error.hint}' if error.hint else ''}"
