"""The inner side of `sandbox.py`: shuts itself in, then starts what the agent wrote, watches it and ends it.

Served by a worker process (`served.py`), with the standard library alone. The worker forks: the child enters new
namespaces and forks process 1 in them, which goes on serving; the two left behind wait. Process 1 keeps rights over the
sandbox's own files, to copy them. What the agent wrote runs below it as another user or, where an ordinary user started
us, as the same user; without capabilities, under limits, and with no descriptor but its own pipes. Nothing that comes
through these pipes is trusted to be more than output.
"""

import base64
import contextlib
import ctypes
import errno
import fcntl
import glob
import math
import os
import platform
import resource
import select
import signal
import socket
import stat
import struct
import time
from pathlib import Path
from typing import Any, NamedTuple

LIBC = ctypes.CDLL(None, use_errno=True)
USER = 1000  # the agent's id inside
NOBODY = 65534  # and outside, where root started us
WORK, TEMP, SHARED = "/work", "/tmp", "/dev/shm"
DEVICES = ("null", "zero", "full", "random", "urandom")
SYSTEM = ("bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr", "etc/alternatives", "etc/ld.so.cache")
NETWORK = ("etc/resolv.conf", "etc/nsswitch.conf", "etc/hosts", "etc/services", "etc/ssl", "etc/ca-certificates")
PACKAGES = ("/usr/lib/python3*/*-packages", "/usr/local/lib/python3*/*-packages")
USERS = f"root:x:0:0::/:/bin/sh\nagent:x:{USER}:{USER}::{WORK}:/bin/bash\nnobody:x:{NOBODY}:{NOBODY}::/:/bin/false\n"
GROUPS = f"root:x:0:\nagent:x:{USER}:\nnogroup:x:{NOBODY}:\n"
SESSION = Path(__file__).with_name("session.py").read_text(encoding="utf-8")
# bash as the agent has it. Where it is and what it exports is told at its end, for the next call. What it tells becomes
# variables and a folder, and is never run.
SHELL = r"""trap '{ printf "%s\0" "$PWD"; /usr/bin/env -0; } >&3' EXIT; """
SHELL += """IFS= read -r -d '' COMMAND <&4; exec 4<&-; eval "$COMMAND\""""
STATE = 1 << 16  # bytes of it
LOOK = 0.02  # seconds between looks at what runs
GRACE = 0.5  # seconds that an interrupted Python session has to come back
FLOOD = 64  # times the kept output after which a call is stopped

CLONE = 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x00020000  # cgroup uts ipc user pid mount
CLONE_NET = 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV = 1, 2, 4
PR_PDEATHSIG, PR_DUMPABLE, PR_SECCOMP, PR_CAPBSET_DROP, PR_SUBREAPER, PR_NO_NEW_PRIVS = 1, 4, 22, 24, 36, 38

# Calls that are refused whatever their arguments: memory that no limit counts, and doors into the kernel that no task
# needs. The numbers are those of x86_64 and of aarch64.
REFUSED = {
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "semget": (64, 190),
    "msgget": (68, 186), "mq_open": (240, 180), "ptrace": (101, 117), "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271), "bpf": (321, 280), "userfaultfd": (323, 282), "io_uring_setup": (425, 425),
    "perf_event_open": (298, 241), "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "open_by_handle_at": (304, 265), "fsopen": (430, 430), "open_tree": (428, 428),
    "syslog": (103, 116), "pidfd_getfd": (438, 438),
}  # fmt: skip
SOCKET, IOCTL = (41, 198), (16, 29)
ARCHITECTURE = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
FAMILIES = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)  # vsock, for one, is in no namespace
TIOCSTI, TIOCLINUX = 0x5412, 0x541C  # typing into a terminal


class NoIsolation(Exception):
    """This machine does not let us shut ourselves in."""


# -- system calls ----------------------------------------------------------------------------------------------------


def libc(name: str, *arguments: Any) -> None:
    """Call a function of the C library; OSError where it fails."""
    given = [ctypes.c_long(a) if isinstance(a, int) else a.encode() if isinstance(a, str) else a for a in arguments]
    if getattr(LIBC, name)(*given) == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}{arguments}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str | None = None, flags: int = 0, options: str | None = None) -> None:
    libc("mount", source, target, kind, flags, options)


