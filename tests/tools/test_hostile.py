"""The attacks of `hostile.py`, as the user that runs the tests and, where that is root, as an ordinary one too."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

import etude

PROGRAM = Path(__file__).with_name("hostile.py")
spec = importlib.util.spec_from_file_location("hostile", PROGRAM)
assert spec is not None
assert spec.loader is not None
hostile = importlib.util.module_from_spec(spec)
sys.modules["hostile"] = hostile
spec.loader.exec_module(hostile)
NOBODY = {"user": 65534, "group": 65534, "extra_groups": []}


def readable_python() -> str | None:
    """An interpreter that everyone may run."""
    for path in (sys._base_executable, shutil.which("python3", path="/usr/bin:/usr/local/bin")):  # type: ignore[attr-defined]
        ask = [path, "-c", "import sys; assert sys.version_info[:2] == " + repr(sys.version_info[:2])]
        try:
            if path and subprocess.run(ask, capture_output=True, cwd="/", env={}, **NOBODY).returncode == 0:
                return path
        except OSError:
            continue
    return None


@pytest.fixture(scope="module", params=["as we are", "ordinary user"])
def report(request):
    """What came of all attacks; they run once, four at a time."""
    ordinary = request.param == "ordinary user"
    if ordinary and os.getuid() != 0:
        pytest.skip("the tests run as an ordinary user already")
    python = readable_python() if ordinary else sys.executable
    if python is None:
        pytest.skip("no interpreter of this version that an ordinary user may run")
    with tempfile.TemporaryDirectory(prefix="etude-hostile-") as place:
        yield attacked(python, Path(place), ordinary)


def attacked(python: str, place: Path, ordinary: bool) -> dict:
    """Run the program on a folder below `place`."""
    place.chmod(0o755)
    folder, packages = place / "folder", place / "site-packages"
    for package in (etude, psutil):  # where everyone may read them
        shutil.copytree(Path(package.__file__).parent, packages / package.__name__)
    program = shutil.copy(PROGRAM, place)
    folder.mkdir()
    (folder / "secret").write_text(hostile.SECRET)
    folder.chmod(0o777)  # so that only the sandbox stands in the way
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(packages), "PYTHONDONTWRITEBYTECODE": "1"}
    user: dict = NOBODY if ordinary else {}
    done = subprocess.run([python, program, folder], capture_output=True, text=True, env=env, cwd="/", **user)
    assert done.returncode == 0, done.stderr
    if missing := re.search("this system does not let it shut itself in.*?[)]", done.stdout):
        pytest.skip(missing[0])
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    return json.loads(done.stdout) | {"unchanged": before == after}


def test_the_host_lives_and_is_unchanged(report):
    assert report["victim lives"]
    assert report["unchanged"]


@pytest.mark.parametrize("name", hostile.ATTACKS)
def test_attack(report, name):
    """Nothing outside is touched, the agent is told what happened, and the sandbox goes on."""
    result, attack = report["attacks"][name], hostile.ATTACKS[name]
    assert "fault" not in result, result["fault"]
    assert re.search(attack.says, result["told"]), result["told"][-2000:]
    assert result["running"] == []
    assert result["after"][1].startswith("42"), result["after"]  # the first may be told that the session has ended
    assert "alive" in result["after"][2], result["after"]
    assert result["copied"]
    assert hostile.SECRET not in json.dumps(result)
