"""A sandbox for what a model writes: Python and shell, shut in by the kernel's own means.

What runs inside sees the system's programs read-only, its own /proc, no network but its own loopback, no home, no
environment of ours, and one small disk that is gone at the end. It has no capabilities, another process 1, and limits
on time, processor time, memory, disk, files, processes, open files and output; each limit is told in words. Files, the
shell's folder and exported variables, and the names of a Python session stay from call to call; processes do not.
docs/sandbox.md says what is promised and what not.
"""

import base64
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from etude.core.errors import EnvironmentFault
from etude.tools import jail
from etude.tools.process import Crew, Worker

REMEDY = (
    "It needs Linux 5.14 or newer and namespaces. Where a system forbids them: as an ordinary user allow them by "
    "`sysctl user.max_user_namespaces=10000` (on Ubuntu also `kernel.apparmor_restrict_unprivileged_userns=0`); in a "
    "container start it with `--security-opt seccomp=unconfined --security-opt systempaths=unconfined`, or "
    "`--privileged`. Sandbox(isolate=False) runs the code with your rights and limits on time, memory and output only."
)


LOST = "the sandbox had to be started anew: files and names are gone"
SLACK = 30  # seconds that a call may take besides what runs: it looks at its own limits, unless it is broken itself


@dataclass(frozen=True)
class Ran:
    """What came of a call. `str` is what the agent is told."""

    output: str
    """Standard output and errors as they came; of `execute`, standard output alone."""
    status: int
    """0 where all went well; the exit status, or minus the signal that ended it."""
    notes: tuple[str, ...] = ()
    """Which limits it met, and what was ended."""
    errors: str = ""
    """Standard error of `execute`."""

    def __str__(self) -> str:
        said = [text.rstrip("\n") for text in (self.output, self.errors) if text.strip()]
        notes = self.notes
        stopped = any(note.startswith("stopped") for note in notes)
        if not stopped and (self.status < 0 or self.status > 1 or (self.status and not said)):
            notes = (*notes, jail.how(self.status).strip(" ()"))
        return "\n".join([*said, *(f"[{note}]" for note in notes)]) or "[no output]"


@dataclass(frozen=True)
class File:
    """A file, link or folder inside; a link's content is where it leads."""

    content: bytes | str = b""
    mode: int = 0o644
    changed: int = 0
    """Nanoseconds since 1970."""
    kind: str = "file"
    """`file`, `link` or `folder`."""


@dataclass(frozen=True)
class State:
    """A sandbox at one moment; JSON values."""

    saved: dict[str, Any]
    began: dict[str, Any] | None = None
    """Where the Python session began, None where there is none."""
    calls: tuple[tuple[str, dict[str, Any]], ...] = ()
    """What was run since."""


