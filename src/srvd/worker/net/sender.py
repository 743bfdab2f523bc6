"""Sends queued blocks of a response to a slow client while the application makes the next block.

PEP 3333, "Buffering and Streaming": a block must be sent whatever the application does next. The thread of the call is
in the application at that time, and a worker may have no other; so the sender has a thread of its own. The thread is
started when a client is slow for the first time, sleeps in epoll_wait(2), and runs no code of the application. Of a
connection it uses only the send queue and the socket, both under one lock.
"""

from __future__ import annotations

from select import EPOLLONESHOT, EPOLLOUT, epoll
from threading import Lock, Thread

from srvd.worker.net.send_queue import SendQueue
from srvd.worker.net.transport import Transport

__all__ = ["Sender", "Sending"]

_ONCE = EPOLLOUT | EPOLLONESHOT


class Sending:
    """A send queue that the sender empties. Any other code that uses the queue must hold the lock."""

    __slots__ = ("fd", "lock", "queue", "sock")

    def __init__(self, sock: Transport, queue: SendQueue) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.queue = queue
        self.lock = Lock()


class Sender:
    """The sender of one worker."""

    def __init__(self) -> None:
        self._epoll: epoll | None = None
        self._starting = Lock()
        self._all: dict[int, Sending] = {}

    def begin(self, sock: Transport, queue: SendQueue) -> Sending | None:
        """Empties the send queue from now on. Returns None if no thread can be started: the caller has to send."""
        poll = self._epoll or self._start()
        if poll is None:
            return None
        sending = Sending(sock, queue)
        with sending.lock:
            self._all[sending.fd] = sending
            try:
                poll.register(sending.fd, _ONCE)
            except OSError:  # ENOMEM, ENOSPC: epoll_ctl(2)
                del self._all[sending.fd]
                return None
        return sending

    def again(self, sending: Sending) -> None:
        """Waits for the socket again, after bytes were added. The caller must hold the lock."""
        if self._epoll is not None:
            self._epoll.modify(sending.fd, _ONCE)

    def end(self, sending: Sending) -> None:
        """Stops sending; send queue and socket belong to the caller from now on."""
        with sending.lock:
            del self._all[sending.fd]
            if self._epoll is not None:
                self._epoll.unregister(sending.fd)

    def _start(self) -> epoll | None:
        with self._starting:
            if self._epoll is None:
                try:
                    poll = epoll()
                except OSError:  # no more descriptors
                    return None
                try:
                    Thread(target=self._live, args=(poll,), name="srvd: sender", daemon=True).start()
                except RuntimeError:  # EAGAIN: no more threads for this user
                    poll.close()
                    return None
                self._epoll = poll
            return self._epoll

    def _live(self, poll: epoll) -> None:
        while True:
            for fd, _ in poll.poll():
                sending = self._all.get(fd)
                if sending is not None:
                    with sending.lock:
                        if self._all.get(fd) is sending:
                            self._send(poll, sending)

    def _send(self, poll: epoll, sending: Sending) -> None:
        queue = sending.queue
        try:
            queue.flush(sending.sock)
        except (OSError, EOFError):
            queue.broken = True
            return
        if queue.items:
            poll.modify(sending.fd, _ONCE)
