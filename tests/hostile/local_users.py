"""A hostile local user without a role: a table of channel × abuse, each a function of one program.

To add an abuse, add a function `CHANNEL__ABUSE(dice)` to the text below: `test_local_users.py` tries each alone, and
`system/test_pool_users.py` each as a pool's user, against the daemon and the other pool. Arguments of the program: the
path of the socket, the daemon's pid, pids of all that it must not touch (with commas), then what must never be read.
Claims nothing.

What has a test of its own is not here: a socket that lingers, passed at the control socket and at the rendezvous
(test_descriptors.py), and a flood that delays an admin (test_bounds.py).
"""

from __future__ import annotations

from tests.hostile.attackers import ATTEMPTS, DICE, PEER, abuses_of

__all__ = ["ABUSES", "PROGRAM"]

_TABLE = """
import array, ctypes, fcntl, resource, select, signal, threading
PATH, DAEMON, TARGETS = sys.argv[1], int(sys.argv[2]), [int(pid) for pid in sys.argv[3].split(",")]
SECRETS = [text.encode() for text in sys.argv[4:]]
FOLDER = os.path.dirname(PATH)
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

def call(number, *given):
    '''A system call by its number, as all architectures have it since pidfd_open.'''
    if libc.syscall(ctypes.c_long(number), *(ctypes.c_long(one) if isinstance(one, int) else one for one in given)) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

def own_files():
    return [os.path.join(FOLDER, name) for name in os.listdir(FOLDER) if name.startswith(("control", "secret"))]

# -- control socket -------------------------------------------------------------------------------------------------

def socket__is_let_in(dice):
    peer = Peer(PATH)
    must(b"hello" not in peer.hello and b"permission" in peer.hello, f"greeted: {peer.hello[:200]}")

def socket__orders_before_it_is_greeted(dice):
    for method in ("ping", "status", "stop", "dump", "config", "watch"):
        with Peer(PATH) as peer:
            peer.send(request(method))
            must(b"result" not in peer.rest(), method)

def socket__orders_in_the_moment_of_connecting(dice):
    for _ in range(200):
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(PATH)
            try:
                peer.sendall(request("stop", now=True))
            except OSError:
                pass
    tried.append("stop")

def socket__garbage(dice):
    for _ in range(50):
        with Peer(PATH) as peer:
            peer.send(dice.randbytes(1 + dice.randrange(100_000)))
            must(b"result" not in peer.rest(), "garbage is answered")

def socket__floods(dice):
    for _ in range(1500):
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(PATH)
    tried.append("flood")

def socket__holds(dice):
    held = []
    for _ in range(300):
        held.append(socket.socket(socket.AF_UNIX))
        held[-1].connect(PATH)
    time.sleep(0.3)
    tried.append("held")

def socket__shuts_one_side(dice):
    for how in (socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR):
        with Peer(PATH) as peer:
            try:
                peer.sock.shutdown(how)
            except OSError:  # it was closed already
                pass
    tried.append("shut")

def socket__passes_itself(dice):
    '''Descriptors that hold each other: only the kernel's collector would find them.'''
    for _ in range(20):
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(PATH)
            poll = select.epoll()
            poll.register(peer)
            for fds in ([peer.fileno()], [poll.fileno()], [0] * 253, [os.pidfd_open(os.getpid())]):
                try:
                    peer.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
                except OSError:
                    pass
            poll.close()
    tried.append("passed")

def socket__as_a_process_that_is_gone(dice):
    for _ in range(20):
        if os.fork() == 0:
            peer = socket.socket(socket.AF_UNIX)
            peer.connect(PATH)
            os._exit(0)
        os.wait()
    tried.append("gone")

def socket__of_other_kinds(dice):
    for kind in (socket.SOCK_SEQPACKET, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_UNIX, kind) as peer:
            refused(f"connected as {kind}", peer.connect, PATH)

# -- names ----------------------------------------------------------------------------------------------------------

def names__calls_at_each(dice):
    '''Everything that listens at an abstract name of srvd's: that of an adoption stays open.'''
    for line in open("/proc/net/unix"):
        if "@srvd-" not in line:
            continue
        for data in (b"", dice.randbytes(100), b"\\x91\\xa8CallHome", b"\\xc0" * 60_000):
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
                peer.settimeout(2)
                try:
                    peer.connect("\\0" + line.split("@", 1)[1].strip())
                    peer.send(data)
                except OSError:
                    continue
    tried.append("called")

def names__takes_those_it_guesses(dice):
    held = []
    for name in (f"\\0srvd-{dice.randbytes(16).hex()}" for _ in range(200)):
        held.append(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        held[-1].bind(name)
    tried.append("bound")

# -- files beside the socket ----------------------------------------------------------------------------------------

def files__opens(dice):
    for path in own_files():
        for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR | os.O_APPEND):
            refused(f"opened {path}", os.open, path, flags)

def files__locks(dice):
    for path in own_files():
        refused(f"locked {path}", lambda: fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB))
    refused("locked through a descriptor of the daemon's", lambda: [
        fcntl.flock(os.open(f"/proc/{DAEMON}/fd/{fd}", os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB) for fd in range(50)
    ])

def files__exchanges(dice):
    for path in own_files():
        refused(f"removed {path}", os.unlink, path)
        refused(f"renamed {path}", os.rename, path, path + ".mine")
        refused(f"replaced {path}", os.symlink, "/etc/passwd", path + ".tmp")
        refused(f"linked {path}", os.link, path, f"/tmp/srvd-linked-{os.getpid()}")
        refused(f"chmod of {path}", os.chmod, path, 0o666)
        refused(f"truncated {path}", os.truncate, path, 0)
        refused(f"times of {path}", os.utime, path, (1, 1))

def files__watches(dice):
    '''Names in a folder that is open are told by the kernel; what is in a file is not.'''
    notify = libc.inotify_init()
    for path in own_files():
        if not path.endswith(".sock"):
            must(libc.inotify_add_watch(notify, path.encode(), 0xfff) < 0, f"watches {path}")

def files__adds(dice):
    for name in ("control.sock.lock.new", "srvd.toml", "json.py", "control.sock.state.tmp", ".srvd"):
        refused(f"made {name}", os.open, os.path.join(FOLDER, name), os.O_CREAT | os.O_WRONLY)

def memory__shared(dice):
    '''What has a name; what has none is reached through /proc only.'''
    for name in os.listdir("/dev/shm"):
        if "srvd" in name:
            refused(f"opened {name}", os.open, f"/dev/shm/{name}", os.O_RDWR)
    for pid in TARGETS:
        for fd in range(64):
            refused(f"opened {fd} of {pid}", os.open, f"/proc/{pid}/fd/{fd}", os.O_RDWR)
            refused(f"read the link {fd} of {pid}", os.readlink, f"/proc/{pid}/fd/{fd}")

# -- processes ------------------------------------------------------------------------------------------------------

def process__reads(dice):
    for pid in TARGETS:
        for what in ("environ", "mem", "maps", "smaps", "auxv", "pagemap", "stack", "syscall", "io", "timers"):
            refused(f"read {what} of {pid}", lambda: open(f"/proc/{pid}/{what}", "rb").read(1))
        for what in ("fd", "fdinfo", "map_files"):
            refused(f"listed {what} of {pid}", os.listdir, f"/proc/{pid}/{what}")
        for what in ("cwd", "root", "exe"):
            refused(f"followed {what} of {pid}", os.readlink, f"/proc/{pid}/{what}")
        for what in ("cmdline", "comm", "status", "stat"):  # which everybody may read
            got = open(f"/proc/{pid}/{what}", "rb").read()
            must(not any(secret in got for secret in SECRETS), f"a secret in {what} of {pid}")

def process__writes(dice):
    for pid in TARGETS:
        for what in ("comm", "oom_score_adj", "mem", "timerslack_ns", "coredump_filter", "clear_refs", "autogroup"):
            refused(f"wrote {what} of {pid}", lambda: open(f"/proc/{pid}/{what}", "wb", buffering=0).write(b"1"))

def process__signals(dice):
    for pid in TARGETS:
        for number in (0, signal.SIGTERM, signal.SIGHUP, signal.SIGSTOP, signal.SIGCONT, signal.SIGKILL):
            refused(f"signalled {pid}", os.kill, pid, number)
            refused(f"signalled the group {pid}", os.killpg, pid, number)
            refused(f"signalled {pid} by its pidfd", signal.pidfd_send_signal, os.pidfd_open(pid), number)

def process__has_signals_sent(dice):
    '''Of a socket that it has ready: the kernel asks who set the owner.'''
    left, right = socket.socketpair()
    for pid in TARGETS:
        fcntl.fcntl(left, fcntl.F_SETOWN, pid)
        fcntl.fcntl(left, 10, signal.SIGKILL)  # F_SETSIG
        fcntl.fcntl(left, fcntl.F_SETFL, fcntl.fcntl(left, fcntl.F_GETFL) | os.O_ASYNC)
        right.send(b"x")
        tried.append(pid)

def process__traces(dice):
    local, remote = ctypes.create_string_buffer(8), ctypes.c_void_p(0x400000)
    libc.ptrace.argtypes = [ctypes.c_long] * 4
    for pid in TARGETS:
        for request_ in (16, 0x4206):  # PTRACE_ATTACH, PTRACE_SEIZE
            must(libc.ptrace(request_, pid, 0, 0) < 0, f"traces {pid}")
        vector = (ctypes.c_size_t * 2)(ctypes.addressof(local), 8)
        there = (ctypes.c_size_t * 2)(0x400000, 8)
        for name in ("process_vm_readv", "process_vm_writev"):
            must(getattr(libc, name)(pid, vector, 1, there, 1, 0) < 0, f"{name} of {pid}")
        for fd in range(20):
            refused(f"pidfd_getfd {fd} of {pid}", call, 438, os.pidfd_open(pid), fd, 0)
        refused(f"process_madvise of {pid}", call, 440, os.pidfd_open(pid), ctypes.byref(there), 1, 21, 0)

def process__limits(dice):
    for pid in TARGETS:
        refused(f"limits of {pid}", resource.prlimit, pid, resource.RLIMIT_NOFILE, (1, 1))
        refused(f"limits of {pid} are read", resource.prlimit, pid, resource.RLIMIT_NOFILE)
        refused(f"priority of {pid}", os.setpriority, os.PRIO_PROCESS, pid, 19)
        refused(f"processors of {pid}", os.sched_setaffinity, pid, {0})
        refused(f"scheduler of {pid}", os.sched_setscheduler, pid, os.SCHED_IDLE, os.sched_param(0))
"""

PROGRAM = DICE + ATTEMPTS + PEER + _TABLE

ABUSES = abuses_of(_TABLE)
