"""A browser for agents: Chromium, driven by Playwright in a worker process, read as text with numbered elements.

`crew` makes the workers. Each holds one `Browser`, that is one Chromium, and gives every episode a browser context of
its own: no cookie or storage passes from one to the next. Nothing is reached but what is granted: `hosts`, straight,
and `roots`, folders that are shown under an address without any server. All other traffic, redirects and sockets
included, goes to a proxy that does not exist.

Methods answer with JSON values: `{"page": text}` or `{"mistake": text}`, the agent's mistake in words.
"""

import base64
import os
import shutil
import tempfile
import time
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from etude.core.errors import MissingExtra, missing_extra
from etude.tools.page import STYLES, Marks, describe, looks
from etude.tools.process import Crew

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-smooth-scrolling",
    "--disable-site-isolation-trials",  # frames in one process, so that one view sees them
    "--renderer-process-limit=2",
    "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
]
NOWHERE = "http://127.0.0.1:1"
EPOCH = 1_480_000_000  # November 2016; where a frozen clock starts, seconds
TICK = 1000  # what an action takes on a frozen clock, ms: long enough for the usual animation
PAUSE, PATIENCE = 10, 3  # ms between looks whether a page has loaded; s until it is taken as it is
SEEDED = "(() => { let s = 1; Math.random = () => (s = s * 48271 % 2147483647) / 2147483647; })()"
POINTS = [(0.5, 0.5), (0.1, 0.1), (0.9, 0.1), (0.1, 0.9), (0.9, 0.9)]
COVERED = """function (over) {
  if (!over || this.contains(over) || over.contains(this) || over.closest?.("label")?.control === this) return "";
  for (let e = over; e; e = e.parentNode ?? e.host) if (e === this) return "";
  const element = over.nodeType === 3 ? over.parentElement : over;
  const words = (element.innerText ?? "").trim().slice(0, 40);
  return element.tagName.toLowerCase() + (words ? ` "${words}"` : "");
}"""
KIND = """function () {
  if (this.disabled) return "disabled";
  if (this.isContentEditable || this.tagName === "TEXTAREA") return "text";
  if (this.tagName !== "INPUT") return "a " + this.tagName.toLowerCase();
  const typed = ["text", "search", "email", "url", "tel", "password", "number"];
  const picked = ["date", "time", "month", "week", "datetime-local", "color", "range"];
  return typed.includes(this.type) ? "text" : picked.includes(this.type) ? this.type : "a " + this.type;
}"""
SET_VALUE = """function (text) {
  this.focus();
  this.value = text;
  this.dispatchEvent(new Event("input", {bubbles: true}));
  this.dispatchEvent(new Event("change", {bubbles: true}));
  return this.value;
}"""
PICKERS = {
    "date": "write 2016-12-31",
    "time": "write 09:30",
    "month": "write 2016-12",
    "week": "write 2016-W52",
    "datetime-local": "write 2016-12-31T09:30",
    "color": "write #ff0000",
    "range": "write a number within its limits and steps",
}
SELECT = """function (wanted) {
  if (this.tagName !== "SELECT") return "is no select field; click it";
  if (this.disabled) return "is disabled";
  const says = o => o.label.replace(/\\s+/g, " ").trim(), all = [...this.options];
  if (wanted.length !== 1 && !this.multiple) return "takes one option";
  for (const want of wanted)
    if (!all.some(o => says(o) === want && !o.disabled))
      return `has no option "${want}"; there are: ` + all.map(says).join(", ");
  for (const option of all) option.selected = wanted.includes(says(option));
  this.dispatchEvent(new Event("input", {bubbles: true}));
  this.dispatchEvent(new Event("change", {bubbles: true}));
}"""

Plan = Generator[tuple[str, dict[str, Any]], str, Any]
"""A way through pages: yields an action and its arguments, and is sent the page that came of it."""


