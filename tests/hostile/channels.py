"""A worker that is hostile on every channel it has: a table of channel × abuse, each a function of one program.

To add an abuse, add a function `CHANNEL__ABUSE(dice)` to the text below: `test_channels.py` tries each alone, and
`test_siege.py` all of them. `LETHAL` ends the worker, `FOREIGN` needs another user than the daemon's: to the kernel a
daemon's own user may do it. Claims nothing.
"""

from __future__ import annotations

from tests.hostile.attackers import DICE, LINGERING, LINK, abuses_of

__all__ = ["ABUSES", "FOREIGN", "LETHAL", "PROGRAM"]

_TABLE = """
import fcntl, signal, threading

def packed(name, *values):
    import msgpack
    return msgpack.packb([name, *values])

def say(datagram, times=1):
    for link in links():
        try:
            for _ in range(times):
                link.send(datagram, socket.MSG_DONTWAIT)
        except OSError:
            pass
        finally:
            link.close()

def descriptors(*kinds):
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            name = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue
        if any(kind in name for kind in kinds):
            yield fd, name

# -- link ---------------------------------------------------------------------------------------------------------

def link__woke_flood(dice):
    say(packed("WatchBell"), 300)

def link__pong_flood(dice):
    say(packed("Pong"), 300)

def link__garbage(dice):
    say(dice.randbytes(1 + dice.randrange(2000)))

def link__empty(dice):
    say(b"")

def link__deep(dice):
    say(b"\\x91" * 60000)

def link__longest(dice):
    say(packed("Mixed", "x" * 120000), 5)

def link__worn(dice):
    say(packed("Expired", "served \\x1b[2J" + "9" * 10000))

def link__ready_again(dice):
    say(packed("Ready"), 5)

def link__false_bye(dice):
    say(packed("Bye"))

def link__failed(dice):
    say(packed("Failed", "x", "y" * 10000))

def link__probed(dice):
    say(packed("Probed", True, "z" * 10000))

def link__words_of_a_zygote(dice):
    say(packed("Forked", 1, 1))

def link__lone_numbers(dice):
    say(packed("Reopened", 2**63))

def link__lingering_descriptor(dice):
    fd, rest = lingering(20)
    for link in links():
        passes(link, packed("Pong"), fd.fileno())
        link.close()
    threading.Thread(target=fd.close, daemon=True).start()  # where the kernel has refused it, this one is the last
    if len(kept) < 20:
        kept.extend(rest)

def link__many_descriptors(dice):
    for link in links():
        try:
            socket.send_fds(link, [packed("Pong")], [0] * 200)
        except OSError:
            pass
        link.close()

def link__unread(dice):
    if len(kept) < 20:
        kept.extend(links())

def link__shut(dice):
    for link in links():
        link.shutdown(socket.SHUT_RDWR)

# -- shared memory --------------------------------------------------------------------------------------------------

def memory__scribble(dice):
    for fd, name in descriptors("srvd-scoreboard", "srvd-bell", "srvd"):
        try:
            size = os.fstat(fd).st_size
            os.pwrite(fd, dice.randbytes(min(size, 65536)), 0)
        except (OSError, ValueError):
            pass

def memory__zero(dice):
    for fd, name in descriptors("memfd:"):
        try:
            os.pwrite(fd, bytes(os.fstat(fd).st_size), 0)
        except (OSError, ValueError):
            pass

def memory__truncate(dice):
    for fd, name in descriptors("memfd:"):
        for size in (0, 1 << 40):
            try:
                os.ftruncate(fd, size)
            except OSError:
                pass

def memory__reopen_for_writing(dice):
    for fd, name in descriptors("memfd:"):
        try:
            again = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
            os.pwrite(again, b"\\xff" * 64, 0)
            os.close(again)
        except OSError:
            pass

# -- open files -----------------------------------------------------------------------------------------------------

def files__blocking(dice):
    for fd, name in descriptors("pipe:", "socket:"):
        try:
            os.set_blocking(fd, dice.random() < 0.5)
        except OSError:
            pass

def files__unlock(dice):
    for fd, name in descriptors("family", "lock"):
        try:
            fcntl.flock(fd, fcntl.LOCK_UN)
            os.write(fd, b"srvd-forged")
        except OSError:
            pass

def files__read_pipes(dice):
    for fd, name in descriptors("pipe:"):
        if fd > 2:
            try:
                os.set_blocking(fd, False)
                os.read(fd, 65536)
            except OSError:
                pass

def files__exhaust(dice):
    held = []
    try:
        while len(held) < 500:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    for fd in held:
        os.close(fd)

def files__async_signals(dice):
    for fd, name in descriptors("socket:"):
        try:
            fcntl.fcntl(fd, fcntl.F_SETOWN, os.getppid())
        except OSError:
            pass

# -- output ---------------------------------------------------------------------------------------------------------

def output__flood(dice):
    os.set_blocking(2, False)
    try:
        for _ in range(20):
            os.write(2, dice.randbytes(4096))
    except OSError:
        pass

def output__forged_lines(dice):
    print("2026-01-01 00:00:00.000 ERROR the daemon is ended\\r\\x1b[2J", flush=True)

def output__endless_line(dice):
    try:
        os.write(1, b"x" * 60000)
    except OSError:
        pass

def output__kept_by_a_child(dice):
    if len(children) < 3:
        children.append(os.posix_spawn("/bin/sleep", ["sleep", "30"], {}, setsid=True))

# -- listeners ------------------------------------------------------------------------------------------------------

def listener__shut_down(dice):
    for link in sockets(socket.SOCK_STREAM):
        try:
            if link.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                link.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        link.close()

def listener__steal(dice):
    for link in sockets(socket.SOCK_STREAM):
        try:
            if link.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                link.setblocking(False)
                link.accept()
        except OSError:
            pass
        link.close()

def sockets(kind):
    for _, sock in open_sockets(socket.AF_INET, kind):
        yield sock

# -- processes ------------------------------------------------------------------------------------------------------

def process__exit(dice):
    os._exit(dice.randrange(256))

def process__crash(dice):
    os.kill(os.getpid(), signal.SIGSEGV)

def process__kill(dice):
    os.kill(os.getpid(), signal.SIGKILL)

def process__stop(dice):
    os.kill(os.getpid(), signal.SIGSTOP)

def process__becomes_another(dice):
    os.execv("/bin/sleep", ["sleep", "20"])

def process__closes_all(dice):
    os.closerange(0, 200)

def process__hogs_the_interpreter(dice):
    sum(range(40_000_000))

def process__ignores_signals(dice):
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())

def process__title(dice):
    open("/proc/self/comm", "w").write("srvd: daemon")

def process__leaves_its_group(dice):
    os.setpgid(0, 0) if os.getpgid(0) != os.getpid() else None

def process__ends_siblings(dice):
    for pid in others():
        if os.stat(f"/proc/{pid}").st_uid == os.getuid():
            os.kill(pid, signal.SIGKILL)
            return

# -- other users' processes and files -------------------------------------------------------------------------------

def others():
    for name in os.listdir("/proc"):
        if name.isdecimal() and int(name) not in (os.getpid(), os.getppid()):
            try:
                command = open(f"/proc/{name}/cmdline", "rb").read()
            except OSError:
                continue
            if b"srvd: worker" in command or b"srvd: zygote" in command or b"srvd: daemon" in command:
                yield int(name)

def foreign__signals(dice):
    for pid in others():
        if os.stat(f"/proc/{pid}").st_uid != os.getuid():
            for number in (signal.SIGTERM, signal.SIGSTOP, signal.SIGKILL):
                try:
                    os.kill(pid, number)
                except OSError:
                    continue
                os.write(2, b"LEAK: signalled\\n")

def foreign__reads(dice):
    for pid in others():
        try:
            if os.stat(f"/proc/{pid}").st_uid == os.getuid():
                continue
        except OSError:
            continue
        for what in ("environ", "mem", "maps", "fd", "cwd/secret"):
            try:
                os.listdir(f"/proc/{pid}/fd") if what == "fd" else open(f"/proc/{pid}/{what}", "rb").read(1)
            except OSError:
                continue
            os.write(2, f"LEAK: read {what}\\n".encode())

def foreign__control_socket(dice):
    peer = socket.socket(socket.AF_UNIX)
    try:
        peer.settimeout(1)
        peer.connect(os.environ["SHOP_CONTROL"])
        body = packed_map()
        peer.sendall(len(body).to_bytes(4, "big") + body)
        if b"hello" in peer.recv(1000):
            os.write(2, b"LEAK: a role\\n")
    except OSError:
        pass
    finally:
        peer.close()

def packed_map():
    import msgpack
    return msgpack.packb({"type": "req", "id": 1, "method": "stop", "args": {}})

def foreign__files(dice):
    folder = os.path.dirname(os.environ["SHOP_CONTROL"])
    for name in os.listdir(folder):
        for act in (os.unlink, lambda path: open(path, "a")):
            if name.startswith(("control", "srvd.toml", "secret", "log")):
                try:
                    act(os.path.join(folder, name))
                except OSError:
                    continue
                os.write(2, f"LEAK: changed {name}\\n".encode())

def foreign__rendezvous(dice):
    for line in open("/proc/net/unix"):
        if "@srvd" in line:
            peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            try:
                peer.settimeout(0.2)
                peer.connect("\\0" + line.split("@", 1)[1].strip())
                peer.send(dice.randbytes(100))
            except OSError:
                pass
            peer.close()
"""

PROGRAM = "import os, socket, sys, time\nkept, children = [], []\n" + DICE + LINGERING + LINK + _TABLE
"""Defines all abuses; needs SHOP_CONTROL in its environment."""

ABUSES = abuses_of(_TABLE)

LETHAL = (
    "link__garbage", "link__empty", "link__deep", "link__failed", "link__words_of_a_zygote", "link__lone_numbers",
    "link__false_bye", "link__ready_again", "link__probed", "link__shut", "link__longest", "process__exit",
    "process__crash", "process__kill", "process__becomes_another", "process__closes_all", "process__ends_siblings",
)  # fmt: skip
"""End their worker, or may: not in its first seconds, or the pool would only crash, and attack ever more rarely."""

FOREIGN = tuple(name for name in ABUSES if name.startswith("foreign__"))
