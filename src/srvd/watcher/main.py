"""The process of the watcher: notices changes of an application's files, and orders reloads of the daemon.

A child of the daemon, which knows nothing of it: the watcher is a client of the control socket, and the processes of
the application connect to the watcher. It ends with the daemon. Reads no configuration: `cli/develop.py` gives it all.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import time
from typing import Any, NoReturn

from srvd.client.find import Named
from srvd.linux.processes.proctitle import set_title
from srvd.watcher.changes import choose
from srvd.watcher.files import forget_bytecode
from srvd.watcher.orders import Orders
from srvd.watcher.peers import Peer
from srvd.watcher.plan import Plan
from srvd.watcher.setup import Setup

__all__ = ["live"]


def live() -> NoReturn:
    """Be the watcher. sys.argv: number of the listening socket, and the setup as JSON."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):  # of the terminal; the daemon ends by them
        signal.signal(number, signal.SIG_IGN)
    setup = Setup(**json.loads(sys.argv[2]))
    set_title(f"srvd: watcher {setup.name}")
    code = 70
    try:
        Watcher(setup, socket.socket(fileno=int(sys.argv[1])), setup.daemon).run()
        code = 0
    except BaseException as exc:  # the process ends here
        sys.__excepthook__(type(exc), exc, exc.__traceback__)
    finally:
        os._exit(code)


class Watcher:
    def __init__(self, setup: Setup, listener: socket.socket, daemon: int) -> None:
        self._setup = setup
        self._listener = listener
        listener.setblocking(False)
        self._daemon = os.pidfd_open(daemon)
        self._peers: dict[int, Peer] = {}
        self._changes = choose(setup.folder, dict(os.environ), self._say)
        self._orders = Orders(Named(setup.socket, "" if setup.socket else setup.name))
        self._plan = Plan(setup)
        self._poll = select.poll()
        for fd in (self._listener.fileno(), self._daemon, self._orders.fd, self._changes.fd):
            if fd >= 0:
                self._poll.register(fd, select.POLLIN)
        self._said = False
        self._watch()

    def run(self) -> None:
        """Returns when the daemon has ended."""
        while True:
            ready = {fd for fd, _ in self._poll.poll(self._wait())}
            if self._daemon in ready:
                return
            if self._listener.fileno() in ready:
                self._welcome()
            for fd in ready & self._peers.keys():
                self._hear(self._peers[fd])
            if self._changes.fd in ready or self._changes.interval:
                self._notice(self._changes.take(self._plan))
            if self._orders.fd in ready:
                self._over()
            self._act()

    def _wait(self) -> int | None:
        """Returns how many milliseconds to wait; None: until something happens."""
        interval = self._changes.interval
        due = None if self._orders.under_way else self._plan.due
        waits = [max(0.0, due - time.monotonic())] if due is not None else []
        waits += [interval] if interval else []
        return int(min(waits) * 1000) + 1 if waits else None

    # -- processes of the application ----------------------------------------------------------------------

    def _welcome(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        try:
            peer = Peer(sock)
        except OSError:  # it has ended
            sock.close()
            return
        if peer.uid not in self._setup.uids:
            peer.close()
            return
        self._peers[sock.fileno()] = peer
        self._poll.register(sock.fileno(), select.POLLIN)

    def _hear(self, peer: Peer) -> None:
        messages = peer.hear()
        for message in messages or ():
            self._obey(peer, message)
        if messages is None:
            self._poll.unregister(peer.sock.fileno())
            del self._peers[peer.sock.fileno()]
            peer.close()

    def _obey(self, peer: Peer, message: dict[str, Any]) -> None:
        match message:
            case {"load": str(pool)}:
                peer.pool, peer.loading, peer.since = pool, True, time.time()
                peer.say(page=self._plan.page_of(pool), terminal=self._setup.terminal)
            case {"worker": str(pool)}:
                peer.pool, peer.serving = pool, True
                if self._plan.holds_new(pool):
                    peer.say(order="hold")
                self._greet()
            case {"files": list(files)}:
                peer.loading = False
                failed = str(message.get("failed", ""))
                late = self._plan.loaded(peer.pool, files, message.get("extra", ()), peer.since, failed=bool(failed))
                self._watch()
                self._notice(late)
                peer.say(page=self._plan.serves_page(peer.pool) if failed else False)
            case {"more": str(file), "looks": looks}:
                late = self._plan.add(peer.pool, file, tuple(looks) if looks else None)
                self._watch()
                self._notice(late)

    # -- changes -------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        try:
            self._changes.watch(self._plan)
        except OSError as exc:
            self._say(f"watch {exc.filename}: {exc.strerror} (sysctl fs.inotify.max_user_watches)")

    def _notice(self, paths: set[str]) -> None:
        loading = any(peer.loading for peer in self._peers.values())
        before = {pool for pool in self._setup.pools if self._plan.is_held(pool)}
        if self._plan.noticed(paths, time.monotonic(), loading=loading):
            for peer in self._peers.values():
                if peer.serving and self._plan.is_held(peer.pool) and peer.pool not in before:
                    peer.say(order="hold")
                if peer.loading and self._said and self._plan.is_pending(peer.pool):
                    peer.end()

    def _act(self) -> None:
        """Orders what is due."""
        if self._orders.under_way or not self._said:
            return
        ordered = self._plan.order(time.monotonic())
        if ordered is not None:
            if ordered.said:
                self._say(f"{ordered.said}: loading anew")
            for file in ordered.files:
                forget_bytecode(file)
            self._orders.reload(ordered.pool)

    def _over(self) -> None:
        done = self._orders.take()
        text = self._plan.over(done.text)
        if text:
            self._say(text)
        for peer in self._peers.values():
            if peer.serving and not self._plan.is_held(peer.pool):
                peer.say(order="go")

    def _greet(self) -> None:
        if not self._said:
            self._said = True
            self._say(f"{self._setup.about}; a saved file is loaded at once; ^C stops")

    def _say(self, text: str) -> None:
        sys.stderr.write(f"srvd: {text}\n")
        sys.stderr.flush()