def _action(name: str, description: str, needed: str = "", **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": needed.split()}
    return {"name": name, "description": description, "parameters": parameters}


MARK = {"type": "integer", "description": "number of the element, as in [12]"}
TEXT, NUMBER = {"type": "string"}, {"type": "integer"}
ACTIONS = {
    schema["name"]: schema
    for schema in (
        _action("goto", "open an address", "url", url=TEXT),
        _action("back", "return to the page before"),
        _action("look", "read the page again, or another part of a long one", part={"type": "integer", "default": 1}),
        _action(
            "click", "click an element", "mark",
            mark=MARK, double={"type": "boolean", "default": False},
        ),
        _action("click_at", "click a point of the view", "x y", x=NUMBER, y=NUMBER),
        _action(
            "type", "replace the text of a field", "mark text",
            mark=MARK, text=TEXT,
            enter={"type": "boolean", "default": False, "description": "press Enter afterwards"},
        ),
        _action("press", "press a key or a chord, such as Enter, Tab or Control+a", "key", key=TEXT),
        _action("select", "choose options of a select field", "mark options", mark=MARK,
                options={"type": "array", "items": TEXT}),
        _action("hover", "move the mouse over an element", "mark", mark=MARK),
        _action("scroll", "turn the mouse wheel over an element, or over the page", mark=MARK,
                right={**NUMBER, "default": 0}, down={**NUMBER, "default": 0}),
        _action(
            "drag", "drag an element onto another, or by some pixels", "mark",
            mark=MARK, to=MARK, right={**NUMBER, "default": 0}, down={**NUMBER, "default": 0},
        ),
        _action("drag_at", "drag from a point of the view to another", "x y to_x to_y",
                x=NUMBER, y=NUMBER, to_x=NUMBER, to_y=NUMBER),
        _action("wait", "let some time pass", "seconds", seconds={"type": "number", "minimum": 0, "maximum": 10}),
        _action("tab", "go to another tab", "number", number=NUMBER),
    )
}  # fmt: skip


class Mistake(Exception):
    """The agent's mistake, in words that say how to mend it."""


def chromium() -> str:
    """Where Chromium is. Raises MissingExtra where it, or Playwright, is not installed."""
    try:
        import playwright  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise missing_extra("browser", "playwright") from error
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        raise MissingExtra(f"no Chromium is installed (looked for {', '.join(NAMES)}); run:  apt-get install chromium")
    return found


def crew(target: str = "etude.tools.browser:Browser", *, size: int = 8, **settings: Any) -> Crew:
    """Workers with a browser each; `target` is `Browser` or a subclass, `settings` its arguments.

    Raises MissingExtra where Chromium or Playwright is not installed.
    """
    chromium()
    return Crew(target, settings=settings, size=size, memory_mb=3072)


class Browser:
    """One Chromium. Uses Playwright's sync API, so everything happens in one thread."""

    def __init__(
        self,
        *,
        hosts: dict[str, str] | None = None,
        roots: dict[str, str] | None = None,
        width: int = 1024,
        height: int = 768,
        frozen: bool = False,
        seconds: float = 10,
        part_chars: int = 6000,
    ):
        """hosts: servers that may be reached, `host:port` by the name that they have in addresses, such as
            `{"shop.test": "127.0.0.1:8000"}`: a name does not change from run to run as a free port does.
        roots: folders by the address that shows them, such as `{"http://suite.test/": "/usr/share/suite"}`.
        width, height: of the view, pixels.
        frozen: time stands still but for TICK ms an action, and Math.random has a fixed seed, so that the same actions
            give the same pages.
        seconds: what loading a page may take.
        part_chars: length at which a page's text is divided into parts.
        """
        from playwright.sync_api import (  # pyright: ignore[reportMissingImports]
            Error,
            TimeoutError,
            sync_playwright,
        )

        self.Error, self.TimeoutError = Error, TimeoutError
        os.environ["TMPDIR"] = _own_scratch()  # where Playwright makes Chromium's user data
        self.hosts, self.frozen, self.seconds, self.part_chars = hosts or {}, frozen, seconds, part_chars
        self.roots = {prefix: Path(folder).resolve() for prefix, folder in (roots or {}).items()}
        self.view = {"width": width, "height": height}
        self.playwright = sync_playwright().start()
        self.browser: Any = None
        self.context: Any = None
        self._launch()

    def _launch(self) -> None:
        self.browser = self.playwright.chromium.launch(
            executable_path=chromium(),
            args=[*FLAGS, "--host-resolver-rules=" + ",".join(f"MAP {name} {at}" for name, at in self.hosts.items())],
            proxy={"server": NOWHERE, "bypass": ",".join(self.hosts)},
        )

    # -- episodes ----------------------------------------------------------------------------------------------------

    def open(self, url: str) -> dict[str, Any]:
        """Begin an episode at this page, in a fresh context. A Chromium that died is started again."""
        if self.context is not None and self.browser.is_connected():
            self.context.close()
        if not self.browser.is_connected():
            self._launch()
        self.notes: list[str] = []
        self.busy: set[Any] = set()
        self.tabs: list[Any] = []
        self.read = self.document = None
        self.marks = Marks()
        self.context = self.browser.new_context(
            viewport=self.view, accept_downloads=False, service_workers="block", locale="en-US", timezone_id="UTC"
        )
        self.context.set_default_timeout(self.seconds * 1000)
        self.context.on("page", self._opened)
        self.context.on("request", lambda request: self.busy.add(request))
        self.context.on("requestfinished", lambda request: self.busy.discard(request))
        self.context.on("requestfailed", self._failed)
        for prefix in self.roots:
            self.context.route(f"{prefix}**", self._serve)
        if self.frozen:
            self.context.add_init_script(SEEDED)
            self.context.clock.install(time=EPOCH)
            self.context.clock.pause_at(EPOCH + 3600)  # it runs until here, and nothing is shown yet
        page = self.context.new_page()
        page.goto(url)
        if self.frozen:
            self._tick(TICK)
        return {"page": self.text()}

    def act(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Take one of ACTIONS and read the page that comes of it."""
        try:
            part = getattr(self, f"_{name}")(**arguments) or 1
            self._settle()
            return {"page": self.text(part)}
        except Mistake as mistake:
            return {"mistake": str(mistake)}
        except self.TimeoutError:
            return {"mistake": f"{name} took longer than {self.seconds:g} s"}
        except self.Error as error:
            if not self.browser.is_connected() or self.page.is_closed() or "crash" in str(error).lower():
                raise
            return {"mistake": str(error).partition("\n")[0]}

    def evaluate(self, script: str, value: Any = None) -> Any:
        """What a JavaScript expression, or a function of `value`, gives in the page: for the world, not the agent."""
        return self.page.evaluate(script, value)

    def screenshot(self) -> str:
        """The view as PNG, in base64."""
        return base64.b64encode(self.page.screenshot()).decode()

    def follow(self, plan: Plan) -> list[tuple[str, dict[str, Any]]]:
        """Go through with a plan from the page that is open; what was done. Raises ValueError for a plan that errs."""
        done = []
        try:
            call = next(plan)
            while True:
                done.append(call)
                reply = self.act(*call)
                if "mistake" in reply:
                    raise ValueError(f"{call[0]}({call[1]}): {reply['mistake']}")
                call = plan.send(reply["page"])
        except StopIteration:
            return done

    # -- what is seen ------------------------------------------------------------------------------------------------

    @property
    def page(self) -> Any:
        return self.tabs[self.tab]

    def text(self, part: int = 1) -> str:
        """The page as text, after what happened since it was last read."""
        if self.page is not self.read:
            self.read, self.cdp = self.page, self.context.new_cdp_session(self.page)
            for domain in ("DOM", "Accessibility", "Page"):
                self.cdp.send(f"{domain}.enable")
        trees = {owner: self.cdp.send("Accessibility.getFullAXTree", which)["nodes"] for owner, which in self._frames()}
        document = trees[None][0]["backendDOMNodeId"]
        if document != self.document:
            self.document, self.marks = document, Marks()
        drawn = looks(self.cdp.send("DOMSnapshot.captureSnapshot", {"computedStyles": STYLES}))
        parts = _parts(describe(trees, drawn, self.marks), self.part_chars)
        if not 1 <= part <= len(parts):
            raise Mistake(f"no part {part}; the page has parts 1-{len(parts)}")
        tabs = f" (tab {self.tab + 1} of {len(self.tabs)})" if len(self.tabs) > 1 else ""
        more = [f"(part {part} of {len(parts)})"] if len(parts) > 1 else []
        notes, self.notes = self.notes, []
        return "\n".join([*notes, f"{self.page.title()} - {self.page.url}{tabs}", *parts[part - 1], *more])

    def _frames(self) -> list[tuple[int | None, dict[str, Any]]]:
        """Each frame by the element that holds it, as arguments for the accessibility tree."""
        found: list[tuple[int | None, dict[str, Any]]] = [(None, {})]
        inside = self.cdp.send("Page.getFrameTree")["frameTree"].get("childFrames", [])
        for frame in inside:
            which = {"frameId": frame["frame"]["id"]}
            found.append((self.cdp.send("DOM.getFrameOwner", which)["backendNodeId"], which))
            inside += frame.get("childFrames", [])
        return found

    def _opened(self, page: Any) -> None:
        page.on("dialog", self._dialog)
        page.on("download", self._download)
        page.on("close", self._closed)
        if self.tabs:
            self.notes.append("A new tab opened.")
        self.tabs.append(page)
        self.tab = len(self.tabs) - 1

    def _closed(self, page: Any) -> None:
        self.notes.append("A tab was closed.")
        self.tabs.remove(page)
        self.tab = min(self.tab, len(self.tabs) - 1)

    def _dialog(self, dialog: Any) -> None:
        if dialog.type == "beforeunload":
            dialog.accept()
            return
        self.notes.append(f'A dialog ({dialog.type}) said "{dialog.message}"; it was dismissed.')
        dialog.dismiss()

    def _download(self, download: Any) -> None:
        self.notes.append(f'A download of "{download.suggested_filename}" was refused.')

    def _failed(self, request: Any) -> None:
        self.busy.discard(request)
        if request.is_navigation_request() and not self._granted(request.url):
            self.notes.append(f"{request.url} was not opened: {self._reach()}")

    # -- what may be reached -----------------------------------------------------------------------------------------

    def _granted(self, url: str) -> bool:
        parts = urlsplit(url)
        return any(map(url.startswith, self.roots)) or (
            parts.scheme in ("http", "https") and parts.netloc in self.hosts
        )

    def _reach(self) -> str:
        return f"only these can be reached: {', '.join([*self.hosts, *self.roots])}"

    def _serve(self, route: Any) -> None:
        """Show a file of a root."""
        prefix = next(prefix for prefix in self.roots if route.request.url.startswith(prefix))
        inside = unquote(urlsplit(route.request.url).path).removeprefix(urlsplit(prefix).path)
        file = (self.roots[prefix] / inside).resolve()
        if file.is_file() and file.is_relative_to(self.roots[prefix]):
            route.fulfill(path=file)
        else:
            route.fulfill(status=404, body="no such file")

    # -- actions -----------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Let the page take an action in."""
        if self.frozen:
            self._tick(TICK)
        self._quiet()

    def _quiet(self) -> None:
        """Wait until nothing is being loaded, twice in a row."""
        end, quiet = time.monotonic() + PATIENCE, 0
        while quiet < 2 and time.monotonic() < end:
            self.page.wait_for_timeout(PAUSE)
            try:
                loaded = self.page.evaluate("document.readyState") == "complete"  # waits for the page's own work too
            except self.Error:
                if not self.browser.is_connected():
                    raise
                loaded = False  # it is being left for another
            quiet = quiet + 1 if loaded and not self.busy else 0

    def _tick(self, ms: float) -> None:
        self.context.clock.run_for(ms)

    def _element(self, mark: int) -> int:
        if mark not in self.marks.shown:
            raise Mistake(f"no element {mark}; the page has {_ranges(self.marks.shown)}")
        return self.marks.shown[mark]

    def _in_page(self, mark: int, function: str, *arguments: Any) -> Any:
        """The value of a JavaScript function, called with the element as `this`."""
        node = self.cdp.send("DOM.resolveNode", {"backendNodeId": self._element(mark)})
        return self.cdp.send(
            "Runtime.callFunctionOn",
            {
                "functionDeclaration": function,
                "objectId": node["object"]["objectId"],
                "arguments": [{"value": value} for value in arguments],
                "returnByValue": True,
            },
        )["result"].get("value")

    def _point(self, mark: int) -> tuple[float, float]:
        """Where a click reaches an element: its middle, or another point of it where something covers that."""
        node = {"backendNodeId": self._element(mark)}
        try:
            self.cdp.send("DOM.scrollIntoViewIfNeeded", node)
            quads = self.cdp.send("DOM.getContentQuads", node)["quads"]
        except self.Error:
            quads = []
        if not quads:
            raise Mistake(f"element {mark} is no longer shown; look again")
        left, top, _, _, right, bottom, _, _ = quads[0]
        cover = ""
        for across, down in POINTS:
            x, y = left + across * (right - left), top + down * (bottom - top)
            at = self.cdp.send("DOM.getNodeForLocation", {"x": int(x), "y": int(y)})
            if not (cover := self._covering(node, at)):
                return x, y
        raise Mistake(f"element {mark} is covered by {cover}; deal with that first")

    def _covering(self, node: dict[str, Any], at: dict[str, Any]) -> str:
        """What lies over the node, '' where nothing does: a part of it, what it is part of, or its label may."""
        ours, theirs = (
            self.cdp.send("DOM.resolveNode", {"backendNodeId": one["backendNodeId"]})["object"]["objectId"]
            for one in (node, at)
        )
        arguments = {"objectId": ours, "functionDeclaration": COVERED, "arguments": [{"objectId": theirs}]}
        return self.cdp.send("Runtime.callFunctionOn", {**arguments, "returnByValue": True})["result"].get("value", "")

    def _goto(self, url: str) -> None:
        url = urljoin(self.page.url, url)
        if not self._granted(url):
            raise Mistake(f"{url!r} was not opened: {self._reach()}")
        self.page.goto(url)

    def _back(self) -> None:
        if self.page.go_back() is None:
            raise Mistake("there is no page before this one")

    def _look(self, part: int = 1) -> int:
        return part

    def _click(self, mark: int, double: bool = False) -> None:
        x, y = self._point(mark)
        self.page.mouse.move(x, y)
        self._quiet()  # an element may look different under the mouse, and be gone while that picture is loaded
        self.page.mouse.click(x, y, click_count=2 if double else 1)

    def _click_at(self, x: int, y: int) -> None:
        self.page.mouse.click(*self._within(x, y))

    def _type(self, mark: int, text: str, enter: bool = False) -> None:
        kind = self._in_page(mark, KIND)
        if kind in PICKERS:
            if self._in_page(mark, SET_VALUE, text) != text:
                raise Mistake(f"element {mark} does not take {text!r}; it is a field of type {kind}: {PICKERS[kind]}")
        elif kind != "text":
            raise Mistake(f"element {mark} takes no text, it is {kind}")
        else:
            self._click(mark)
            self.page.keyboard.press("Control+a")
            self.page.keyboard.press("Delete")
            self.page.keyboard.type(text)
        if enter:
            self.page.keyboard.press("Enter")

    def _press(self, key: str) -> None:
        self.page.keyboard.press(key)

    def _select(self, mark: int, options: list[str]) -> None:
        problem = self._in_page(mark, SELECT, options)
        if problem:
            raise Mistake(f"element {mark} {problem}")

    def _hover(self, mark: int) -> None:
        self.page.mouse.move(*self._point(mark))

    def _scroll(self, mark: int | None = None, right: int = 0, down: int = 0) -> None:
        if not right and not down:
            raise Mistake("say how many pixels, such as down=300 or down=-300")
        middle = self.view["width"] / 2, self.view["height"] / 2
        self.page.mouse.move(*(middle if mark is None else self._point(mark)))
        self.page.mouse.wheel(right, down)

    def _drag(self, mark: int, to: int | None = None, right: int = 0, down: int = 0) -> None:
        if to is None and not right and not down:
            raise Mistake("say where to: another element with to=, or pixels with right= and down=")
        x, y = self._point(mark)
        self._drag_at(x, y, *(self._point(to) if to is not None else (x + right, y + down)))

    def _drag_at(self, x: float, y: float, to_x: float, to_y: float) -> None:
        start, end = self._within(x, y), self._within(to_x, to_y)
        self.page.mouse.move(*start)
        self.page.mouse.down()
        self.page.mouse.move(*end, steps=10)
        self.page.mouse.up()

    def _within(self, x: float, y: float) -> tuple[float, float]:
        width, height = self.view["width"], self.view["height"]
        if not (0 <= x < width and 0 <= y < height):
            raise Mistake(f"the point {x:g},{y:g} lies outside the view of {width}x{height} pixels")
        return x, y

    def _wait(self, seconds: float) -> None:
        if self.frozen:
            self._tick(seconds * 1000)
        else:
            self.page.wait_for_timeout(seconds * 1000)

    def _tab(self, number: int) -> None:
        if not 1 <= number <= len(self.tabs):
            raise Mistake(f"no tab {number}; there are tabs 1-{len(self.tabs)}")
        self.tab = number - 1


def _parts(lines: list[str], chars: int) -> list[list[str]]:
    """Lines in parts of at most so many characters, or of one line."""
    parts: list[list[str]] = [[]]
    used = 0
    for line in lines:
        if parts[-1] and used + len(line) > chars:
            parts.append([])
            used = 0
        parts[-1].append(line)
        used += len(line) + 1
    return parts


def _ranges(marks: Iterable[int]) -> str:
    """What numbers there are.

    >>> _ranges([3, 1, 2, 7]), _ranges([])
    ('marks 1-3, 7', 'no marks')
    """
    runs: list[list[int]] = []
    for mark in sorted(marks):
        if runs and mark == runs[-1][1] + 1:
            runs[-1][1] = mark
        else:
            runs.append([mark, mark])
    return f"marks {', '.join(f'{a}-{b}' if a < b else str(a) for a, b in runs)}" if runs else "no marks"


def scratch(process: int) -> Path:
    """Where the worker of this process id keeps its browser's files."""
    return Path(tempfile.gettempdir()) / f"etude-browser-{process}"


def _own_scratch() -> str:
    """A folder for this process; those of workers that were killed are removed."""
    mine = scratch(os.getpid())
    for old in mine.parent.glob("etude-browser-*"):
        try:
            os.kill(int(old.name.rpartition("-")[2]), 0)
        except ProcessLookupError:
            shutil.rmtree(old, ignore_errors=True)
        except PermissionError:  # somebody else's
            pass
    mine.mkdir(mode=0o700, exist_ok=True)
    return str(mine)
