"""The control socket's server: who may connect, for how long, and the way between connections and the desk.

Does not know what a request means (requests.py) nor what becomes of it (the backend's). Raw non-blocking sockets on
the daemon's loop; one timer, and only while something is to time: an idle daemon is not woken.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from srvd import __version__
from srvd.core.actions import Level
from srvd.daemon.control.acceptor import ControlAcceptor, send_and_close
from srvd.daemon.control.admission import ConnectionSlots, LogLimiter, TokenBucket
from srvd.daemon.control.clock import NEVER, Clock
from srvd.daemon.control.connection import ControlConnection
from srvd.daemon.control.limits import Limits
from srvd.daemon.control.peers import Peer, Roles, identify
from srvd.daemon.control.requests import Backend, Log, Memory, RequestHandler
from srvd.daemon.control.socket_path import Held, SocketPath
from srvd.daemon.fd_table import FdTable
from srvd.daemon.loop import Loop
from srvd.errors import BadFrame, Busy, PermissionRefused, SrvdError
from srvd.linux.identity import OVERFLOW
from srvd.record import Record
from srvd.wire import messages
from srvd.wire.codec import PROTOCOL, encode
from srvd.wire.commands import ADMIN

__all__ = ["Backend", "ControlServer", "ControlState", "Limits", "Log", "Peer"]


class ControlState(Record):
    """The control socket as it is handed over."""

    instance: str
    held: Held
    memory: Memory


class ControlServer:
    """Serves the control socket of one daemon from `open()` to `close()`."""

    def __init__(self, loop: Loop, backend: Backend, log: Log, name: str, limits: Limits | None = None) -> None:
        self._loop = loop
        self._log = log
        self._hello = messages.Hello(
            PROTOCOL, __version__, name, f"{os.getpid()}-{os.urandom(4).hex()}", os.getpid(), ""
        )
        self._limits = limits or Limits()
        self._desk = RequestHandler(backend, log, self._limits.waits)
        self._door: ControlAcceptor | None = None
        self._links: dict[ControlConnection, str] = {}  # with the kind of its seat
        self._seats = ConnectionSlots(self._limits)
        self._gate = TokenBucket(self._limits.accept_rate, self._limits.accept_burst, loop.time())
        self._clock = Clock(loop, self._on_time)
        self._seldom = LogLimiter()

    def open(self, path: str, roles: Mapping[str, Sequence[str]]) -> None:
        """Claim the path and begin to serve. Raises `SystemRefused` and `ConfigInvalid`, leaving nothing behind."""
        granted = Roles.resolve(roles, os.geteuid())
        self.serve(SocketPath.open(path, shared=granted.shared), granted)

    def serve(self, claim: SocketPath, roles: Roles) -> None:
        """Begin to serve a path that was claimed before."""
        self._door = ControlAcceptor(self._loop, claim, roles, self._limits, self)

    def carry(self, kept: FdTable) -> ControlState:
        """What another program needs to serve the same path as the same instance. Connections are not carried."""
        return ControlState(self._hello.instance, self._opened().claim.carry(kept), self._desk.carry())

    def resume(self, carried: ControlState, roles: Roles, kept: FdTable) -> None:
        """Serve what `carry` told of. Raises `Unsupported`, `OSError`."""
        self._hello = self._hello._replace(instance=carried.instance)
        self._desk.resume(carried.memory)
        self.serve(SocketPath.resume(carried.held, kept), roles)

    def renew(self) -> str:
        """Make the path anew if somebody has removed it: the path, or "" if it is there. Raises `SystemRefused`."""
        return self._opened().claim.path if self._opened().renew() else ""

    def dismiss(self, reason: str, message: str) -> None:
        """Say `bye` to everyone who is connected; the socket stays open, and whoever comes waits in its backlog."""
        for link in list(self._links):
            link.send(messages.bye(reason, message))
            link.end()

    def permit(self, roles: Mapping[str, Sequence[str]]) -> None:
        """Take over the roles of a new configuration, also for who is connected. Raises `ConfigInvalid`."""
        door = self._opened()
        door.roles = Roles.resolve(roles, os.geteuid())
        door.claim.share(shared=door.roles.shared)
        for link in list(self._links):
            link.peer = link.peer._replace(role=identify(link.sock, door.roles).role)
            if not link.peer.role:
                self._dismiss(link, self._no_role(link.peer))

    def progress(self, op: int, phase: str, done: int = 0, total: int = 0, message: str = "") -> None:
        """Tell who waits for the operation how far it is."""
        self._desk.progress(op, phase, done, total, message)

    def ended(self, op: int) -> None:
        """The operation has ended, and `Backend.operation` says how: answer who waits for it."""
        self._desk.settle(op)
        self._time_links()

    def publish(self, topic: str, data: Mapping[str, Any]) -> None:
        """Keep an event, and send it to who watches its topic."""
        try:
            self._desk.watchers.publish(topic, data)
        except SrvdError as problem:
            self._log(Level.ERROR, f"publish an event of {topic}: {problem.message}", {"topic": topic})

    def close(self, reason: str) -> list[int]:
        """Answer who still waits, say `bye` with this reason to everyone, stop listening and give up the path.

        To be called last, when the daemon has nothing left to do but exit. The descriptors that are returned are left
        open on purpose: they belong to those who asked for the stop, and their end of file is to be the process's end.
        """
        if self._door is not None:
            self._door.close()
            self._door = None
        self._desk.close(reason)
        kept = []
        for link in list(self._links):
            link.send(messages.bye(reason, f"srvd {self._hello.name} ends the connection: {reason}"))
            if link in self._desk.stoppers:
                kept.append(link.abandon())
                self.closed(link)
            else:
                link.end()
        self._clock.stop()
        return kept

    # What the door tells.

    def arrived(self, sock: socket.socket, peer: Peer) -> None:
        """Give the peer a seat and greet it; or tell it why there is none, without a greeting."""
        kind = self._seats.take(peer) if peer.role and self._may_enter(peer) else ""
        if not kind:
            problem = _full() if peer.role else self._no_role(peer)
            if self._seldom.may(problem.code, peer.uid, self._loop.time()):
                self._log(Level.WARNING, f"control connection of {peer.actor()} refused: {problem.message}", _of(peer))
            send_and_close(sock, encode(messages.bye(problem.code, problem.message)))
            return
        link = ControlConnection(self._loop, sock, peer, self)
        self._links[link] = kind
        link.send(messages.hello(self._hello._replace(role=peer.role)))
        self.changed(link)

    def _may_enter(self, peer: Peer) -> bool:
        """Admins wait for nobody; of the others so many a second have a seat."""
        return peer.role == ADMIN or not self._gate.pass_one(self._loop.time())

    def short(self, problem: OSError) -> None:
        """The kernel could not give us a connection."""
        if self._seldom.may("short", 0, self._loop.time()):
            self._log(Level.WARNING, f"accept a control connection: {problem.strerror}; it is refused", {})

    def wake_by(self, due: float) -> None:
        self._clock.wake_by(due)

    # What a link tells.

    def received(self, link: ControlConnection, message: Mapping[str, Any]) -> None:
        try:
            self._desk.receive(link, message, self._loop.time())
        except BadFrame as problem:
            self.garbled(link, problem)

    def garbled(self, link: ControlConnection, problem: BadFrame) -> None:
        """One error, and the end of that connection, nothing else."""
        if self._seldom.may("garbled", link.peer.uid, self._loop.time()):
            text = f"control connection of {link.peer.actor()} closed: {problem.message}"
            self._log(Level.WARNING, text, _of(link.peer))
        self._dismiss(link, problem)

    def drained(self, link: ControlConnection) -> None:
        self._desk.watchers.pump(link)

    def changed(self, link: ControlConnection) -> None:
        if link in self._links:
            self._clock.wake_by(self._due(link))

    def closed(self, link: ControlConnection) -> None:
        kind = self._links.pop(link, "")
        if kind:
            self._seats.free(link.peer, kind)
        self._desk.forget(link)
        if not self._links and (self._door is None or self._door.resume_at == NEVER):
            self._clock.stop()

    # Time.

    def _due(self, link: ControlConnection) -> float:
        return min(link.due(self._limits, engaged=self._desk.is_engaged(link)), self._desk.due(link))

    def _on_time(self) -> None:
        now = self._loop.time()
        for link in list(self._links):
            self._desk.expire(link, now)
            if link in self._links:
                self._end_if_overdue(link, now)
        if self._door is not None:
            self._door.resume(now)
            self._clock.wake_by(self._door.resume_at)
        self._time_links()

    def _time_links(self) -> None:
        self._clock.wake_by(min((self._due(link) for link in self._links), default=NEVER))

    def _end_if_overdue(self, link: ControlConnection, now: float) -> None:
        limits = self._limits
        match link.overdue(now, limits, engaged=self._desk.is_engaged(link)):
            case "frame":
                self._dismiss(
                    link, BadFrame(f"read a frame: it did not end within {limits.frame:g} s of its first byte")
                )
            case "stall":
                link.end()  # whoever reads nothing would not read a farewell
            case "idle":
                link.send(messages.bye("idle", f"nothing was asked for {limits.idle:g} s"))
                link.finish()

    def _dismiss(self, link: ControlConnection, problem: SrvdError) -> None:
        link.send(messages.error(0, problem))
        link.send(messages.bye(problem.code, problem.message))
        link.finish()

    def _no_role(self, peer: Peer) -> PermissionRefused:
        if peer.uid == OVERFLOW and self._opened().roles.unknown:
            return PermissionRefused(
                f"uid {peer.uid} stands for every user that the daemon's user namespace does not know, and has no role"
            )
        return PermissionRefused(f"uid {peer.uid} has no role here; the setting `roles` of [control] gives roles")

    def _opened(self) -> ControlAcceptor:
        assert self._door is not None, "the control socket is not open"
        return self._door


def _full() -> Busy:
    return Busy("too many control connections, in all or of your user; try again")


def _of(peer: Peer) -> dict[str, object]:
    return {"uid": peer.uid, "pid": peer.pid}
