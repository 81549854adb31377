"""Attacks on the sandbox, and a program that tries them all and tells what came of it.

Run by `test_hostile.py`, as root and as an ordinary user, in a process of its own: `python hostile.py FOLDER` prints
one JSON object, name -> what happened. FOLDER holds what must not be read nor changed.
"""

import asyncio
import contextlib
import glob
import json
import os
import socket
import subprocess
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

from etude.tools.sandbox import Sandbox

SECRET = "6f1c-not-for-the-agent"
LIMITS = {
    "seconds": 3, "cpu_seconds": 4, "memory_mb": 160, "disk_mb": 16, "files": 500, "processes": 24, "open_files": 64,
    "output_kb": 16,
}  # fmt: skip


@dataclass(frozen=True)
class Attack:
    kind: str
    """`shell` or `python`."""
    code: str
    """{folder}, {port}, {victim}, {mark} stand for what the host has."""
    says: str
    """A pattern of what the agent must be told."""
    copies: bool = False
    """Whether to try that the files that it leaves can be copied into another sandbox."""


def sh(code: str, says: str, **more: bool) -> Attack:
    return Attack("shell", code, says, **more)


def py(code: str, says: str, **more: bool) -> Attack:
    return Attack("python", code, says, **more)


C = "import ctypes, os; libc = ctypes.CDLL(None, use_errno=True)\n"
DENIED = "[Pp]ermission|not permitted|Permitted"
SYSCALL = C + "import platform\nn = {{'x86_64': %d, 'aarch64': %d}}[platform.machine()]\n"

