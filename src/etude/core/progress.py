"""Telling a person how far things are, and letting them stop.

Nothing is shown for the first two seconds. After that a terminal gets a bar with rate and time left; a log file or a
pipe gets a plain line every ten seconds; $ETUDE_QUIET=1 (the command line's `--quiet`) gets nothing.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from etude.core.errors import EtudeError

WAIT = 2.0  # seconds before anything is shown
EVERY = 10.0  # seconds between plain lines


class Stopped(EtudeError):
    """A run stopped at a safe point because it was asked to; the same command resumes it."""

    def __init__(self) -> None:
        super().__init__("stopped; the same command resumes")


class Stop:
    """Whether somebody asked the run to stop."""

    requested = False

    def check(self) -> None:
        """Call at a safe point, after `save_state`. Raises Stopped when a stop was requested."""
        if self.requested:
            raise Stopped()


@contextlib.contextmanager
def stopping() -> Iterator[Stop]:
    """Within this block the first Ctrl-C only asks for a stop at the next safe point; the second interrupts at once.

    Outside the main thread, where signals cannot be caught, the stop is simply never requested.
    """
    stop = Stop()

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        if stop.requested:
            raise KeyboardInterrupt
        stop.requested = True
        _say("stopping at the next safe point; Ctrl-C again stops at once")

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def progress(total: int | None, what: str, unit: str = "") -> Iterator[Callable[..., None]]:
    """Show the progress of a block: `with progress(200, "collect", "episodes") as advance: ...; advance()`.

    total: how many units there are, None where nobody knows. what: the verb in front of the bar. unit: plural noun.
    The yielded `advance(n=1)` may be called from any thread.
    """
    if os.environ.get("ETUDE_QUIET") == "1" or sys.stderr is None:
        yield lambda n=1: None
        return
    show: Any = _Bar(total, what, unit) if sys.stderr.isatty() else _PlainLines(total, what, unit)
    try:
        yield show.advance
    finally:
        show.close()


class _PlainLines:
    def __init__(self, total: int | None, what: str, unit: str) -> None:
        self.total, self.what, self.unit, self.done = total, what, unit, 0
        self.start = time.monotonic()
        self.next = self.start + WAIT
        self.shown = False
        self.lock = threading.Lock()

    def advance(self, n: int = 1) -> None:
        with self.lock:
            self.done += n
            now = time.monotonic()
            if now >= self.next:
                self.next, self.shown = now + EVERY, True
                _say(progress_line(self.what, self.done, self.total, self.unit, now - self.start))

    def close(self) -> None:
        if self.shown:
            _say(progress_line(self.what, self.done, self.total, self.unit, time.monotonic() - self.start))


class _Bar:
    def __init__(self, total: int | None, what: str, unit: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        rate = TextColumn("{task.fields[rate]}")
        columns = TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn(unit), rate, TimeRemainingColumn()
        self.bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self.task = self.bar.add_task(what, total=total, rate="")
        self.start = time.monotonic()
        self.lock = threading.Lock()
        self.closed = False
        self.timer = threading.Timer(WAIT, self._show)  # shows the bar even while the first unit is still being done
        self.timer.daemon = True
        self.timer.start()

    def _show(self) -> None:
        with self.lock:
            if not self.closed:
                self.bar.start()

    def advance(self, n: int = 1) -> None:
        with self.lock:
            done = self.bar.tasks[0].completed + n
            rate = done / max(time.monotonic() - self.start, 1e-9)
            self.bar.update(self.task, advance=n, rate=f"{_rate(rate)}/s")

    def close(self) -> None:
        self.timer.cancel()
        with self.lock:
            self.closed = True
            self.bar.stop()


def progress_line(what: str, done: int, total: int | None, unit: str, seconds: float) -> str:
    """One plain line of progress.

    >>> progress_line("collect", 50, 200, "episodes", 25.0)
    'collect 50/200 episodes, 2.0/s, 1 min 15 s left'
    """
    rate = done / seconds if seconds > 0 else 0.0
    count = f"{done}/{total}" if total is not None else f"{done}"
    left = f", {duration((total - done) / rate)} left" if total is not None and rate > 0 and done < total else ""
    return f"{what} {count}{' ' + unit if unit else ''}, {_rate(rate)}/s{left}"


def duration(seconds: float) -> str:
    """Seconds for a person.

    >>> duration(7.4), duration(580), duration(7380)
    ('7 s', '9 min 40 s', '2 h 3 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}" if rate >= 0.1 else f"{rate:.2g}"


def _say(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # a closed or broken stderr must not end a run
        print(text, file=sys.stderr, flush=True)
