"""The browser on pages of our own: what is read, what is done, what is refused, and how it dies."""

import asyncio
import base64
import os
import re
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psutil
import pytest

from etude.core.errors import EnvironmentFault, MissingExtra
from etude.tools import browser
from etude.tools.browser import crew

try:
    browser.chromium()
except MissingExtra as missing:
    pytest.skip(f"{missing}, besides  pip install 'etude[browser]'", allow_module_level=True)

PAGES = {
    "index.html": """<title>Front</title><h1>Welcome</h1>
      <p>Read <a href="second.html">the second page</a> or not.</p>
      <label>Name <input id=name></label> <label>Day <input type=date id=day></label>
      <select aria-label=Size id=size><option>S<option>M<option>L</select>
      <label><input type=checkbox id=yes> I agree</label>
      <div id=plain style="width:30px;height:30px;background:red" onmousedown="document.title='pressed'"></div>
      <button disabled>Off</button> <button onclick="alert('Sure?')">Ask</button>
      <a href="second.html" target=_blank>new tab</a> <a href="file.bin" download>get it</a>
      <a href="http://127.0.0.1:%d/">elsewhere</a>
      <button onmouseenter="this.textContent='warm'">cold</button>
      <div id=box style="position:absolute;left:600px;top:300px;width:40px;height:40px;background:blue"></div>
      <script>
        const box = document.getElementById("box"); let held = null;
        box.addEventListener("mousedown", e => held = [e.clientX - box.offsetLeft, e.clientY - box.offsetTop]);
        document.addEventListener("mousemove", e => { if (held) {
          box.style.left = e.clientX - held[0] + "px"; box.style.top = e.clientY - held[1] + "px"; } });
        document.addEventListener("mouseup", () => held = null);
      </script>""",
    "second.html": "<title>Second</title><table><tr><th>Item<th>Buy<tr><td>tea<td><button>Add</button></table>",
    "frames.html": "<title>Frames</title><iframe src=second.html></iframe>",
    "long.html": "<title>Long</title>" + "".join(f"<p>line {n} of a long page</p>" for n in range(400)),
    "covered.html": "<title>Covered</title><button>Under</button>"
    "<div style='position:fixed;inset:0;background:white'>Cookies?</div>",
    "stuck.html": "<title>Stuck</title><button onclick='while (true);'>Wait</button>",
    "clock.html": "<title>Clock</title><p id=p>0</p><script>setInterval(() => p.textContent = 1 + +p.textContent, 400);"
    "document.title = Math.random() + ' ' + new Date().toISOString()</script>",
}


class Elsewhere(BaseHTTPRequestHandler):
    """A server that nobody granted; it counts who comes."""

    visits = 0

    def do_GET(self) -> None:
        Elsewhere.visits += 1
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def elsewhere():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, elsewhere):
    folder = tmp_path_factory.mktemp("pages")
    for name, text in PAGES.items():
        (folder / name).write_text(text.replace("%d", str(elsewhere)))
    (folder.parent / "secret.html").write_text("secret")
    return str(folder)


@pytest.fixture(scope="module")
def workers(folder):
    made = crew(size=2, roots={"http://pages.test/": folder}, width=800, height=600)
    yield made
    made.close()


class Agent:
    """A worker, spoken to in short."""

    def __init__(self, worker):
        self.worker = worker

    async def open(self, page: str) -> str:
        return (await self.worker.call("open", url=f"http://pages.test/{page}"))["page"]

    async def do(self, action: str, **arguments) -> str:
        reply = await self.worker.call("act", name=action, arguments=arguments)
        return reply.get("page") or "mistake: " + reply["mistake"]

    async def value(self, script: str):
        return await self.worker.call("evaluate", script=script)


@pytest.fixture
async def agent(workers):
    worker = await workers.hire()
    agent = Agent(worker)
    agent.first = await agent.open("index.html")
    yield agent
    workers.release(worker)


def mark(page: str, line: str) -> int:
    """The number of the element that the page describes so."""
    return int(page[: page.index(line)].rpartition("[")[2].partition("]")[0])


async def test_a_page_is_read_as_roles_and_names_with_marks(agent):
    lines = agent.first.split("\n")
    assert lines[0] == "Front - http://pages.test/index.html"
    assert 'heading "Welcome"' in lines
    assert 'Read [1] link "the second page" or not.' in lines
    assert '[4] combobox "Size" value "S" options "S" selected, "M", "L"' in agent.first
    assert '[5] checkbox "I agree" checked=false' in agent.first
    assert "[6] div #ff0000 30x30 at 8," in agent.first  # nothing but a listener tells that it can be pressed
    assert 'button "Off" disabled' in agent.first