def restrict(path: str, attributes: int) -> None:
    """Set attributes of a mount and of all below it (mount_setattr, Linux 5.12)."""
    setting = ctypes.create_string_buffer(struct.pack("QQQQ", attributes, 0, 0, 0), 32)
    libc("syscall", 442, -100, path, 0x8000, setting, 32)


def bind(source: str, target: str) -> None:
    """Show a file or folder of the host read-only."""
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    elif not os.path.exists(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        Path(target).touch()
    mount(source, target, None, MS_BIND | MS_REC)
    restrict(target, ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV)


# -- into the jail ---------------------------------------------------------------------------------------------------


def enter(network: bool) -> None:
    """Go on as process 1 of new namespaces; the processes left behind wait for it and end with it."""
    root, user, group = os.getuid() == 0, os.getuid(), os.getgid()
    Path("/proc/self/oom_score_adj").write_text("500")  # should memory run out after all, the host's others stay
    (unshared, say_unshared), (mapped, say_mapped) = os.pipe(), os.pipe()
    if child := os.fork():  # a child, for our own threads forbid it to us
        os.read(unshared, 1)
        maps = {"uid_map": f"0 0 1\n{USER} {NOBODY} 1", "gid_map": f"0 0 1\n{USER} {NOBODY} 1"}
        if not root:
            maps = {"setgroups": "deny", "uid_map": f"{USER} {user} 1", "gid_map": f"{USER} {group} 1"}
        for name, text in maps.items():
            Path(f"/proc/{child}/{name}").write_text(text)
        os.write(say_mapped, b".")
        wait_for(child)
    libc("unshare", CLONE | (0 if network else CLONE_NET))
    os.write(say_unshared, b".")
    os.read(mapped, 1)
    for descriptor in (unshared, say_unshared, mapped, say_mapped):
        os.close(descriptor)
    libc("prctl", PR_PDEATHSIG, int(signal.SIGKILL))
    if child := os.fork():
        wait_for(child)
    libc("prctl", PR_PDEATHSIG, int(signal.SIGKILL))
    socket.sethostname("sandbox")
    if not network:
        with socket.socket() as one:  # SIOCSIFFLAGS: the loopback interface is up and running
            fcntl.ioctl(one, 0x8914, struct.pack("16sh14x", b"lo", 0x41))


def wait_for(child: int) -> None:
    os.waitpid(child, 0)
    os._exit(0)


def build_root(prefix: str, readable: dict[str, str], network: bool, disk_mb: float, files: int) -> None:
    """A root of our own: the system's programs read-only, fresh /proc and /dev, and one small disk for all writing."""
    sources = {f"/{name}": os.path.realpath(f"/{name}") for name in (*SYSTEM, *(NETWORK if network else ()))}
    links = {f"/{name}": os.readlink(f"/{name}") for name in SYSTEM if os.path.islink(f"/{name}")}
    if not within(prefix, "/usr"):
        sources[prefix] = os.path.realpath(prefix)
    sources |= readable
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=1m")
    os.mkdir("/tmp/host")
    libc("pivot_root", "/tmp", "/tmp/host")
    os.chdir("/")
    for target in (WORK, TEMP, SHARED, "/proc", "/etc"):
        os.makedirs(target)
    Path("/etc/passwd").write_text(USERS)
    Path("/etc/group").write_text(GROUPS)
    Path("/etc/hosts").write_text("127.0.0.1 localhost sandbox\n::1 localhost\n")
    for target, source in sources.items():
        if target in links:
            os.symlink(links[target], target)
        elif os.path.exists(f"/host{source}"):
            bind(f"/host{source}", target)
    for pattern in (*PACKAGES, f"{prefix}/lib/python3*/*-packages"):
        for path in glob.glob(pattern):
            mount("tmpfs", path, "tmpfs", MS_NODEV, "size=4k,mode=755")
    for name in DEVICES:
        Path(f"/dev/{name}").touch()
        mount(f"/host/dev/{name}", f"/dev/{name}", None, MS_BIND)
    for name, path in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        os.symlink(f"/proc/self/fd{path}", f"/dev/{name}")
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "hidepid=2")  # process 1 is not to be seen
    Path("/proc/sys/user/max_user_namespaces").write_text("0")  # the agent makes none of its own
    libc("umount2", "/host", 2)
    os.rmdir("/host")
    restrict("/", ATTR_RDONLY | ATTR_NOSUID)
    size = int(disk_mb * 2**20)
    mount("tmpfs", TEMP, "tmpfs", MS_NOSUID | MS_NODEV, f"mode=755,size={size},nr_inodes={files}")
    for target, mode in ((WORK, 0o755), (SHARED, 0o1777), (TEMP, 0o1777)):  # /tmp last, for it covers the others
        inner = f"{TEMP}/{os.path.basename(target)}"
        os.mkdir(inner)
        os.chown(inner, USER, USER)
        os.chmod(inner, mode)
        mount(inner, target, None, MS_BIND)


