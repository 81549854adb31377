"""The other end of `process.py`: an object in a worker process, which answers calls of its methods.

Run as a file by the worker's interpreter, which may have no etude: the standard library alone.
"""

import importlib
import importlib.util
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from typing import Any


def serve(sock: socket.socket, target: str, settings: dict[str, Any]) -> None:
    """Make the object, say so, then answer one JSON line with one, until the supervisor hangs up."""

    def answer(reply: dict[str, Any]) -> None:
        sock.sendall(json.dumps(reply).encode() + b"\n")

    def failed(error: BaseException) -> None:
        answer({"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()})

    try:
        served = load(target)(**settings)
    except Exception as error:
        failed(error)
        return
    answer({"value": None})
    for line in sock.makefile("rb"):
        method, arguments = json.loads(line)
        try:
            answer({"value": getattr(served, method)(**arguments)})
        except Exception as error:
            failed(error)


def load(target: str) -> Any:
    place, _, name = target.rpartition(":")
    if not place.endswith(".py"):
        return getattr(importlib.import_module(place), name)
    spec = importlib.util.spec_from_file_location("target", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


def die_with(parent: int) -> None:
    """A supervisor that was killed cannot kill us: a browser or a JVM must not outlive it."""
    while os.getppid() == parent:
        time.sleep(1)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.stdout = sys.stderr
    sys.path[:1] = json.loads(sys.argv[4])  # in place of this file's own folder, whose names would shadow others
    threading.Thread(target=die_with, args=[os.getppid()], daemon=True).start()
    serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2], json.loads(sys.argv[3]))
    os.killpg(0, signal.SIGKILL)