async def test_actions_reach_the_page(agent):
    page = await agent.do("type", mark=mark(agent.first, 'textbox "Name"'), text="Ann")
    assert 'textbox "Name" value "Ann" focused' in page
    assert 'value "Bo"' in await agent.do("type", mark=mark(page, 'textbox "Name"'), text="Bo")
    await agent.do("type", mark=mark(page, 'Date "Day"'), text="2016-12-31")
    assert await agent.value("document.getElementById('day').value") == "2016-12-31"
    assert 'value "L"' in await agent.do("select", mark=4, options=["L"])
    page = await agent.do("click", mark=5)
    assert 'checkbox "I agree" checked focused' in page
    assert (await agent.do("click", mark=6)).startswith("pressed - ")
    assert "warm" in await agent.do("hover", mark=mark(page, '"cold"'))
    assert "at 650,280" in await agent.do("drag", mark=mark(page, "div #0000ff 40x40"), right=50, down=-20)
    assert "at 600,300" in await agent.do("drag_at", x=660, y=290, to_x=610, to_y=310)
    page = await agent.do("click", mark=1)
    assert page.startswith("Second - http://pages.test/second.html")
    assert 'row: tea | [1] button "Add"' in page
    assert (await agent.do("back")).startswith("Front - ")
    assert (await agent.do("goto", url="second.html")).startswith("Second - ")


async def test_an_element_keeps_its_mark_while_the_page_is_shown(agent):
    await agent.value("document.querySelector('h1').insertAdjacentHTML('beforebegin', '<button>New</button>')")
    page = await agent.do("look")
    assert mark(page, 'link "the second page"') == 1
    assert mark(page, 'button "New"') > 6


@pytest.mark.parametrize(
    ("action", "arguments", "words"),
    [
        ("click", {"mark": 99}, r"no element 99; the page has marks 1-\d+$"),
        ("type", {"mark": 5, "text": "x"}, "element 5 takes no text, it is a checkbox"),
        ("type", {"mark": 3, "text": "31.12."}, "does not take '31.12.'; it is a field of type date: write 2016-12-31"),
        ("select", {"mark": 4, "options": ["XL"]}, 'element 4 has no option "XL"; there are: S, M, L'),
        ("select", {"mark": 4, "options": ["S", "M"]}, "element 4 takes one option"),
        ("select", {"mark": 5, "options": ["S"]}, "element 5 is no select field; click it"),
        ("press", {"key": "Entr"}, 'Unknown key: "Entr"'),
        ("click_at", {"x": 900, "y": 5}, "the point 900,5 lies outside the view of 800x600 pixels"),
        ("drag", {"mark": 6}, "say where to"),
        ("scroll", {}, "say how many pixels"),
        ("back", {}, "there is no page before this one"),
        ("tab", {"number": 2}, "no tab 2; there are tabs 1-1"),
        ("look", {"part": 2}, "no part 2; the page has parts 1-1"),
        ("goto", {"url": "http://127.0.0.1:1/"}, "was not opened: only these can be reached: http://pages.test/"),
        ("goto", {"url": "file:///etc/passwd"}, "was not opened"),
        ("goto", {"url": "javascript:alert(1)"}, "was not opened"),
    ],
)
async def test_a_mistake_is_answered_in_words(agent, action, arguments, words):
    said = await agent.do(action, **arguments)
    assert said.startswith("mistake: ")
    assert re.search(words, said), said


async def test_what_lies_under_something_cannot_be_clicked(agent):
    page = await agent.open("covered.html")
    assert await agent.do("click", mark=mark(page, 'button "Under"')) == (
        'mistake: element 1 is covered by div "Cookies?"; deal with that first'
    )


async def test_a_long_page_comes_in_parts(agent):
    page = await agent.open("long.html")
    assert page.endswith("(part 1 of 2)")
    rest = await agent.do("look", part=2)
    assert rest.endswith("line 399 of a long page\n(part 2 of 2)")
    seen = re.findall(r"line (\d+) of", page + rest)
    assert seen == [str(n) for n in range(400)]


async def test_frames_are_seen_and_acted_in(agent):
    page = await agent.open("frames.html")
    assert 'frame:\n  table\n    row: Item | Buy\n    row: tea | [1] button "Add"' in page
    await agent.do("click", mark=1)
    assert await agent.value("frames[0].document.activeElement.textContent") == "Add"


async def test_dialogs_tabs_and_downloads_are_told(agent):
    page = await agent.do("click", mark=mark(agent.first, 'button "Ask"'))
    assert page.startswith('A dialog (alert) said "Sure?"; it was dismissed.\nFront')
    page = await agent.do("click", mark=mark(page, 'link "get it"'))
    assert "A download" in page.split("\n")[0]
    page = await agent.do("click", mark=mark(page, 'link "new tab"'))
    assert page.startswith("A new tab opened.\nSecond - http://pages.test/second.html (tab 2 of 2)")
    assert (await agent.do("tab", number=1)).startswith("Front - http://pages.test/index.html (tab 1 of 2)")


