"""Progress: silence at first, plain lines without a terminal, and a stop that waits for a safe point."""

import os
import signal
import threading

import pytest

from etude.core import progress as module
from etude.core.progress import Stopped, progress, stopping


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.delenv("ETUDE_QUIET", raising=False)
    return clock


def test_short_work_shows_nothing(clock: Clock, capsys: pytest.CaptureFixture[str]):
    with progress(3, "collect", "episodes") as advance:
        for _ in range(3):
            clock.now += 0.6
            advance()
    assert capsys.readouterr().err == ""


def test_long_work_shows_a_line_every_ten_seconds(clock: Clock, capsys: pytest.CaptureFixture[str]):
    with progress(20, "collect", "episodes") as advance:
        for _ in range(20):
            clock.now += 1
            advance()
    assert capsys.readouterr().err.splitlines() == [
        "collect 2/20 episodes, 1.0/s, 18 s left",
        "collect 12/20 episodes, 1.0/s, 8 s left",
        "collect 20/20 episodes, 1.0/s",
    ]


def test_unknown_total(clock: Clock, capsys: pytest.CaptureFixture[str]):
    with progress(None, "import", "rows") as advance:
        clock.now += 4
        advance(1000)
    assert capsys.readouterr().err.splitlines()[0] == "import 1000 rows, 250/s"


def test_quiet_and_missing_stderr(clock: Clock, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ETUDE_QUIET", "1")
    with progress(1, "x") as advance:
        clock.now += 60
        advance()
    assert capsys.readouterr().err == ""
    monkeypatch.delenv("ETUDE_QUIET")
    monkeypatch.setattr(module.sys, "stderr", None)
    with progress(1, "x") as advance:
        clock.now += 60
        advance()


def test_a_terminal_gets_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module.sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(module, "WAIT", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("ETUDE_QUIET", raising=False)
    with progress(4, "collect", "episodes") as advance:
        advance(3)
        threading.Event().wait(0.3)
    err = capsys.readouterr().err
    assert "collect" in err
    assert "3/4" in err
    assert "/s" in err


def test_first_interrupt_asks_second_interrupts(capsys: pytest.CaptureFixture[str]):
    before = signal.getsignal(signal.SIGINT)
    with stopping() as stop:
        stop.check()
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested
        assert "stopping at the next safe point" in capsys.readouterr().err
        with pytest.raises(Stopped, match=r"^stopped; the same command resumes$"):
            stop.check()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_stopping_outside_the_main_thread():
    seen = []

    def work() -> None:
        with stopping() as stop:
            stop.check()
            seen.append(stop.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
