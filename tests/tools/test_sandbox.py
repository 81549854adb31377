"""The sandbox: state from call to call, copies, grants, programs, and what it does where it cannot shut itself in."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from etude.core.errors import EnvironmentFault
from etude.tools import sandbox
from etude.tools.sandbox import File, Sandbox


@pytest.fixture
async def box():
    """Sandboxes that are closed at the end; skipped where this system has no isolation."""
    made = []

    async def make(**settings) -> Sandbox:
        made.append(Sandbox(**settings))
        try:
            await made[-1].shell("true")
        except EnvironmentFault as error:
            if "does not let it shut itself in" not in str(error):
                raise
            pytest.skip(str(error))
        return made[-1]

    yield make
    for one in made:
        one.close()


async def say(one: Sandbox, command: str) -> str:
    return str(await one.shell(command))


async def test_names_folder_and_variables_stay_and_processes_do_not(box):
    one = await box()
    assert str(await one.python("import math\ndef area(r): return math.pi * r * r")) == "[no output]"
    assert str(await one.python("area(1)")) == "3.141592653589793"
    assert await say(one, "mkdir d; cd d; export A='two words' B=$'line\\nbreak'; C=3; f() { :; }") == "[no output]"
    assert await say(one, 'pwd; echo "$A,$B,$C"') == "/work/d\ntwo words,line\nbreak,"
    assert await say(one, "exit 3") == "[exit status 3]"
    assert "2 process(es)" in await say(one, "sleep 99 & sleep 99 &")
    assert (await one.python("open('/work/d/x', 'w').write('hello')")).output == "5\n"
    assert await say(one, "cat x") == "hello"  # one disk for both


async def test_python_tells_what_python_tells(box):
    one = await box()
    told = await one.python("def f():\n    return {}['key']\n\nprint('before')\nf()")
    assert told.status == 1
    assert told.output.startswith("before\nTraceback")
    assert "    return {}['key']" in told.output  # the line, which is in no file
    assert "session" not in told.output
    assert told.output.endswith("KeyError: 'key'\n")
    assert (await one.python("import sys; sys.exit('enough')")).output == "SystemExit: enough. The session goes on.\n"


async def test_time_is_told_and_names_are_kept_where_python_can_be_interrupted(box):
    one = await box(seconds=1)
    await one.python("x = 5")
    told = str(await one.python("while True: pass"))
    assert "KeyboardInterrupt" in told
    assert "[stopped after 1 s, the limit on a call's time]" in told
    assert (await one.python("x")).output == "5\n"


async def test_nothing_runs_between_calls(box):
    one = await box()
    await one.python(
        "import threading, time\ngaps = [0]\ndef watch():\n last = time.monotonic()\n while True:\n"
        "  time.sleep(0.01); now = time.monotonic(); gaps[0] = max(gaps[0], now - last); last = now\n"
        "threading.Thread(target=watch, daemon=True).start()"
    )
    await asyncio.sleep(5)
    assert (await one.python("time.sleep(0.1); gaps[0] > 4")).output == "True\n"


async def test_processor_time_is_that_of_all_processes_together(box):
    one = await box(cpu_seconds=0.5, seconds=30)
    burn = "python3 -c 'while True: pass'"
    assert "0.5 s of processor time" in await say(one, f"{burn} & {burn} & wait")
    assert "0.5 s of processor time" in await say(one, f"for i in $(seq 99); do timeout 0.2 {burn}; done")  # one by one
    assert await say(one, "echo next") == "next"  # each call has its own


async def test_a_session_that_holds_the_memory_ends_and_others_do_not(box):
    one = await box(memory_mb=200)
    await one.python("x = 1")
    assert "MB of memory" in await say(
        one, "for i in 1 2 3; do python3 -c 'x = b\"x\" * (99 << 20); input()' < /dev/zero & done; wait"
    )
    assert (await one.python("x")).output == "1\n"
    await one.python("x = b'x' * (150 << 20)")
    told = await say(one, "python3 -c 'import time; x = b\"x\" * (100 << 20); time.sleep(20)'")
    assert "Python process was ended too" in told
    assert "NameError" in str(await one.python("x"))


async def test_a_shell_that_ends_python_says_so(box):
    one = await box()
    await one.python("x = 1")
    assert "the Python process was ended too, and its names are gone" in await say(one, "kill -9 -1; sleep 0.1")
    assert "NameError" in str(await one.python("x"))


async def test_a_copy_has_the_files_the_folder_and_the_names(box):
    one = await box()
    await one.put({"a/b.txt": "text", "run.sh": File("echo hi", 0o755), "c": File("a/b.txt", kind="link")})
    await one.shell("cd a; export V=1; touch -d 2001-01-01 b.txt; ln b.txt same; echo t > /tmp/t; mkdir -m 500 shut")
    await one.python("import os; n = len(os.listdir('a')); os.chdir('a')")
    await one.shell("echo new > ../later")
    state = await one.save()
    await one.shell("rm -rf /work/* /tmp/*")
    other = await box()
    await other.load(state)
    assert (await other.python("n, os.getcwd(), sorted(os.listdir('..'))")).output == (
        "(3, '/work/a', ['a', 'c', 'later', 'run.sh'])\n"
    )
    assert await say(
        other, "pwd; echo $V; cat /tmp/t ../later; date -r b.txt +%Y; stat -c %h,%a b.txt shut ../run.sh"
    ) == ("/work/a\n1\nt\nnew\n2001\n2,644\n2,500\n1,755")
    assert (await other.save()).saved["entries"] == state.saved["entries"]
    assert await say(one, "ls /work") == "[no output]"


async def test_a_tree_is_what_is_there(box):
    one = await box()
    await one.shell("mkdir -p d/e; printf 'a\\377' > d/f; ln -s d l; truncate -s 5 hole; chmod 700 hole")
    tree = await one.tree()
    assert {path: (file.kind, file.content) for path, file in tree.items()} == {
        "d": ("folder", b""), "d/e": ("folder", b""), "d/f": ("file", b"a\xff"), "l": ("link", b"d"),
        "hole": ("file", bytes(5)),
    }  # fmt: skip
    assert tree["hole"].mode == 0o700


async def test_what_is_put_stays_inside(box):
    one = await box()
    with pytest.raises(EnvironmentFault, match="leads out of the sandbox"):
        await one.put({"../../etc/x": ""})
    await one.shell("ln -s /tmp t")
    with pytest.raises(EnvironmentFault, match="leads out of the sandbox"):
        await one.put({"t/x": ""})


async def test_nothing_is_granted_unless_asked_for(box, tmp_path: Path):
    (tmp_path / "data.txt").write_text("shared")
    tmp_path.chmod(0o755)  # root, too, shows only what everyone may read
    one, other = await box(), await box(packages=True, readable={"/data": str(tmp_path)})
    assert "ModuleNotFoundError" in str(await one.python("import yaml"))
    assert (await other.python("import yaml; yaml.safe_load('[1]')")).output == "[1]\n"
    assert await say(other, "python3 -c 'import yaml; print(yaml.safe_load(\"{a: 1}\"))'; cat /data/data.txt") == (
        "{'a': 1}\nshared"
    )
    assert "Read-only" in await say(other, "echo x > /data/data.txt")
    assert "No such file" in await say(one, "ls /data")
    with pytest.raises(EnvironmentFault, match="nothing can be shown at '/work'"):
        Sandbox(readable={"/work": "/"})


async def test_the_network_is_the_hosts_where_it_is_granted(box):
    import socket

    one, other = await box(), await box(network=True)
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = (
            f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 2).close(); 'reached'"
        )
        assert "refused" in str(await one.python(code))
        assert "reached" in str(await other.python(code))
    local = "s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname(), 2).close(); 'own'"
    assert "own" in str(await one.python(local))


async def test_programs_are_tried_with_output_apart_from_errors(box):
    await box()
    code = "import sys\nfor line in sys.stdin: print(int(line) * 2)\nprint('done', file=sys.stderr)"
    ran = await sandbox.run(code, "1\n20\n")
    assert (ran.output, ran.errors, ran.status, ran.notes) == ("2\n40\n", "done\n", 0, ())
    ran = await sandbox.run(code, "1\nx\n")
    assert ran.output == "2\n"
    assert "ValueError" in ran.errors
    assert ran.status == 1
    ran = await sandbox.run("while True: pass", seconds=0.5)
    assert (ran.status, ran.notes) == (-signal.SIGKILL, ("stopped after 0.5 s, the limit on a call's time",))
    big = "x" * 1_000_000  # more than a pipe holds, to a program that reads none of it
    assert (await sandbox.run("print(1)", big)).output == "1\n"
    assert (await sandbox.run("import sys; print(len(sys.stdin.read()))", big)).output == "1000000\n"


async def test_a_sandbox_that_was_killed_starts_anew_and_says_so(box):
    one = await box()
    await one.shell("touch f")
    os.kill(one.worker.process.pid, signal.SIGKILL)
    one.worker.process.wait()
    assert await say(one, "ls") == f"[{sandbox.LOST}]"
    assert await say(one, "ls") == "[no output]"


async def test_all_that_it_started_ends_with_its_supervisor(box):
    await box()
    script = """