async def test_nothing_else_is_reached(agent, elsewhere):
    Elsewhere.visits = 0
    page = await agent.do("click", mark=mark(agent.first, 'link "elsewhere"'))
    assert f"http://127.0.0.1:{elsewhere}/ was not opened: only these can be reached" in page
    await agent.open("index.html")
    for reach in (
        "fetch('http://127.0.0.1:%d/', {mode: 'no-cors'})",
        "fetch('http://localhost:%d/', {mode: 'no-cors'})",
    ):
        assert await agent.value(f"{reach % elsewhere}.then(() => 'reached', () => 'refused')") == "refused"
    socket = (
        f"new Promise(end => {{ const s = new WebSocket('ws://127.0.0.1:{elsewhere}/'); s.onerror = () => end(1) }})"
    )
    assert await agent.value(socket) == 1
    assert Elsewhere.visits == 0
    assert (await agent.do("goto", url="..%2fsecret.html")).endswith("no such file")


class Redirecting(Elsewhere):
    """The server that was granted, and leads on to one that was not."""

    def do_GET(self) -> None:
        self.send_response(302)
        self.send_header("Location", self.server.onward)
        self.send_header("Content-Length", "0")
        self.end_headers()


async def test_a_redirect_does_not_lead_out(elsewhere):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Redirecting)
    server.onward = f"http://127.0.0.1:{elsewhere}/"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    outward = crew(size=1, hosts={"site.test": f"127.0.0.1:{server.server_port}"})
    worker = await outward.hire()
    Elsewhere.visits = 0
    await worker.call("open", url="about:blank")
    reply = await worker.call("act", name="goto", arguments={"url": "http://site.test/"})
    assert "ERR_PROXY_CONNECTION_FAILED" in reply["mistake"]
    assert Elsewhere.visits == 0
    outward.release(worker)
    outward.close()
    server.shutdown()


async def test_an_episode_finds_nothing_of_the_one_before(agent):
    await agent.value("(localStorage.setItem('a', '1'), document.cookie = 'b=2')")
    await agent.open("index.html")
    assert await agent.value("[localStorage.getItem('a'), document.cookie]") == [None, ""]


async def test_on_a_frozen_clock_the_same_actions_give_the_same_page(folder):
    frozen = crew(size=1, roots={"http://pages.test/": folder}, frozen=True)
    worker = await frozen.hire()
    seen = []
    for pause in (0, 0.7):
        await worker.call("open", url="http://pages.test/clock.html")
        await asyncio.sleep(pause)
        for action, arguments in (("look", {}), ("wait", {"seconds": 4}), ("look", {})):
            seen.append((await worker.call("act", name=action, arguments=arguments))["page"])
    assert seen[:3] == seen[3:]
    assert [page.split("\n")[1] for page in seen[:3]] == ["5", "17", "20"]  # one each 0.4 s, in 2, 5 and 1 s
    frozen.release(worker)
    frozen.close()


async def test_a_screenshot_is_a_png_of_the_view(agent):
    data = base64.b64decode(await agent.worker.call("screenshot"))
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert (int.from_bytes(data[16:20]), int.from_bytes(data[20:24])) == (800, 600)


def chromiums(worker) -> list[psutil.Process]:
    return [p for p in psutil.Process(worker.process.pid).children(recursive=True) if "chrom" in p.name()]


async def test_a_killed_browser_ends_its_episode_alone_and_the_worker_starts_another(workers):
    first, second = await workers.hire(), await workers.hire()
    for worker in (first, second):
        await worker.call("open", url="http://pages.test/index.html")
    (main,) = (p for p in chromiums(first) if "--type=" not in " ".join(p.cmdline()))
    os.kill(main.pid, signal.SIGKILL)
    with pytest.raises(EnvironmentFault, match="call 'act'"):
        await first.call("act", name="look", arguments={})
    assert "page" in await second.call("act", name="look", arguments={})
    assert "Front" in (await first.call("open", url="http://pages.test/index.html"))["page"]
    for worker in (first, second):
        workers.release(worker)


async def test_a_page_that_hangs_ends_its_episode(workers):
    worker = await workers.hire()
    await worker.call("open", url="http://pages.test/stuck.html")
    running = chromiums(worker)
    with pytest.raises(EnvironmentFault, match="took longer than 3 s"):
        await worker.call("act", name="click", arguments={"mark": 1}, call_seconds=3)
    workers.release(worker)
    assert not psutil.wait_procs(running, timeout=20)[1]


async def test_a_killed_worker_takes_its_browser_and_its_files_with_it(folder):
    alone = crew(size=1, roots={"http://pages.test/": folder})
    worker = await alone.hire()
    await worker.call("open", url="http://pages.test/index.html")
    running, files = chromiums(worker), browser.scratch(worker.process.pid)
    assert len(running) > 1
    assert list(files.iterdir())
    os.kill(worker.process.pid, signal.SIGKILL)
    with pytest.raises(EnvironmentFault, match=r"gone|SIGKILL"):
        await worker.call("act", name="look", arguments={})
    alone.release(worker)
    _, alive = psutil.wait_procs(running, timeout=20)
    assert not alive
    worker = await alone.hire()  # the next to start clears up
    assert not files.exists()
    alone.release(worker)
    alone.close()