class Sandbox:
    """A sandbox of one episode. It starts at the first call.

    >>> async def episode() -> list[str]:
    ...     box = Sandbox()
    ...     calls = [await box.python("x = 20 + 1"), await box.python("2 * x"), await box.shell("cd /tmp; exit 3")]
    ...     calls.append(await box.shell("pwd"))
    ...     box.close()
    ...     return [str(call) for call in calls]
    >>> import asyncio
    >>> asyncio.run(episode())
    ['[no output]', '42', '[exit status 3]', '/tmp']
    """

    def __init__(
        self,
        *,
        network: bool = False,
        packages: bool = False,
        readable: Mapping[str, str] | None = None,
        seconds: float = 10,
        cpu_seconds: float = 20,
        memory_mb: float = 512,
        disk_mb: float = 64,
        files: int = 10_000,
        processes: int = 64,
        open_files: int = 256,
        output_kb: float = 16,
        isolate: bool = True,
    ):
        """network: whether it has ours, with all that listens on this machine.
        packages: whether the Python packages that are installed here can be imported.
        readable: place inside -> file or folder of the host that is shown there, read-only. Where root starts the
            sandbox, everyone must be able to read it.
        seconds, cpu_seconds: what a call may take, by the clock and of all its processors together.
        memory_mb: resident memory of all processes together; also what one may ask for.
        disk_mb, files: size of the disk, which lies in memory, and how many files and folders it holds.
        processes, open_files: at once; open files of each process.
        output_kb: of a longer output the first and the last half of this is kept.
        isolate: False runs it without shutting it in, with your rights.
        """
        for at in readable or {}:
            if not at.startswith("/") or at == "/" or any(jail.within(at, own) for own in (jail.WORK, jail.TEMP)):
                raise EnvironmentFault(f"sandbox: nothing can be shown at {at!r}; name a place such as '/data'")
        if isolate and any(jail.within(sys.base_prefix, own) for own in (jail.WORK, jail.TEMP)):
            raise EnvironmentFault(
                f"sandbox: Python is installed in {sys.base_prefix}, where the sandbox has folders of its own; use one "
                "that is installed elsewhere"
            )
        shown = {at: os.path.realpath(path) for at, path in (readable or {}).items()}
        for path in filter(os.path.isdir, sys.path if packages else ()):
            if path.endswith("-packages"):
                shown[f"/packages/{len(shown)}"] = path
        self.settings = {
            "python": os.path.realpath(getattr(sys, "_base_executable", sys.executable)), "prefix": sys.base_prefix,
            "readable": shown, "network": network, "isolate": isolate, "seconds": seconds, "cpu_seconds": cpu_seconds,
            "memory_mb": memory_mb, "disk_mb": disk_mb, "files": files, "processes": processes,
            "open_files": open_files, "output_kb": output_kb,
        }  # fmt: skip
        self.worker: Worker | None = None
        self.began: dict[str, Any] | None = None  # as State has it
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.lost = False  # whether the worker died with the files
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._host_memory_mb = memory_mb + 8 * disk_mb + 512  # while files are copied they are held several times

    # -- calls -------------------------------------------------------------------------------------------------------

    async def python(self, code: str) -> Ran:
        """Run code in the session, with the names of earlier calls."""
        if self.began is None:
            self.began = await self._ask("save")
        return await self._run("run_python", code=code)

    async def shell(self, command: str) -> Ran:
        """Run a command in bash, in the folder and with the exported variables that the last one left."""
        return await self._run("shell", command=command)

    async def execute(self, arguments: Sequence[str], stdin: str = "") -> Ran:
        """Run a program in the work folder, its output apart from its errors."""
        return await self._run("execute", arguments=list(arguments), stdin=stdin)

    async def _run(self, method: str, **arguments: Any) -> Ran:
        result = await self._ask(method, **arguments)
        self._log(method, arguments)
        if not result["session"]:
            self.began, self.calls = None, []
        lost = [LOST] if self.lost else []
        self.lost = False
        return Ran(result["output"], result["status"], (*lost, *result["notes"]), result["errors"])

    # -- files -------------------------------------------------------------------------------------------------------

    async def put(self, files: Mapping[str, File | str | bytes]) -> None:
        """Write files and folders, by their path in the work folder."""
        entries = [_entry(path, file if isinstance(file, File) else File(file)) for path, file in files.items()]
        await self._ask("put", entries=entries)
        self._log("put", {"entries": entries})

    async def tree(self) -> dict[str, File]:
        """What is in the work folder, by path. Files whose path is too long to be named are left out."""
        entries = {entry[0]: entry for entry in (await self._ask("save"))["entries"]}
        return {place[5:]: _file(entry, entries) for place, entry in entries.items() if place.startswith("work/")}

    async def save(self) -> State:
        """All that `load` needs to make a sandbox like this one."""
        saved = await self._ask("save")
        if saved["left_out"]:
            raise EnvironmentFault(f"sandbox: {saved['left_out']} paths are too long to be named and cannot be copied")
        return State(saved, self.began, tuple(self.calls))

    async def load(self, state: State) -> None:
        """Start anew as `state` was: its files, and a Python session in which the same calls were run again."""
        self.close()
        if state.began is not None:
            await self._ask("restore", saved=state.began)
            self.began = state.began
            for method, arguments in state.calls:
                result = await self._ask(method, **arguments)
                if result and not result["session"]:
                    raise EnvironmentFault(f"sandbox: run again, a call ended the Python session: {result['output']}")
            self.calls = list(state.calls)
        await self._ask("restore", saved=state.saved)

    def _log(self, method: str, arguments: dict[str, Any]) -> None:
        if self.began is not None:
            self.calls.append((method, arguments))

    # -- the worker --------------------------------------------------------------------------------------------------

    async def _ask(self, method: str, **arguments: Any) -> Any:
        if self.worker is not None and not self.worker.alive:
            self.close()
            self.lost = True
        if self.worker is None:
            await self._start()
        assert self.worker is not None
        return await self.worker.call(method, **arguments)

    async def _start(self) -> None:
        if not self.settings["isolate"]:
            self._folder = tempfile.TemporaryDirectory(prefix="etude-", ignore_cleanup_errors=True)
        folder = self._folder.name if self._folder else ""
        settings = {"open_in" if key == "isolate" else key: value for key, value in self.settings.items()}
        limits = {"seconds": self.settings["seconds"] + SLACK, "memory_mb": self._host_memory_mb}
        crew = Crew(f"{jail.__file__}:Jail", settings=settings | {"open_in": folder}, size=1, **limits)
        try:
            self.worker = await crew.hire()
        except EnvironmentFault as error:
            if "NoIsolation" not in str(error):
                raise
            why = str(error).partition("NoIsolation: ")[2]
            raise EnvironmentFault(f"sandbox: this system does not let it shut itself in ({why}). {REMEDY}") from error

    def close(self) -> None:
        """End all that runs in it; its files are gone. A later call starts it anew."""
        if self.worker is not None:
            self.worker.kill()
        if self._folder is not None:
            self._folder.cleanup()
        self.worker, self._folder, self.lost = None, None, False
        self.began, self.calls = None, []


async def run(code: str, stdin: str = "", **settings: Any) -> Ran:
    """Run a Python program once, in a sandbox of its own: for a scorer that tests what a model wrote.

    settings: those of `Sandbox`.

    >>> import asyncio
    >>> asyncio.run(run("print(int(input()) + 1)", "41")).output
    '42\\n'
    """
    box = Sandbox(**settings)
    try:
        await box.put({"main.py": code})
        return await box.execute([box.settings["python"], "main.py"], stdin)
    finally:
        box.close()


def _entry(path: str, file: File) -> list[Any]:
    content: Any = os.fsdecode(file.content)
    if file.kind == "file":
        data = file.content.encode() if isinstance(file.content, str) else file.content
        return [f"work/{path}", "file", file.mode, file.changed, len(data), [(0, base64.b64encode(data).decode())]]
    return [f"work/{path}", file.kind, file.mode, file.changed, 0, content]


def _file(entry: list[Any], entries: dict[str, list[Any]]) -> File:
    """A file with its content; its holes are zeros."""
    _, kind, mode, changed, size, content = entry
    if kind == "same":
        return _file(entries[content], entries)
    if kind != "file":
        return File((content or "").encode(errors="surrogateescape"), mode, changed, kind)
    data = bytearray(size)
    for offset, piece in content:
        data[offset : offset + len(piece) * 3 // 4] = base64.b64decode(piece)
    return File(bytes(data), mode, changed, kind)