def within(path: str, folder: str) -> bool:
    return os.path.commonpath([path, folder]) == folder


def refuse_calls() -> None:
    """The seccomp filter: see REFUSED, FAMILIES and TIOCSTI. On other processors there is none."""
    if platform.machine() not in ARCHITECTURE:
        return
    audit, column = ARCHITECTURE[platform.machine()]
    load, equal, at_least, end = 0x20, 0x15, 0x35, 0x06
    fail, kill, allow = 0x00050000, 0x80000000, 0x7FFF0000
    steps = [(load, 0, 0, 4), (equal, 1, 0, audit), (end, 0, 0, kill)]
    steps += [(load, 0, 0, 0), (at_least, 0, 1, 0x40000000), (end, 0, 0, fail | 38)]  # the x32 numbers
    for numbers in REFUSED.values():
        steps += [(equal, 0, 1, numbers[column]), (end, 0, 0, fail | 1)]
    steps += [(equal, 0, 4, IOCTL[column]), (load, 0, 0, 24)]
    steps += [(equal, 1, 0, TIOCSTI), (equal, 0, 8, TIOCLINUX), (end, 0, 0, fail | 1)]
    steps += [(equal, 0, 6, SOCKET[column]), (load, 0, 0, 16)]
    steps += [(equal, 4 - n, 0, int(family)) for n, family in enumerate(FAMILIES)]
    steps += [(end, 0, 0, fail | 97), (end, 0, 0, allow)]
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(steps), ctypes.addressof(program)))
    libc("prctl", PR_SECCOMP, 2, header)


# -- what runs -------------------------------------------------------------------------------------------------------


class Process(NamedTuple):
    parent: int
    zombie: bool
    seconds: float
    """Processor time, with that of its children that it has waited for."""
    bytes: int


class Session(NamedTuple):
    pid: int
    code: int
    done: int
    output: int


class Kept:
    """The first and the last part of what was written."""

    def __init__(self, limit: int):
        self.half, self.head, self.tail, self.total = limit // 2, bytearray(), bytearray(), 0

    def add(self, data: bytes) -> None:
        self.total += len(data)
        room = self.half - len(self.head)
        self.head += data[:room]
        self.tail += data[room:]
        del self.tail[: -self.half]

    def text(self) -> str:
        cut = self.total - len(self.head) - len(self.tail)
        middle = f"\n[... {cut} bytes left out ...]\n".encode() if cut else b""
        return bytes(self.head + middle + self.tail).decode(errors="replace")