ATTACKS = {
    # processes
    "fork bomb": sh(":(){{ :|:& }};:; sleep 1", "limit of 24 processes|Resource temporarily|were ended"),
    "fork bomb in Python": py(
        "import os\nwhile True:\n try: os.fork()\n except OSError: pass", "stopped|limit of 24 processes"
    ),
    "thread bomb": py(
        "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=[9], daemon=True).start()",
        "can't start new thread|memory",
    ),
    "signals ignored": py(
        "import signal\nfor n in set(signal.Signals) - {{9, 19}}: signal.signal(n, signal.SIG_IGN)\nwhile True: pass",
        r"stopped after [\s\S]*names are gone",
    ),
    "signals trapped": sh("trap '' TERM INT HUP; while :; do sleep {mark}; done", "stopped after 3 s"),
    "sleeping grandchild": sh("(sleep {mark} &); echo begun", r"begun\n\[1 process"),
    "daemon": sh("setsid nohup sleep {mark} > /dev/null 2>&1 & sleep 0.2; echo begun", r"begun\n\[1 process"),
    "daemon in Python": py(
        "import os, time\nif os.fork() == 0:\n os.setsid()\n"
        " if os.fork() == 0: os.execvp('sleep', ['sleep', '{mark}'])\n os._exit(0)\ntime.sleep(0.3)",
        "1 process",
    ),
    "stopped child": sh("sleep {mark} & kill -STOP $!; echo begun", "1 process"),
    "respawning children": sh(
        "for i in 1 2 3; do (trap '' TERM; while :; do sleep {mark} & sleep 0.01; done) & done; sleep 0.3",
        "were ended",
    ),
    "thread left running": py(
        "import threading\ndef spin():\n while True: pass\nthreading.Thread(target=spin, daemon=True).start()",
        "",
    ),
    "kill process 1": sh("kill -9 1; kill -STOP 1; echo tried", "tried"),
    "kill all": sh("kill -9 -1; echo tried", "SIGKILL|tried|ended"),
    "kill the host's": sh("kill -9 {victim}; echo tried", "No such process|no such process|not permitted"),
    "kill its shell": sh("kill -9 $$", "SIGKILL"),
    "stop its shell": sh("kill -STOP $$", "stopped after 3 s"),
    "exit": sh("exit 7", "exit status 7"),
    "exec": sh("exec sleep {mark}", "stopped after 3 s"),
    "leave Python": py("exit(3)", "The session goes on"),
    "end Python": py("import os; os._exit(3)", r"has ended \(exit status 3\), and its names are gone"),
    "kill Python": py("import os; os.kill(os.getpid(), 9)", "SIGKILL.*names are gone"),
    "ends when its child is ended": py(
        "import os, time\nif os.fork() == 0: time.sleep(99)\nos.wait(); os._exit(5)",
        r"KeyboardInterrupt[\s\S]*stopped|stopped[\s\S]*exit status 5.*gone",  # which comes first is chance
    ),
    "stop Python": py("import os; os.kill(os.getpid(), 19)", "stopped after"),
    "crash": py("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
    "recursion": py("def f(): f()\nf()", "RecursionError"),
    "recursion without limit": py(
        "import sys; sys.setrecursionlimit(10**9)\nclass A:\n def __getattr__(self, n): return getattr(self, n)\nA().x",
        "names are gone|RecursionError|MemoryError",
    ),
    "deep JSON": py("import json; json.loads('[' * 10**6)", "RecursionError"),
    "busy loop": sh("while :; do :; done", "stopped after 3 s"),
    "many busy loops": sh("for i in $(seq 12); do while :; do :; done & done; wait", "stopped after [34] s"),
    "patient regular expression": py("import re; re.match('(a|aa)+$', 'a' * 60 + 'b')", "stopped after"),
    "priority": py("import os; os.nice(-20)", DENIED),
    "real-time scheduling": py("import os; os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))", DENIED),
    # memory
    "memory": py("x = bytearray(1 << 30)", "MemoryError"),
    "shared memory": py(
        "import mmap\nm, b = mmap.mmap(-1, 1 << 29), bytes(1 << 23)\nwhile True: m.write(b)", "MB of memory"
    ),
    "memory of many": sh(
        "for i in $(seq 8); do python3 -c 'import time; x = b\"x\" * (50 << 20); time.sleep(9)' & done; wait",
        "MB of memory",
    ),
    "memory without a file": py("import os; os.memfd_create('x')", DENIED),
    "System V memory": py(C + "print(libc.shmget(0, 1 << 30, 0o1600), ctypes.get_errno())", "^-1 1$"),
    "System V messages": py(C + "print(libc.msgget(0, 0o1600), ctypes.get_errno())", "^-1 1$"),
    "locked memory": py(C + "print(libc.mlockall(3))", "^-1$"),
    "zip bomb": py(
        "import zipfile\nwith zipfile.ZipFile('b.zip', 'w', 8) as z:\n with z.open('big', 'w') as f:\n"
        "  for _ in range(40): f.write(bytes(1 << 20))\nzipfile.ZipFile('b.zip').extractall()",
        "File too large|No space left",
    ),
    # disk
    "full disk": sh("cat /dev/zero > big", "16 MB is full|at most 16 MB"),
    "full disk in many files": sh("for i in $(seq 40); do head -c 1000000 /dev/zero > f$i; done", "16 MB is full"),
    "full /tmp": sh("cat /dev/zero > /tmp/a; cat /dev/zero > /tmp/b", "16 MB is full|at most 16 MB"),
    "full /dev/shm": sh("cat /dev/zero > /dev/shm/a; cat /dev/zero > /dev/shm/b", "16 MB is full|at most 16 MB"),
    "deleted but open": sh("exec 9> f; rm f; cat /dev/zero >&9", "at most 16 MB|No space"),
    "huge sparse file": sh("truncate -s 100G big", "at most 16 MB|too large"),
    "many sparse files": py("for i in range(300): open(f's{{i}}', 'w').truncate(15 << 20)", "", copies=True),
    "no more files": sh("for i in $(seq 900); do : > f$i || break; done", "at most 500 files"),
    "deep folders": py("import os\nfor i in range(400): os.mkdir('d' * 50); os.chdir('d' * 50)\nopen('x', 'w')", ""),
    "odd names": sh(r"touch $'a\nb' $'\xff\xfe' -- -rf ' '; ls | wc -l", "^[56]$", copies=True),
    "no rights to its own folder": sh("mkdir d; touch d/x; chmod 000 d /work; echo done", "done", copies=True),
    "folder removed": sh("mkdir d; cd d; rmdir ../d; pwd", "/work/d"),
    "pipes and sockets": py(
        "import os, socket; os.mkfifo('p'); socket.socket(socket.AF_UNIX).bind('s')", "", copies=True
    ),
    # the host's files
    "link out": sh("ln -s {folder} out; cat out/secret; echo x > out/secret", "No such file", copies=True),
    "write through a link": sh("ln -s /usr/bin/env e; echo x > e", "Read-only|denied"),
    "hard link out": sh("ln /etc/passwd x", "cross-device|Read-only|not permitted|denied"),
    "root of process 1": sh("cat /proc/1/root{folder}/secret", "No such file|denied"),
    "its own root": sh("cat /proc/self/root{folder}/secret", "No such file"),
    "environment of process 1": sh("tr '\\0' '\\n' < /proc/1/environ", "No such file|denied"),
    "command line of process 1": sh("cat /proc/1/cmdline", "No such file|denied"),
    "memory of process 1": py("open('/proc/1/mem', 'rb')", "No such file|denied"),
    "descriptors of process 1": sh("ls -l /proc/1/fd/", "No such file|denied|cannot"),
    "read the host": sh(
        "(cat /etc/shadow /root/.ssh/* {folder}/secret; ls /home /var /run /boot /etc/ssh /etc/apt) 2> errors | wc -c",
        "^0$",
    ),
    "write the host": sh(
        "for f in /usr/x /etc/passwd {folder}/new /x /etc/cron.d/x; do echo x > $f; done", "Read-only"
    ),
    "move what is not its own": sh("mv /etc /e; rm -rf /usr/bin/env /etc/passwd", "Read-only|denied"),
    "environment": sh("env; python3 -c 'import os; print(os.environ)'; cat /proc/self/environ", "HOME=/work"),
    "inherited descriptors": py(
        "import os\nfor n in range(5, 256):\n try: print('read', os.read(n, 99))\n except OSError: pass\nprint('none')",
        "^none$",
    ),
    "the host's packages": py("import psutil", "ModuleNotFoundError"),
    "the host's packages by path": py(
        "import glob, os, sys\nfolders = [f + '/lib/python3*/*-packages' for f in (sys.prefix, '/usr', '/usr/local')]\n"
        "print([name for folder in folders for path in glob.glob(folder) for name in os.listdir(path)])",
        r"^\[\]$",
    ),
    "devices": sh("ls /dev/vda /dev/sda /dev/mem /dev/kmsg /dev/fuse /dev/kvm /sys; head -c1 /dev/mem", "No such file"),
    "make devices": sh("mknod d b 8 0; mknod m c 1 1", "not permitted"),
    "core dumps": sh("ulimit -c unlimited; sh -c 'kill -SEGV $$'; ls", r"cannot modify limit(?![\s\S]*core\b)"),
    "spool folders": sh("echo 'x' | crontab -; echo id | at now; ls /var/spool", "not found|No such file"),
    # rights
    "set-uid shell": sh(
        "cp /bin/bash b; chmod 6755 b; ./b -p -c 'id -u; id -g; grep Cap /proc/self/status'",
        r"^1000\n1000\n(Cap\w+:\s0+\n?){5}$",
    ),
    "become root": py("import os; os.setuid(0)", DENIED + "|Invalid argument"),
    "become root by su": sh("su -c id < /dev/null; sudo -n id", "fail|denied|not found|cannot|must|Authentication"),
    "chroot": py("import os; os.chroot('.')", DENIED),
    "mount": sh("mount -t tmpfs x /tmp; mount --bind / /tmp", "denied|superuser|not permitted|bad usage"),
    "mount anew for writing": py(C + "print(libc.mount(None, b'/', None, 32, None), ctypes.get_errno())", "^-1 1$"),
    "unmount": py(C + "print(libc.umount2(b'/proc', 2), ctypes.get_errno())", "^-1 1$"),
    "namespaces again": sh("unshare -Ur id", "not permitted|failed"),
    "namespaces by clone": py(SYSCALL % (56, 220) + "print(libc.syscall(n, 0x10000000 | 17, 0, 0, 0, 0))", "^-1$"),
    "join namespaces": py(C + "print(libc.setns(os.open('/proc/self/ns/net', 0), 0), ctypes.get_errno())", "^-1 1$"),
    "trace process 1": py(C + "print(libc.ptrace(16, 1, 0, 0), ctypes.get_errno())", "^-1 1$"),
    "read another's memory": py(C + "print(libc.process_vm_readv(1, 0, 0, 0, 0, 0), ctypes.get_errno())", "^-1 1$"),
    "BPF": py(SYSCALL % (321, 280) + "print(libc.syscall(n, 0, 0, 0), ctypes.get_errno())", "^-1 1$"),
    "io_uring": py(C + "print(libc.syscall(425, 8, 0), ctypes.get_errno())", "^-1 1$"),
    "page faults by hand": py(SYSCALL % (323, 282) + "print(libc.syscall(n, 1), ctypes.get_errno())", "^-1 1$"),
    "performance counters": py(
        SYSCALL % (298, 241) + "print(libc.syscall(n, 0, 0, 0, 0, 0), ctypes.get_errno())", "^-1 1$"
    ),
    "keyring": py(SYSCALL % (250, 219) + "print(libc.syscall(n, 0, -3, 1), ctypes.get_errno())", "^-1 1$"),
    "system calls by other numbers": py(
        C + "import platform\nprint(libc.syscall(0x40000000 | 39) if platform.machine() == 'x86_64' else -1)", "^-1$"
    ),
    "raise its limits": sh("ulimit -u 9999; ulimit -n 9999; ulimit -v unlimited", "cannot modify limit"),
    "system settings": sh(
        "for f in kernel/core_pattern kernel/hostname vm/drop_caches user/max_user_namespaces; "
        "do echo 1 > /proc/sys/$f; done; echo b > /proc/sysrq-trigger",
        "Read-only|denied",
    ),
    "out-of-memory score": sh("echo -1000 > /proc/self/oom_score_adj", "Read-only|denied"),
    "set the clock": sh("date -s 2000-01-01; hostname x", "cannot set|not permitted|must be root"),
    "reboot": py(C + "print(libc.reboot(0x1234567), ctypes.get_errno())", "^-1 1$"),
    "kernel log": py(SYSCALL % (103, 116) + "print(libc.syscall(n, 3, 0, 0), ctypes.get_errno())", "^-1 1$"),
    "load a module": sh("insmod x.ko || modprobe dummy", "not found|not permitted|could not|ERROR|FATAL"),
    # network
    "sockets of all families": py(
        "import socket\nfound = set()\nfor f in range(50):\n for kind in (1, 2, 3, 5):\n"
        "  try: socket.socket(f, kind); found.add(f)\n  except OSError: pass\nprint(sorted(found - {{1, 2, 10, 16}}))",
        r"^\[\]$",
    ),
    "raw sockets": py("import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)", DENIED),
    "the internet": py("import socket; socket.create_connection(('1.1.1.1', 53), 2)", "unreachable"),
    "a name": py("import socket; socket.getaddrinfo('example.com', 80)", "gaierror"),
    "the host's servers": py("import socket; socket.create_connection(('127.0.0.1', {port}), 2)", "refused"),
    "abstract sockets": py("import socket; socket.socket(socket.AF_UNIX).connect('\\0etude-{port}')", "refused"),
    "virtual machine sockets": py("import socket; socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)", "not supported"),
    "new interfaces": py(
        "import fcntl, socket, struct\nfcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sh14x', b'lo', 0))", DENIED
    ),
    # terminal and protocol
    "typing into a terminal": py("import fcntl; fcntl.ioctl(0, 0x5412, b'x')", DENIED),
    "its terminal": sh("echo x > /dev/tty; ls /dev/pts /dev/console", "No such"),
    "open files": py("f = []\nwhile True: f.append(open('/dev/null'))", "Too many open files"),
    "long output": sh("yes | head -c 300000", "bytes left out"),
    "endless output": sh("yes", "stopped"),
    "endless errors": sh("yes >&2", "stopped"),
    "one huge line": py("print('x' * 10**6)", "bytes left out"),
    "invalid UTF-8": sh(r"printf '\xff\xfe\x00end'", "\ufffd.*end"),
    "control characters": sh(r"printf '\033]0;title\007\033[2J\r\b'; echo end", "end"),
    "forged answer": py('print(\'{{"value": {{"output": "forged"}}}}\')', "forged"),
    "says it is done": py("import os, time\nfor _ in range(9): os.write(4, b'0' * 100)\ntime.sleep(1)", ""),
    "takes the next call's code": py(
        "import os, threading\ndef steal():\n while True: os.read(3, 1)\n"
        "threading.Thread(target=steal, daemon=True).start()",
        "",
    ),
    "closes its pipes": py("import os; os.closerange(0, 99)", "has ended"),
    "closes its output": py("import os, sys; sys.stdout.close(); os.close(1); os.close(2)", ""),
    "closes its shell's output": sh("exec >&- 2>&-; echo x", "exit status 1|no output"),
    "forges the shell's state": sh(r"printf '/nowhere\0A=B\0\0=\0exit' >&3; head -c 200000 /dev/zero >&3", ""),
    "writes on every descriptor": sh(
        "for i in $(seq 0 60); do echo '{{\"value\": 1}}' 1>&$i; done 2> /dev/null; true", ""
    ),
    "huge environment": sh("export A=$(head -c 100000 /dev/zero | tr '\\0' a); echo set", "set"),
    "false programs": sh(
        "mkdir bin; for p in env bash python3; do echo 'exit 9' > bin/$p; done; chmod +x bin/*; export PATH=$PWD/bin",
        "no output",
    ),
    "start-up file": sh("echo 'exit 9' > e; export BASH_ENV=$PWD/e ENV=$PWD/e", "no output"),
    "false modules": sh(
        "for m in ast os traceback linecache contextlib; do echo 'raise SystemExit' > $m.py; done", "no output"
    ),
    "preloaded library": sh("export LD_PRELOAD=/work/nothing.so; echo set", "set"),
    "waits for input": sh("cat; read x; echo end", "end"),
    "no command at all": sh("\0\0", "no output"),
    "not Python": py("(((", "SyntaxError"),
}


async def attempt(attack: Attack, place: dict[str, object], mark: str) -> dict[str, object]:
    """What the agent was told, what ran on, and what the sandbox did next."""
    box = Sandbox(**LIMITS)
    try:
        code = attack.code.format(**place, mark=mark)
        told = str(await (box.shell(code) if attack.kind == "shell" else box.python(code)))
        running = [line for line in command_lines() if mark in line]
        after = [str(await box.python("6 * 7")), str(await box.python("6 * 7"))]
        after.append(str(await box.shell("echo alive")))
        copied = await copies(box) if attack.copies else True
        return {"told": told, "running": running, "after": after, "copied": copied}
    except Exception:
        return {"fault": traceback.format_exc()}
    finally:
        box.close()


async def copies(box: Sandbox) -> bool:
    """Whether another sandbox, made as this one was, has the same files."""
    state, other = await box.save(), Sandbox(**LIMITS)
    try:
        await other.load(state)
        return (await other.save()).saved["entries"] == state.saved["entries"]
    finally:
        other.close()


def command_lines() -> list[str]:
    lines = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            lines.append(Path(path).read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return lines


async def main(folder: Path) -> dict[str, object]:
    secret = os.open(folder / "secret", os.O_RDONLY)
    os.set_inheritable(secret, True)
    os.environ["ETUDE_SECRET"] = SECRET
    victim = subprocess.Popen(["sleep", "600"])
    with socket.socket() as server, socket.socket(socket.AF_UNIX) as abstract:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        abstract.bind(f"\0etude-{port}")
        abstract.listen()
        place = {"folder": folder, "port": port, "victim": victim.pid}
        few = asyncio.Semaphore(4)

        async def one(number: int, attack: Attack) -> dict[str, object]:
            async with few:
                return await attempt(attack, place, f"7777{os.getpid()}.{number:03}")

        wanted = {name: attack for name, attack in ATTACKS.items() if name in sys.argv[2:] or not sys.argv[2:]}
        results = await asyncio.gather(*(one(n, attack) for n, attack in enumerate(wanted.values())))
    alive = victim.poll() is None
    victim.kill()
    return {"user": os.getuid(), "victim lives": alive, "attacks": dict(zip(wanted, results, strict=True))}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(Path(sys.argv[1])))))