import asyncio, os, signal
from etude.tools.sandbox import Sandbox
async def main():
    box = Sandbox(seconds=600)
    await box.shell("true")
    asyncio.ensure_future(box.shell("exec -a etude-orphan-%d sleep 599" % os.getpid()))
    print(os.getpid(), flush=True)
    await asyncio.sleep(1)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=env)
    name, end = f"etude-orphan-{done.stdout.strip()}", time.monotonic() + 20
    assert done.stdout, done.stderr
    while any(
        name in process.info["cmdline"] for process in psutil.process_iter(["cmdline"]) if process.info["cmdline"]
    ):
        assert time.monotonic() < end, "it outlived its supervisor"
        time.sleep(0.1)


async def test_where_there_is_no_isolation_it_refuses_and_says_why(monkeypatch, tmp_path: Path):
    broken = (Path(sandbox.jail.__file__).read_text()).replace(
        'libc("unshare"', 'raise PermissionError(1, "unshare: not here")\n    libc("unshare"'
    )
    (tmp_path / "jail.py").write_text(broken)
    (tmp_path / "session.py").write_text(sandbox.jail.SESSION)
    monkeypatch.setattr(sandbox.jail, "__file__", str(tmp_path / "jail.py"))
    box = Sandbox()
    with pytest.raises(EnvironmentFault, match=r"unshare: not here\).*Sandbox\(isolate=False\)"):
        await box.shell("true")


async def test_without_isolation_time_memory_and_leftovers_are_still_watched():
    box = Sandbox(isolate=False, seconds=2, memory_mb=300)
    try:
        assert (await box.python("x = 2; x")).output == "2\n"
        await box.shell("export A=1; mkdir d; cd d; touch f")
        assert await say(box, "ls; echo $A") == "f\n1"
        assert "stopped after 2 s" in await say(box, "sleep 60")
        assert "MemoryError" in str(await box.python("bytearray(1 << 30)"))
        name = f"etude-left-{os.getpid()}"
        assert "1 process" in await say(box, f"(exec -a {name} setsid sleep 600 &) ; sleep 0.5")
        assert not [p for p in psutil.process_iter(["cmdline"]) if name in (p.info["cmdline"] or [])]
        assert list(await box.tree()) == ["d", "d/f"]
        folder = box._folder.name
    finally:
        box.close()
    assert not os.path.exists(folder)