class Jail:
    """One agent's sandbox; its methods are called through the worker."""

    def __init__(
        self, python: str, prefix: str, readable: dict[str, str], network: bool, open_in: str, **limits: float
    ):
        """python, prefix: the interpreter that the agent gets, and the folder that it was installed in.
        readable: place inside -> what of the host is shown there, read-only.
        open_in: '' to shut the agent in; else an empty folder of the host, in which it runs without that.
        limits: seconds, cpu_seconds, memory_mb, disk_mb, files, processes, open_files, output_kb.
        """
        self.python, self.limits, self.isolated = python, limits, not open_in
        self.session: Session | None = None
        self.pieces = 0  # of code that the session was given
        self.ended: dict[int, int] = {}  # pid -> status, of what ended in this call
        self.folders = {"work": WORK, "tmp": TEMP, "shm": SHARED}
        if self.isolated:
            try:
                enter(network)
                build_root(prefix, readable, network, limits["disk_mb"], int(limits["files"]))
            except OSError as error:
                raise NoIsolation(f"step {error.strerror or error}") from error
        else:
            libc("prctl", PR_SUBREAPER, 1)
            self.folders = {name: f"{open_in}/{name}" for name in self.folders}
            for folder in self.folders.values():
                os.mkdir(folder)
        libc("prctl", PR_DUMPABLE, 0)  # nobody reads our memory or takes our descriptors
        os.umask(0o022)
        self.shell_folder = self.folders["work"]
        self.env = {
            "PATH": f"{os.path.dirname(python)}:/usr/local/bin:/usr/bin:/bin",
            "HOME": self.folders["work"], "TMPDIR": self.folders["tmp"], "USER": "agent", "LANG": "C.UTF-8",
            "TERM": "dumb", "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        packages = [at if self.isolated else path for at, path in readable.items() if path.endswith("-packages")]
        if packages:
            self.env["PYTHONPATH"] = os.pathsep.join(packages)
        self.shell_env = dict(self.env)

    # -- calls -------------------------------------------------------------------------------------------------------

    def shell(self, command: str) -> dict[str, Any]:
        """Run a command in bash, where the last one left off."""
        (code, give_code), (output, write), (state, write_state) = os.pipe(), os.pipe(), os.pipe()
        pipes = {1: write, 2: write, 3: write_state, 4: code}
        pid = self._start(["/bin/bash", "-c", SHELL, "bash"], pipes, self.shell_env, self.shell_folder)
        kept, left = self._kept(), Kept(STATE)
        result = self._watch(pid, {output: kept, state: left}, {give_code: command.replace("\0", "").encode()})
        folder, *variables = left.text().rstrip("\0").split("\0")
        if folder.startswith("/") and left.total < STATE:
            self.shell_folder = folder
            self.shell_env = dict(v.split("=", 1) for v in variables if "=" in v and not v.startswith("BASH_ENV="))
        return result | {"output": kept.text()}

    def execute(self, arguments: list[str], stdin: str) -> dict[str, Any]:
        """Run a program in the work folder, with its errors apart from its output."""
        (read, feed), (output, write), (errors, write_errors) = os.pipe(), os.pipe(), os.pipe()
        pipes = {0: read, 1: write, 2: write_errors}
        pid = self._start(arguments, pipes, self.env, self.folders["work"])
        kept = self._kept(), self._kept()
        result = self._watch(pid, {output: kept[0], errors: kept[1]}, {feed: stdin.encode(errors="surrogateescape")})
        return result | {"output": kept[0].text(), "errors": kept[1].text()}

    def run_python(self, code: str) -> dict[str, Any]:
        """Run code in the session, with the names that earlier calls left there."""
        if self.session is None:
            (read, give), (said, say), (output, write) = os.pipe(), os.pipe(), os.pipe()
            arguments = [self.python, "-P", "-u", "-c", SESSION]
            pid = self._start(arguments, {1: write, 2: write, 3: read, 4: say}, self.env, self.folders["work"])
            self.session, self.pieces = Session(pid, give, said, output), 0
        session, kept = self.session, self._kept()
        self.pieces += 1
        os.kill(session.pid, signal.SIGCONT)
        text = code.encode(errors="surrogateescape")
        feeds = {session.code: struct.pack("<Q", len(text)) + text}
        result = self._watch(session.pid, {session.output: kept}, feeds, session.done)
        if self.session is None:
            result["notes"].append(f"the Python process has ended{how(result['status'])}, and its names are gone")
        return result | {"output": kept.text()}

    def _kept(self) -> Kept:
        return Kept(int(self.limits["output_kb"] * 1024))

    def _start(self, arguments: list[str], pipes: dict[int, int], env: dict[str, str], folder: str) -> int:
        """Start a program with these descriptors alone; our copies of them are closed."""
        pid = os.fork()
        if pid == 0:
            try:
                high = {target: fcntl.fcntl(source, fcntl.F_DUPFD, 64) for target, source in pipes.items()}
                for target, source in high.items():
                    os.dup2(source, target)
                os.closerange(max(2, *pipes) + 1, 1 << 16)
                os.setsid()
                for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores, and programs expect
                    signal.signal(number, signal.SIG_DFL)
                self._confine()
                with contextlib.suppress(OSError):  # a folder that is gone
                    os.chdir(self.folders["work"])
                    os.chdir(folder)
                os.execvpe(arguments[0], arguments, env)
            except BaseException as error:
                os.write(2, f"{arguments[0]}: {error}\n".encode())
            finally:
                os._exit(127)
        for descriptor in set(pipes.values()):
            os.close(descriptor)
        return pid

    def _confine(self) -> None:
        """Give up every right that the agent shall not have."""
        megabyte = 1 << 20
        limits = {
            resource.RLIMIT_CORE: 0,
            resource.RLIMIT_DATA: int(self.limits["memory_mb"] * megabyte),
            resource.RLIMIT_FSIZE: int(self.limits["disk_mb"] * megabyte),
            resource.RLIMIT_NOFILE: int(self.limits["open_files"]),
            resource.RLIMIT_MEMLOCK: megabyte,
            resource.RLIMIT_MSGQUEUE: 0,
        }
        if self.isolated:  # elsewhere it counts all that this user runs
            limits[resource.RLIMIT_NPROC] = int(self.limits["processes"])
        for name, value in limits.items():
            allowed = resource.getrlimit(name)[1]
            value = value if allowed == resource.RLIM_INFINITY else min(value, allowed)
            resource.setrlimit(name, (value, value))
        os.nice(5)
        with contextlib.suppress(OSError):  # until there is none of that number, or we may not
            for capability in range(64):
                libc("prctl", PR_CAPBSET_DROP, capability)
        if self.isolated and os.getuid() == 0:
            os.setgroups([])
            os.setresgid(USER, USER, USER)
            os.setresuid(USER, USER, USER)
        if self.isolated:
            libc("capset", struct.pack("II", 0x20080522, 0), bytes(24))
        libc("prctl", PR_NO_NEW_PRIVS, 1, 0, 0, 0)
        refuse_calls()

    # -- watching ----------------------------------------------------------------------------------------------------

    def _watch(
        self, main: int, outputs: dict[int, Kept], feeds: dict[int, bytes], done: int | None = None
    ) -> dict[str, Any]:
        """Feed and read until `main` has ended, says on `done` that it is, or reaches a limit; then end all others.

        Without `done` the pipes are closed too.
        """
        poll, handle = select.poll(), os.pidfd_open(main)
        for descriptor in (*outputs, *feeds, *([] if done is None else [done])):
            os.set_blocking(descriptor, False)
            poll.register(descriptor, select.POLLOUT if descriptor in feeds else select.POLLIN)
        poll.register(handle, select.POLLIN)  # readable once it has ended
        now = begun = time.monotonic()
        end, looked, spent = begun + self.limits["seconds"], begun, self._spent(self._look())
        interrupted = False
        notes: list[str] = []
        status: int | None = None
        heard = said = b""
        piece = self.pieces.to_bytes(8, "little")  # what is said of another is late, or made up
        crowded = False
        while status is None and not said:
            for descriptor, _ in poll.poll(1000 * LOOK):
                if descriptor in feeds:
                    feeds[descriptor] = write(descriptor, feeds[descriptor])
                    if not feeds[descriptor]:
                        poll.unregister(descriptor)
                        del feeds[descriptor]
                        if done is None:
                            os.close(descriptor)
                elif descriptor in outputs:
                    data = read(descriptor)
                    outputs[descriptor].add(data or b"")
                    if data == b"":
                        poll.unregister(descriptor)
                elif descriptor == done:
                    if (data := read(descriptor)) == b"":
                        poll.unregister(descriptor)
                    heard = heard[-len(piece) :] + (data or b"")
                    said = heard[: max(0, heard.find(piece))][-1:]
            self._reap()
            status, now = self.ended.get(main), time.monotonic()
            if now - looked >= LOOK and status is None and not said:
                looked, table = now, self._look()
                crowded |= len(table) >= self.limits["processes"]
                used = sum(process.bytes for process in table.values()) / 2**20
                heavy = used > self.limits["memory_mb"]
                reason = self._over(used, self._spent(table) - spent, outputs)
                if now >= end and not reason:
                    reason = f"stopped after {self.limits['seconds']:g} s, the limit on a call's time"
                if not reason:
                    continue
                if done is not None and not interrupted and not heavy:  # perhaps its names can be kept
                    interrupted, notes, end, spent = True, [reason], now + GRACE, math.inf
                    self._sweep(main)
                    if main not in self.ended:
                        os.kill(main, signal.SIGINT)
                    continue
                notes = notes or [reason]
                self._end(main)
                idle = self.session.pid if self.session and done is None else 0
                if heavy and idle in table and table[idle].bytes / 2**20 > used / 2:
                    self._end(idle)
        os.close(handle)
        if said and feeds:  # it spoke before it was asked
            self._end(main)
        if main not in self.ended:
            os.kill(main, signal.SIGSTOP)  # nothing runs between calls
        outlived = self._sweep(main)
        status = self.ended.get(main)
        for descriptor, kept in outputs.items():
            while data := read(descriptor):
                kept.add(data)
        if done is None:
            for descriptor in (*outputs, *feeds):
                os.close(descriptor)
        if outlived and not notes:
            notes.append(f"{outlived} process(es) still running at the end of the call were ended")
        if self.session and self.session.pid in self.ended:
            if self.session.pid != main:
                notes.append("the Python process was ended too, and its names are gone")
            for descriptor in self.session[1:]:
                os.close(descriptor)
            self.session = None
        self.ended.clear()
        notes += self._full(status, crowded)
        return {
            "status": status if status is not None else int(said != b"0"),
            "notes": notes,
            "errors": "",
            "session": self.session is not None,
        }

    def _over(self, used: float, spent: float, outputs: dict[int, Kept]) -> str:
        """Which limit was passed, in words; '' where none was."""
        limits = self.limits
        if used > limits["memory_mb"]:
            return f"stopped: its processes used {used:.0f} MB of memory, the limit is {limits['memory_mb']:g} MB"
        if spent > limits["cpu_seconds"]:
            return f"stopped after {limits['cpu_seconds']:g} s of processor time, the limit on a call"
        if any(kept.total > FLOOD * limits["output_kb"] * 1024 for kept in outputs.values()):
            return f"stopped: it wrote more than {FLOOD * limits['output_kb']:g} kB of output"
        return ""

    def _full(self, status: int | None, crowded: bool) -> list[str]:
        """What else stood in the way."""
        notes, limits = [], self.limits
        if crowded and self.isolated:
            notes.append(f"it reached the limit of {limits['processes']:g} processes")
        if status in (-signal.SIGXFSZ, 128 + signal.SIGXFSZ):
            notes.append(f"a file may have at most {limits['disk_mb']:g} MB")
        if self.isolated:
            disk = os.statvfs(self.folders["work"])
            if disk.f_bavail == 0:
                notes.append(f"the disk of {limits['disk_mb']:g} MB is full")
            if disk.f_favail == 0:
                notes.append(f"the disk is full: it holds at most {limits['files']:g} files and folders")
        return notes

    def _look(self) -> dict[int, Process]:
        """All that we started, and what that started."""
        table, page = {}, resource.getpagesize()
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2].split()
                ticks = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
                table[int(name)] = Process(int(fields[1]), fields[0] == b"Z", ticks, int(fields[21]) * page)
        ours, new = {os.getpid()}, {os.getpid()}
        while new:
            new = {pid for pid, process in table.items() if process.parent in new} - ours
            ours |= new
        return {pid: table[pid] for pid in ours - {os.getpid()}}

    def _spent(self, table: dict[int, Process]) -> float:
        """Processor time of all that runs and all that has ended."""
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        return ended.ru_utime + ended.ru_stime + sum(process.seconds for process in table.values())

    def _end(self, child: int) -> None:
        if child not in self.ended:
            os.kill(child, signal.SIGKILL)
            self.ended[child] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def _reap(self) -> None:
        """Take leave of what has ended."""
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG)) != (0, 0):
                self.ended[found[0]] = os.waitstatus_to_exitcode(found[1])

    def _sweep(self, keep: int) -> int:
        """End all but the session, and `keep`; how many that were."""
        ended: set[int] = set()
        while True:
            spared = {keep, self.session.pid if self.session else 0}
            others = {pid for pid, process in self._look().items() if not process.zombie} - spared
            if not others:
                self._reap()
                return len(ended)
            for number in (signal.SIGSTOP, signal.SIGKILL):  # first stopped, so that they start no more
                for pid in others:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)
            ended |= others
            self._reap()

    # -- files -------------------------------------------------------------------------------------------------------

    def save(self) -> dict[str, Any]:
        """All files, and where the shell is. Of files with holes the holes are left out."""
        entries, left_out = [], 0
        seen: dict[int, str] = {}
        for name, top in self.folders.items():
            waiting = [(name, top)]
            while waiting:
                place, path = waiting.pop()
                try:
                    info = os.lstat(path)
                    if stat.S_ISDIR(info.st_mode):
                        kind, content = "folder", None
                        waiting += [(f"{place}/{child}", f"{path}/{child}") for child in sorted(os.listdir(path))]
                    elif stat.S_ISLNK(info.st_mode):
                        kind, content = "link", os.readlink(path)
                    elif stat.S_ISREG(info.st_mode) and info.st_ino in seen:
                        kind, content = "same", seen[info.st_ino]
                    elif stat.S_ISREG(info.st_mode):
                        kind, content = "file", pieces(path)
                        seen[info.st_ino] = place
                    else:
                        continue  # pipes and sockets are nothing without the processes
                    entries.append([place, kind, stat.S_IMODE(info.st_mode), info.st_mtime_ns, info.st_size, content])
                except OSError:  # a path too long to be named
                    left_out += 1
        return {"entries": entries, "left_out": left_out, "folder": self.shell_folder, "env": self.shell_env}

    def put(self, entries: list[list[Any]]) -> None:
        """Make files and folders; those of the same name are replaced."""
        for place, kind, mode, _, size, content in entries:
            path = self._path(place)
            if kind == "folder":
                self._make_folder(path)
                continue
            self._make_folder(os.path.dirname(path))
            if os.path.lexists(path):
                os.unlink(path)
            if kind == "link":
                os.symlink(content, path)
            elif kind == "same":
                os.link(self._path(content), path)
            else:
                with open(path, "xb") as file:
                    for offset, piece in content:
                        file.seek(offset)
                        file.write(base64.b64decode(piece))
                    file.truncate(size)
                os.chmod(path, mode)
            self._own(path)
        for place, kind, mode, changed, _, _ in reversed(entries):  # last, for every entry changes its folder's time
            path = self._path(place)
            if kind == "folder":
                os.chmod(path, mode)
            os.utime(path, ns=(changed, changed), follow_symlinks=False)

    def restore(self, saved: dict[str, Any]) -> None:
        """Be as `save` said. Folders that stay are not made anew, for a session may be in one."""
        wanted = {entry[0]: entry[1] for entry in saved["entries"]}
        for place, kind, *_ in reversed(self.save()["entries"]):
            if wanted.get(place) != kind:
                (os.rmdir if kind == "folder" else os.unlink)(self._path(place))
        self.put(saved["entries"])
        self.shell_folder, self.shell_env = saved["folder"], saved["env"]

    def _path(self, place: str) -> str:
        name, _, rest = place.partition("/")
        path = os.path.normpath(os.path.join(self.folders[name], rest))
        if not within(path, self.folders[name]) or not within(
            os.path.realpath(os.path.dirname(path)), os.path.dirname(path)
        ):
            raise ValueError(f"{place!r} leads out of the sandbox's folders")
        return path

    def _make_folder(self, path: str) -> None:
        if not os.path.isdir(path):
            self._make_folder(os.path.dirname(path))
            os.mkdir(path)
            self._own(path)

    def _own(self, path: str) -> None:
        if self.isolated:
            os.lchown(path, USER, USER)


def how(status: int | None) -> str:
    """A process's end in words, where it has one."""
    if status is None:
        return ""
    return f" ({signal.Signals(-status).name})" if status < 0 else f" (exit status {status})"


def pieces(path: str) -> list[tuple[int, str]]:
    """Offsets and contents, in base64, of the parts of a file that are no holes."""
    found = []
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        end = 0
        while True:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
            end = os.lseek(descriptor, start, os.SEEK_HOLE)
            found.append((start, base64.b64encode(os.pread(descriptor, end - start, start)).decode()))
    except OSError as error:
        if error.errno != errno.ENXIO:  # no more of it
            raise
    finally:
        os.close(descriptor)
    return found


def read(descriptor: int) -> bytes | None:
    """What is there; b'' at the end, None where nothing is there yet."""
    try:
        return os.read(descriptor, 1 << 16)
    except BlockingIOError:
        return None


def write(descriptor: int, data: bytes) -> bytes:
    """Write what the pipe takes; what is left. A reader that is gone takes all."""
    try:
        return data[os.write(descriptor, data[: 1 << 16]) :]
    except BlockingIOError:
        return data
    except BrokenPipeError:
        return b""
