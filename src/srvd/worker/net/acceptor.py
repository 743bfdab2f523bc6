"""Accepts connections from the listeners of one worker, while there is room.

Knows nothing about requests. Several workers accept from the same listeners; the kernel wakes one of them for each
connection (EPOLLEXCLUSIVE).
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Sequence
from enum import Enum
from itertools import zip_longest
from select import EPOLLET, EPOLLEXCLUSIVE, EPOLLIN
from typing import TYPE_CHECKING, Any, NamedTuple

from srvd.http.h1.sink import Ends
from srvd.worker.context import WorkerContext
from srvd.worker.loop import NEVER
from srvd.worker.net.room import Room

if TYPE_CHECKING:
    from srvd.worker.connections import Connect
    from srvd.worker.net.front import Front, Reception

__all__ = ["Acceptor", "Listening"]

# Seconds without accept(2) after a failure, so that descriptors may become free and the loop does not spin. Also for
# so long, waiting clients are left to other workers, which may have room, before a silent connection is closed.
_PAUSE = 0.25

# accept(2): errors of a connection that has ended already, not of the listener.
_OF_THE_CONNECTION = frozenset({
    errno.ECONNABORTED, errno.EPROTO, errno.ENETDOWN, errno.ENOPROTOOPT, errno.EHOSTDOWN, errno.ENONET,
    errno.EHOSTUNREACH, errno.EOPNOTSUPP, errno.ENETUNREACH, errno.EPERM, errno.ETIMEDOUT,
})  # fmt: skip


class Listening(NamedTuple):
    """What all workers of a generation accept from."""

    sockets: list[socket.socket]
    fronts: Sequence[Front | None] = ()  # one for each socket, None for plain HTTP; empty: plain HTTP for all
    nudge: int = -1  # the eventfd by which workers, and their zygote, wake all workers; -1: none

    def wake_workers(self) -> None:
        """Lets all workers of the generation look for clients: the kernel has woken one of them alone, which does not
        accept. The eventfd is edge-triggered, so that no worker has to read it, and each one gets each wake-up.
        """
        if self.nudge >= 0:
            os.eventfd_write(self.nudge, 1)


class _State(Enum):
    SHUT = "shut"  # accepts nothing
    OPEN = "open"  # the listeners are in the loop
    HELD = "held"  # no room, or the system refused: the listeners are not in the loop
    EMPTYING = "emptying"  # accepts what waits in the backlogs, then nothing more


class Acceptor:
    """The listeners of a worker, shut at first. `open` begins to accept, `shut` leaves new connections to other
    workers, `empty` takes the last ones before the end of the server.
    """

    def __init__(
        self,
        context: WorkerContext,
        connect: Connect,
        listening: Listening,
        most: int,
    ) -> None:
        """`most`: connections at a time."""
        self._context = context
        self._connect = connect
        self._listeners = [
            _Listener(self, sock, front.reception(context, connect) if front else None)
            for sock, front in zip_longest(listening.sockets, listening.fronts)
        ]
        self._waiting: list[_Listener] = []  # listeners with a backlog to empty before the end
        self._state = _State.SHUT
        self._room = Room(context, most)
        self.deadline = NEVER
        context.loop.watch(self)
        self._pressure = _Pressure(self.press)
        context.loop.watch(self._pressure)
        self._wake_others = listening.wake_workers
        if listening.nudge >= 0:
            context.loop.add(listening.nudge, EPOLLIN | EPOLLET, self._on_nudge)

    def open(self) -> None:
        """Accepts from now on."""
        if not self.opened:
            self._state = _State.OPEN
            self._register()

    def shut(self, now: float, *, stuck: bool = False) -> None:
        """Stops accepting, after a last client that waits already, if a thread is free for it: the kernel may have
        woken this worker alone, and wakes another one only for the next client. A worker that is `stuck` accepts none,
        and wakes the others.
        """
        woken = self.accepting
        self._close()
        if woken and stuck:
            self._wake_others()
        for listener in self._listeners if woken and not stuck else ():
            if self._room.is_left and not self._context.swamped(now, self._on_free):
                self._take(listener, now)

    def _close(self) -> None:
        if self.accepting:
            self._unregister()
        if self.opened:
            self._state = _State.SHUT
        self._room.pressed = False

    def empty(self, now: float, left_over: Sequence[int] = ()) -> None:
        """Accepts all waiting connections, then no more. The daemon has made the listeners refuse new ones before.

        Leaves out listeners at the positions `left_over`: another process listens there, and new connections arrive.
        """
        if self.opened:
            self._close()
            self._waiting = [listener for place, listener in enumerate(self._listeners) if place not in left_over]
            self._state = _State.EMPTYING
            self._empty_more(now)

    def give_up(self) -> None:
        """Leaves what still waits in the backlogs."""
        self._state = _State.SHUT

    def room(self, now: float) -> None:
        """Goes on after a connection has ended."""
        if self.emptying:
            self._context.loop.later(self._empty_more)
        elif self._state is _State.HELD and self.deadline == NEVER and self._room.is_left:
            self._release()

    def _on_free(self, now: float) -> None:
        """Ends the pause, because a thread is free for a waiting client."""
        if self.deadline != NEVER:
            self.expire(now)

    def expire(self, now: float) -> None:
        """Goes on at the end of the pause."""
        self.deadline = NEVER
        if self.emptying:
            self._empty_more(now)
        elif self._state is _State.HELD:
            self._try_again(now)

    def _try_again(self, now: float) -> None:
        """Accepts before it registers the listeners: otherwise another client could come and wake only this worker."""
        empty = [self._admit(listener, now) for listener in self._listeners]
        if self._state is not _State.HELD or self.deadline != NEVER:
            return
        if all(empty):
            self._room.pressed = False
            if self._room.is_left:
                self._release()
            else:
                self._press_later(now)
        elif self._room.pressed or self._room.is_left:
            # Only after the first client's request is read is it known whether a thread is free for the next client.
            self._context.loop.later(self._take_next)

    def _press_later(self, now: float) -> None:
        self._pressure.deadline = now + _PAUSE
        self._context.loop.due_at(self._pressure.deadline)

    def press(self, now: float) -> None:
        """Lets silent connections make room, after the worker was full for a while: if a client still waits, no other
        worker has room either.
        """
        if self._state is _State.HELD and self.deadline == NEVER and not self._room.is_left:
            self._room.pressed = True
            self._try_again(now)

    def _take_next(self, now: float) -> None:
        if self._state is _State.HELD and self.deadline == NEVER:
            self._try_again(now)

    def _on_nudge(self, mask: int, now: float) -> None:
        """Looks for clients, because another worker was woken for one and could not accept it, or has ended."""
        for listener in self._listeners:
            self.later(listener)

    def _admit(self, listener: _Listener, now: float) -> bool:
        """Accepts one waiting client, if there is room. Returns True if no client waits there."""
        spare = None
        if not self._room.is_left:
            spare = self._room.spare(now)
            if spare is None:
                self._hold()
                self._press_later(now)
                return False
        breath = self._context.swamped(now, self._on_free)
        if breath:
            self._pause(now, breath)
            return False
        taken = self._take(listener, now)
        if taken and spare is not None:
            self._room.part_with(spare, now)
        return taken is None

    def _take(self, listener: _Listener, now: float) -> bool | None:
        """Accepts one client. Returns whether that succeeded; None if no client waits."""
        try:
            sock, peer = listener.sock.accept()
        except BlockingIOError:
            return None
        except OSError as exc:
            if self.emptying and exc.errno == errno.EINVAL:  # the daemon has closed it, after it was empty
                return None
            if exc.errno not in _OF_THE_CONNECTION:
                self._refused(exc, now)
            return False
        sock.setblocking(False)
        ends = listener.ends(sock, peer)
        if listener.reception is None:
            self._context.loop.later(self._connect(sock, ends, now, self._context.heads).greet)
        else:
            listener.reception.welcome(sock, ends, now)
        return True

    def accept(self, listener: _Listener, now: float) -> None:
        """Accepts one waiting client; if more wait, epoll reports that again, also to other workers."""
        if self.accepting:
            self._admit(listener, now)
        if self.accepting:
            self._go_last(listener)

    @property
    def opened(self) -> bool:
        """Whether the worker accepts, or would if there were room."""
        return self._state in (_State.OPEN, _State.HELD)

    @property
    def accepting(self) -> bool:
        return self._state is _State.OPEN

    @property
    def emptying(self) -> bool:
        """Whether connections in the backlogs are still to be accepted before the end."""
        return self._state is _State.EMPTYING

    def _go_last(self, listener: _Listener) -> None:
        """Leaves the next connections to other workers.

        The kernel wakes the first worker in the listener's queue, which would get most of the connections: so this
        worker moves to the end of the queue. If it has nothing else to do, it also yields, so that workers woken at the
        same time get their share of a burst. Measured, 64 connections at once to 4 workers on 2 cores: 16 each, and
        without both between 1 and 57. The yield costs 0.6 µs; on an overloaded machine milliseconds, of an idle worker.
        """
        loop, fd = self._context.loop, listener.sock.fileno()
        loop.remove(fd)
        loop.add(fd, EPOLLIN | EPOLLEXCLUSIVE, listener.on_ready)
        if loop.ready == 1:
            os.sched_yield()

    def _refused(self, exc: OSError, now: float) -> None:
        """Pauses after EMFILE, ENFILE, ENOBUFS or ENOMEM. Clients stay in the backlog, for this or another worker."""
        if self._state is not _State.HELD:  # once, and not four times a second
            self._context.log.warning(f"accept a connection: {exc.strerror}; trying again every {_PAUSE:g} s")
        self._pause(now, _PAUSE)

    def _pause(self, now: float, seconds: float) -> None:
        self._hold()
        self.deadline = now + seconds
        self._context.loop.due_at(self.deadline)

    def _hold(self) -> None:
        if self.accepting:
            self._state = _State.HELD
            self._unregister()
            self._wake_others()

    def _release(self) -> None:
        self._state = _State.OPEN
        self._room.pressed = False
        self._register()

    def _empty_more(self, now: float) -> None:
        if not self.emptying or self.deadline != NEVER:
            return
        # One client at a time, served before the next is accepted: other leaving workers get their share meanwhile.
        waiting = [listener for listener in self._waiting if not self._admit(listener, now)]
        if not waiting:
            self._state = _State.SHUT
            self._context.connections.on_left(now)
        elif self.deadline == NEVER and self._room.is_left:
            self._context.loop.later(self._empty_more)

    def _register(self) -> None:
        for listener in self._listeners:
            self._context.loop.add(listener.sock.fileno(), EPOLLIN | EPOLLEXCLUSIVE, listener.on_ready)

    def _unregister(self) -> None:
        for listener in self._listeners:
            self._context.loop.remove(listener.sock.fileno())

    def later(self, listener: _Listener) -> None:
        """Accepts after the connections that are ready in this turn were served."""
        self._context.loop.later(listener.accept)


class _Pressure:
    """A second deadline of the acceptor."""

    def __init__(self, press: Callable[[float], None]) -> None:
        self._press = press
        self.deadline = NEVER

    def expire(self, now: float) -> None:
        self.deadline = NEVER
        self._press(now)


class _Listener:
    """One listener, and the ends of its connections."""

    def __init__(self, acceptor: Acceptor, sock: socket.socket, reception: Reception | None) -> None:
        sock.setblocking(False)
        self._acceptor = acceptor
        self._base = Ends(path=_path_of(sock))
        self._inet = sock.family in (socket.AF_INET, socket.AF_INET6)
        self._any = False
        self.sock = sock
        self.reception = reception
        if self._inet:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
            host, port = sock.getsockname()[:2]
            self._any = host in ("0.0.0.0", "::")  # noqa: S104 -- compared, not bound
            self._base = Ends(server=host, server_port=str(port))

    def on_ready(self, mask: int, now: float) -> None:
        self._acceptor.later(self)

    def accept(self, now: float) -> None:
        self._acceptor.accept(self, now)

    def ends(self, sock: socket.socket, peer: Any) -> Ends:
        """Returns the two ends of an accepted connection."""
        if not self._inet:
            return self._base
        server = _plain(sock.getsockname()[0]) if self._any else self._base.server
        return Ends(_plain(peer[0]), str(peer[1]), server, self._base.server_port)


def _path_of(sock: socket.socket) -> str:
    """Returns the path of a Unix socket; "" for another one, or one without a name."""
    name = sock.getsockname() if sock.family == socket.AF_UNIX else ""
    return os.fsdecode(name)


def _plain(address: str) -> str:
    """Returns an IPv4-mapped IPv6 address as IPv4; any other address as it is."""
    return address.removeprefix("::ffff:") if "." in address else address
