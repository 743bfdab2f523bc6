"""The control socket's server: admits peers, ends connections that are late, and hands requests to their handler.

Does not know what a request means (requests.py), nor what becomes of it (backend.py). Raw non-blocking sockets on the
daemon's loop, and one timer, which is set only while there is a deadline: an idle daemon is not woken.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from srvd import __version__
from srvd.core.model import Level
from srvd.daemon.control.acceptor import ControlAcceptor, send_and_close
from srvd.daemon.control.admission import ConnectionSlots, LogLimiter
from srvd.daemon.control.clock import NEVER, Clock
from srvd.daemon.control.connection import ControlConnection
from srvd.daemon.control.limits import Limits
from srvd.daemon.control.peers import Peer, Roles, identify
from srvd.daemon.control.requests import Backend, Log, RequestHandler, RequestsState
from srvd.daemon.control.socket_path import SocketPath, SocketPathState
from srvd.daemon.fd_table import FdTable
from srvd.daemon.loop import Loop
from srvd.errors import BadFrame, Busy, SrvdError
from srvd.record import Record
from srvd.wire import messages

__all__ = ["Backend", "ControlServer", "ControlState", "Limits", "Log", "Peer"]


class ControlState(Record):
    """The control socket as it is handed over."""

    instance: str
    held: SocketPathState
    memory: RequestsState


class ControlServer:
    """Serves the control socket of one daemon from `open()` to `close()`."""

    def __init__(self, loop: Loop, backend: Backend, log: Log, name: str, limits: Limits | None = None) -> None:
        self._loop = loop
        self._log = log
        instance = f"{os.getpid()}-{os.urandom(4).hex()}"
        self._hello = messages.Hello(version=__version__, name=name, instance=instance, pid=os.getpid())
        self._limits = limits or Limits()
        self._requests = RequestHandler(backend, log, self._limits.waits)
        self._acceptor: ControlAcceptor | None = None
        self._connections: dict[ControlConnection, str] = {}  # with the kind of its slot
        self._slots = ConnectionSlots(self._limits, loop.time())
        self._clock = Clock(loop, self._on_time)
        self._log_limiter = LogLimiter()

    def open(self, path: str, roles: Mapping[str, Sequence[str]]) -> None:
        """Makes the socket and serves it. Raises `SystemRefused` and `ConfigInvalid`, and leaves nothing behind."""
        granted = Roles.resolve(roles, os.geteuid())
        self.serve(SocketPath.open(path, shared=granted.shared), granted)

    def serve(self, socket_path: SocketPath, roles: Roles) -> None:
        """Serves a socket that was made before."""
        self._acceptor = ControlAcceptor(self._loop, socket_path, roles, self._limits, self)

    def save(self, table: FdTable) -> ControlState:
        """Returns what the next program needs to serve the same path as the same instance. Connections are ended."""
        return ControlState(self._hello.instance, self._opened().socket_path.save(table), self._requests.save())

    def restore(self, saved: ControlState, roles: Roles, table: FdTable) -> None:
        """Serves what `save` returned. Raises `Unsupported`, `OSError`."""
        self._hello = self._hello._replace(instance=saved.instance)
        self._requests.restore(saved.memory)
        self.serve(SocketPath.restore(saved.held, table), roles)

    def renew(self) -> str:
        """Makes the path anew if it was removed, and returns it then, else "". Raises `SystemRefused`."""
        return self._opened().socket_path.path if self._opened().renew() else ""

    def dismiss(self, reason: str, message: str) -> None:
        """Sends `bye` to all peers and closes their connections. The socket stays open, others wait in its backlog."""
        for connection in list(self._connections):
            connection.send(messages.bye(reason, message))
            connection.end()

    def permit(self, roles: Mapping[str, Sequence[str]]) -> None:
        """Applies the roles of a new configuration, also to peers that are connected. Raises `ConfigInvalid`."""
        acceptor = self._opened()
        acceptor.roles = Roles.resolve(roles, os.geteuid())
        acceptor.socket_path.share(shared=acceptor.roles.shared)
        for connection in list(self._connections):
            connection.peer = connection.peer._replace(role=identify(connection.sock, acceptor.roles).role)
            if not connection.peer.role:
                self._dismiss(connection, acceptor.roles.refusal(connection.peer.uid))

    def progress(self, op: int, phase: str, done: int = 0, total: int = 0, message: str = "") -> None:
        """Reports the progress of an operation to the peers that wait for it."""
        self._requests.progress(op, phase, done, total, message)

    def ended(self, op: int) -> None:
        """Answers the peers that wait for the operation, which has ended; `Backend.operation` says how."""
        self._requests.settle(op)
        self._time_connections()

    def publish(self, topic: str, name: str, data: Mapping[str, Any]) -> None:
        """Keeps an event, and sends it to the subscribers of its topic."""
        try:
            self._requests.subscribers.publish(topic, name, data)
        except SrvdError as problem:
            self._log(Level.ERROR, f"publish the event {name}: {problem.message}", {"topic": topic})

    def close(self, reason: str) -> list[int]:
        """Stops listening and removes the path, answers the peers that still wait, and says `bye` to all.

        Called last, when the daemon has nothing left to do but exit. Returns the descriptors of the peers that ordered
        the stop. They stay open until the process ends, so that their end of file tells those peers that it has ended.
        """
        if self._acceptor is not None:
            self._acceptor.close()
            self._acceptor = None
        self._requests.close(reason)
        left_open = []
        for connection in list(self._connections):
            connection.send(messages.bye(reason, f"srvd {self._hello.name} ends the connection: {reason}"))
            if connection in self._requests.stoppers:
                left_open.append(connection.abandon())
                self.closed(connection)
            else:
                connection.end()
        self._clock.stop()
        return left_open

    # Reports of the acceptor.

    def arrived(self, sock: socket.socket, peer: Peer) -> None:
        """Gives the peer a slot and greets it, or sends `bye` with the reason and no greeting."""
        kind = self._slots.take(peer, self._loop.time())
        if not kind:
            problem = _full() if peer.role else self._opened().roles.refusal(peer.uid)
            if self._log_limiter.may(problem.code, peer.uid, self._loop.time()):
                self._log(Level.WARNING, f"control connection of {peer.actor()} refused: {problem.message}", _of(peer))
            send_and_close(sock, messages.bye(problem.code, problem.message))
            return
        connection = ControlConnection(self._loop, sock, peer, self)
        self._connections[connection] = kind
        connection.send(messages.hello(self._hello._replace(role=peer.role)))
        self.changed(connection)

    def short(self, problem: OSError) -> None:
        """Logs that the kernel could not give the daemon a connection."""
        if self._log_limiter.may("short", 0, self._loop.time()):
            self._log(Level.WARNING, f"accept a control connection: {problem.strerror}; it is refused", {})

    def wake_by(self, due: float) -> None:
        self._clock.wake_by(due)

    # What a connection tells.

    def received(self, connection: ControlConnection, message: Mapping[str, Any]) -> None:
        try:
            self._requests.receive(connection, message, self._loop.time())
        except BadFrame as problem:
            self.garbled(connection, problem)

    def garbled(self, connection: ControlConnection, problem: BadFrame) -> None:
        """Sends one error and ends that connection, nothing else."""
        if self._log_limiter.may("garbled", connection.peer.uid, self._loop.time()):
            text = f"control connection of {connection.peer.actor()} closed: {problem.message}"
            self._log(Level.WARNING, text, _of(connection.peer))
        self._dismiss(connection, problem)

    def drained(self, connection: ControlConnection) -> None:
        self._requests.subscribers.pump(connection)

    def changed(self, connection: ControlConnection) -> None:
        if connection in self._connections:
            self._clock.wake_by(self._due(connection))

    def closed(self, connection: ControlConnection) -> None:
        kind = self._connections.pop(connection, "")
        if kind:
            self._slots.free(connection.peer, kind)
        self._requests.forget(connection)
        if not self._connections and (self._acceptor is None or self._acceptor.paused_until == NEVER):
            self._clock.stop()

    # Time.

    def _due(self, connection: ControlConnection) -> float:
        return min(
            connection.due(self._limits, engaged=self._requests.is_engaged(connection)), self._requests.due(connection)
        )

    def _on_time(self) -> None:
        now = self._loop.time()
        for connection in list(self._connections):
            self._requests.expire(connection, now)
            if connection in self._connections:
                self._end_if_overdue(connection, now)
        if self._acceptor is not None:
            self._acceptor.accept_again(now)
            self._clock.wake_by(self._acceptor.paused_until)
        self._time_connections()

    def _time_connections(self) -> None:
        self._clock.wake_by(min((self._due(connection) for connection in self._connections), default=NEVER))

    def _end_if_overdue(self, connection: ControlConnection, now: float) -> None:
        limits = self._limits
        match connection.overdue(now, limits, engaged=self._requests.is_engaged(connection)):
            case "frame":
                self._dismiss(
                    connection, BadFrame(f"read a frame: it did not end within {limits.frame:g} s of its first byte")
                )
            case "stall":
                connection.end()  # a peer that reads nothing would not read a `bye`
            case "idle":
                connection.send(messages.bye("idle", f"nothing was asked for {limits.idle:g} s"))
                connection.finish()

    def _dismiss(self, connection: ControlConnection, problem: SrvdError) -> None:
        connection.send(messages.error(0, problem))
        connection.send(messages.bye(problem.code, problem.message))
        connection.finish()

    def _opened(self) -> ControlAcceptor:
        assert self._acceptor is not None, "the control socket is not open"
        return self._acceptor


def _full() -> Busy:
    return Busy("too many control connections, in all or of your user; try again")


def _of(peer: Peer) -> dict[str, object]:
    return {"uid": peer.uid, "pid": peer.pid}
