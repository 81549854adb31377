"""MiniWoB++: small web pages, each with an instruction and a verdict of its own, played in a real browser.

Shi et al. 2017, "World of Bits", ICML; Liu et al. 2018, "Reinforcement Learning on Web Interfaces using Workflow-Guided
Exploration", ICLR, arXiv:1802.08802. The pages are those of the package `miniwob` (Farama Foundation, MIT licence;
https://miniwob.farama.org): 125 pages of `miniwob` and the 3 of `flight`.

The reward is the page's own, without the discount for time: 1 for what was asked, down to -1, with parts in between on
some pages. An episode that ends without a verdict has -1, as where the suite's time is up; so has one that does
nothing.

Departures: pages are read as an accessibility tree with numbered elements and acted on by `etude.tools.browser`, not by
Selenium. Time stands still but for a second an action, so that the same actions give the same episode, and the suite's
time limit holds only where `timed`. The display of rewards is hidden.
"""

from __future__ import annotations

import base64
import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from etude.core.errors import EnvironmentFault, PartError, missing_extra, suggest
from etude.core.parts import part
from etude.environments.base import LazyTasks, Tasks
from etude.environments.functions import ToolError
from etude.environments.hosted import HostedSession
from etude.protocols import Observation, Step, Task
from etude.tools.browser import ACTIONS, Browser, Plan, crew
from etude.trajectory import Image, Message, ToolCall

INSTALL = "pip install 'etude[miniwob]' && apt-get install chromium"
ADDRESS = "http://miniwob.test/"
LEFT_OUT = ("button-delay", "chase-circle", "hover-shape", "moving-items", "simon-says")  # the suite registers none
FLIGHTS = ("flight.AA", "flight.Alaska", "flight.Alaska-auto")
HELD_OUT = (
    "click-collapsible", "copy-paste", "drag-shapes", "email-inbox-forward", "find-", "flight.", "login-user",
    "read-table", "social-media", "use-slider",
)  # fmt: skip
TOOLS = ("click", "click_at", "type", "press", "select", "hover", "scroll", "drag", "drag_at", "wait", "look")
INSTRUCTION = "Do on the web page what is asked, with the tools. The numbers in brackets name the page's elements."
FOREVER = 2_000_000_000  # ms
VERSION = "1.1.0"
START = """([seed, mode, limit]) => {
  const style = document.createElement("style");
  style.textContent = "#reward-display, #click-canvas { display: none !important }";
  document.head.append(style);
  Math.seedrandom(seed);
  core.setDataMode(mode);
  if (limit) core.EPISODE_MAX_TIME = limit;
  core.startEpisodeReal();
  const said = core.getUtterance();
  return said.utterance ?? said;
}"""
VERDICT = 'typeof WOB_DONE_GLOBAL === "undefined" ? [true, -1] : [WOB_DONE_GLOBAL, WOB_RAW_REWARD_GLOBAL]'


@part
@dataclass(eq=False)
class miniwob(Tasks):
    """Web pages of one instruction each: click, type, choose, drag, search, book.

    A page makes a new problem for every number, so there are as many tasks as wanted. `train`, `dev` and `test` have
    different problems of the same pages; `pages` has pages that these never show, whole families of them.

    Raises PartError for a page that there is not, MissingExtra where `miniwob`, Playwright or Chromium is absent.
    """

    pages: list[str] | str = "all"
    """Names of pages, such as `click-tab-2`; `all`; or `solved`, those that the expert can do."""
    size: int = 100
    """Problems of each page in `train`; the other splits have a tenth."""
    max_steps: int = 20
    """Messages after which the episode ends."""
    timed: bool = False
    """Whether the suite's time limit holds, most often 10 s, of which an action takes one."""
    images: bool = False
    """Whether each view comes with a picture of it."""
    name = "miniwob"
    reward_range = (-1.0, 1.0)
    at_once = 8

    def __post_init__(self) -> None:
        known = _pages()
        chosen = [self.pages] if isinstance(self.pages, str) else list(self.pages)
        groups = {"all": list(known), "solved": [page for page in known if page in PLANS]}
        self.chosen = groups.get(chosen[0], chosen) if len(chosen) == 1 else chosen
        for page in self.chosen:
            if page not in known:
                raise PartError(f"environments/miniwob has no page {page!r}; {suggest(page, known)}")
        target = f"{__name__}:Suite"
        self.crew = crew(target, size=self.at_once, folder=str(_folder()))
        self.experts = crew(target, size=1, folder=str(_folder()))

    def tasks(self, split: str) -> LazyTasks:
        """Tasks of `train`, `dev`, `test` or `pages`. Raises PartError for another split."""
        sizes = {
            "train": self.size,
            "dev": -(-self.size // 10),
            "test": -(-self.size // 10),
            "pages": -(-self.size // 10),
        }
        if split not in sizes:
            raise PartError(f"environments/miniwob has no split {split!r}; {suggest(split, sizes)}")
        pages = [page for page in self.chosen if page.startswith(HELD_OUT) == (split == "pages")]
        return LazyTasks(lambda i: self._make(split, pages[i % len(pages)], i // len(pages)), sizes[split] * len(pages))

    def _make(self, split: str, page: str, number: int) -> Task:
        identity = f"miniwob/{split}/{page}/{number}"
        # three pages and the flights keep some kinds of problems for tests
        mode = "test" if split == "test" else "train"
        data = {"page": page, "seed": identity, "mode": mode, "limit": 0 if self.timed else FOREVER}
        skills = tuple(page.replace(".", "-").split("-")[:1])
        return Task(identity, self, split, data, page, _pages()[page], skills, f"miniwob {VERSION}")

    def open(self) -> MiniwobSession:
        return MiniwobSession(self)

    def solve(self, task: Task, seed: int) -> list[Message]:
        """The calls of a script that reads the page as an agent does. Raises EnvironmentFault where it has none."""
        if task.data["page"] not in PLANS:
            raise EnvironmentFault(f"{task.id}: the expert cannot do this page; choose pages='solved'")
        done = self.experts.ask("solve", **task.data)
        return [
            Message("assistant", "", (ToolCall(name, arguments, f"call_{n}"),))
            for n, (name, arguments) in enumerate(done, 1)
        ]


def _folder() -> Path:
    spec = importlib.util.find_spec("miniwob")  # its HTML is read, its code never run
    if spec is None or spec.origin is None:
        raise missing_extra("miniwob", "miniwob")
    return Path(spec.origin).parent / "html"


@cache
def _pages() -> dict[str, float]:
    """The suite's pages, and how hard each is: the time that the suite allows, in units of its usual ten seconds."""
    files = {file.stem: file for file in sorted((_folder() / "miniwob").glob("*.html")) if file.stem not in LEFT_OUT}
    files |= {name: _folder() / name.replace(".", "/") / "wrapper.html" for name in FLIGHTS}
    return {name: _limit(file.read_text(encoding="utf-8")) / 10_000 for name, file in files.items()}


def _limit(html: str) -> float:
    found = re.search(r"core\.EPISODE_MAX_TIME\s*=\s*(\d+)", html)
    return float(found[1]) if found else 10_000.0


class MiniwobSession(HostedSession):
    """One episode on one page."""

    def __init__(self, world: miniwob):
        super().__init__(world.crew, max_steps=world.max_steps, max_chars=8000, call_seconds=60)
        self.world = world
        self.tools = [ACTIONS[name] for name in TOOLS]

    async def begin(self, task: Task, seed: int) -> Observation:
        self.over, self.reward = False, -1.0
        begun = await self.ask("start", **task.data)
        user = Message("user", f"{begun['said']}\n\n{begun['page']}")
        return Observation((Message("system", INSTRUCTION), await self._pictured(user)))

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        if self.over:
            raise ToolError("the page has given its verdict already")
        reply = await self.ask("act", name=name, arguments=arguments)
        self.over, self.reward = reply["verdict"]
        if "mistake" in reply:
            raise ToolError(reply["mistake"])
        return reply["page"]

    async def step(self, action: Any) -> Step:
        step = await super().step(action)
        messages = step.observation.messages
        if messages and not step.done:
            step = replace(step, observation=Observation((*messages[:-1], await self._pictured(messages[-1]))))
        if self.over and not step.done:
            self.done = True
            return replace(step, done=True, reward=self.current_reward())
        return step

    async def finish(self, answer: str) -> float:
        return self.current_reward()

    def current_reward(self) -> float:
        """The page's verdict; without one, what the suite gives where time is up."""
        return self.reward if self.over else -1.0

    async def _pictured(self, message: Message) -> Message:
        if not self.world.images:
            return message
        return replace(message, images=(Image(base64.b64decode(await self.ask("screenshot"))),))


# -- in the worker ---------------------------------------------------------------------------------------------------


class Suite(Browser):
    """The browser on one of the suite's pages."""

    def __init__(self, folder: str):
        super().__init__(roots={ADDRESS: folder}, width=500, height=320, frozen=True)

    def start(self, page: str, seed: str, mode: str, limit: int) -> dict[str, Any]:
        """Begin the problem of this seed."""
        flight = page in FLIGHTS
        self.view = {"width": 600, "height": 800} if flight else {"width": 500, "height": 320}
        self.open(f"{ADDRESS}{page.replace('.', '/')}/wrapper.html" if flight else f"{ADDRESS}miniwob/{page}.html")
        said = self.evaluate(START, [seed, mode, limit])
        self._settle()
        if not self.evaluate("WOB_TASK_READY"):
            raise RuntimeError(f"miniwob page {page!r} did not become ready")
        return {"said": said, "page": self.text()}

    def act(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        reply = super().act(name, arguments)
        return {**reply, "verdict": self.evaluate(VERDICT)}

    def solve(self, page: str, **data: Any) -> list[tuple[str, dict[str, Any]]]:
        begun = self.start(page, **data)
        return self.follow(PLANS[page](begun["said"], begun["page"]))


# -- the expert ------------------------------------------------------------------------------------------------------
# A plan is given the instruction and the page's text, yields one action after the other, and is sent the text that
# each leads to.

PLANS: dict[str, Callable[[str, str], Plan]] = {}


def plan(*pages: str) -> Callable[[Callable[[str, str], Plan]], Callable[[str, str], Plan]]:
    def keep(made: Callable[[str, str], Plan]) -> Callable[[str, str], Plan]:
        PLANS.update(dict.fromkeys(pages, made))
        return made

    return keep


def marks(page: str, what: str) -> list[int]:
    """Numbers of the elements that the page describes so, a regular expression."""
    return [int(mark) for mark in re.findall(rf"\[(\d+)\] {what}", page)]


def click(page: str, what: str, nth: int = 0) -> tuple[str, dict[str, Any]]:
    return "click", {"mark": marks(page, what)[nth]}


def write(page: str, what: str, text: str, nth: int = 0) -> tuple[str, dict[str, Any]]:
    return "type", {"mark": marks(page, what)[nth], "text": text}


def named(name: str, role: str = r"\w+") -> str:
    return f'{role} "{re.escape(name)}"'


def quoted(said: str) -> list[str]:
    return re.findall(r'"([^"]*)"', said)


def button(name: str = "Submit") -> str:
    return named(name, "button")


@plan("click-test", "click-test-2", "click-test-transfer", "click-button-sequence")
def _buttons(said: str, page: str) -> Plan:
    for name in re.findall(r"button (\w+)", said) or ["Click Me!"]:
        page = yield click(page, button(name))


@plan("click-button", "unicode-test")
def _button(said: str, page: str) -> Plan:
    yield click(page, button(quoted(said)[0]))


@plan("click-link")
def _link(said: str, page: str) -> Plan:
    yield click(page, f'"{re.escape(quoted(said)[0])}"')


@plan("click-dialog", "click-dialog-2")
def _dialog(said: str, page: str) -> Plan:
    name = quoted(said)[0]
    yield click(page, button("Close" if name == "x" else name))


@plan("click-option", "click-checkboxes", "click-checkboxes-large", "click-checkboxes-transfer")
def _boxes(said: str, page: str) -> Plan:
    for name in said.removeprefix("Select ").removesuffix(" and click Submit.").split(", "):
        if name != "nothing":
            page = yield click(page, named(name, "(?:radio|checkbox)"))
    yield click(page, button())


@plan("choose-list", "click-scroll-list")
def _list(said: str, page: str) -> Plan:
    options = [name for name in quoted(page.partition("options")[2]) if name != "Submit"]
    wanted = said.removeprefix("Select ").rpartition(" from the ")[0]
    chosen = [o for o in dict.fromkeys(options) if re.search(rf"(^|, ){re.escape(o)}($|, )", wanted)]
    page = yield "select", {"mark": marks(page, "(?:combobox|listbox)")[0], "options": chosen}
    yield click(page, button())


@plan("click-tab")
def _tab(said: str, page: str) -> Plan:
    yield click(page, named("Tab #" + re.findall(r"\d+", said)[0], "tab"))


@plan("click-tab-2", "click-tab-2-easy", "click-tab-2-medium", "click-tab-2-hard")
@plan("click-collapsible-2", "click-collapsible-2-nodelay")
def _link_behind_tabs(said: str, page: str) -> Plan:
    link = f'"{re.escape(quoted(said)[0])}"'
    for tab in marks(page, 'tab "'):
        if marks(page, link):
            break
        page = yield "click", {"mark": tab}
    yield click(page, link)


@plan("click-collapsible", "click-collapsible-nodelay")
def _section(said: str, page: str) -> Plan:
    page = yield click(page, 'tab "Section')
    yield click(page, button())


@plan("click-color")
def _color(said: str, page: str) -> Plan:
    colours = {
        "red": "ff0000", "blue": "0000ff", "olive": "808000", "lime": "00ff00", "black": "000000", "white": "ffffff",
        "grey": "808080", "purple": "800080", "orange": "ffa500", "yellow": "ffff00", "cyan": "00ffff",
        "pink": "ffc0cb", "magenta": "ff00ff",
    }  # fmt: skip
    yield click(page, r"div\.color #" + colours[said.split()[3]])


@plan("enter-text", "enter-text-dynamic", "enter-text-2", "text-transform")
def _text(said: str, page: str) -> Plan:
    text = quoted(said)[0] if quoted(said) else page.split("\n")[2]  # text-transform shows it below the instruction
    text = text.lower() if "lower case" in said else text.upper() if "upper case" in said else text
    page = yield write(page, "textbox", text)
    yield click(page, button())


@plan("enter-password", "login-user", "login-user-popup")
def _password(said: str, page: str) -> Plan:
    words = quoted(said)
    submit = marks(page, "button")[0]
    for mark, word in zip(marks(page, "textbox"), words if len(words) > 1 else words * 2, strict=True):
        page = yield "click", {"mark": mark}
        if marks(page, button("Cancel")):  # the popup comes at a field and would take what is typed
            page = yield click(page, button("Cancel"))
        page = yield "type", {"mark": mark, "text": word}
    yield "click", {"mark": submit}


@plan("enter-date")
def _date(said: str, page: str) -> Plan:
    month, day, year = re.findall(r"\d+", said)
    page = yield write(page, "Date", f"{year}-{month}-{day}")
    yield click(page, button())


@plan("enter-time")
def _time(said: str, page: str) -> Plan:
    hour, minute = map(int, re.findall(r"\d+", said))
    page = yield write(page, "InputTime", f"{hour % 12 + 12 * ('PM' in said):02d}:{minute:02d}")
    yield click(page, button())


@plan("focus-text", "focus-text-2")
def _focus(said: str, page: str) -> Plan:
    yield click(page, "textbox", int((re.findall(r"\d+", said) or ["1"])[0]) - 1)


@plan("search-engine")
def _search(said: str, page: str) -> Plan:
    place = int(re.findall(r"(\d+)(?:st|nd|rd|th)", said)[0]) - 1
    page = yield write(page, "textbox", quoted(said)[0])
    page = yield click(page, button("Search"))
    if place >= 3:
        page = yield click(page, named(str(place // 3 + 1), "link"))
    results = [
        mark for mark, name in re.findall(r'\[(\d+)\] link "([^"]+)"', page) if not re.fullmatch(r"[\d<>]+", name)
    ]
    yield "click", {"mark": int(results[place % 3])}


@plan("multi-layouts", "multi-orderings")
def _movie(said: str, page: str) -> Plan:
    genre, director, year = re.findall(r"for (.+) movies directed by (.+) from year (\d+)", said)[0]
    words = {"Genre": genre, "Director": director, "Year": year, "Date": year}
    boxes, area = marks(page, "textbox"), page.partition(said)[2]
    labels = re.findall("|".join(words), area)  # above, beside or below its box, always in the same order
    for mark, label in zip(boxes, labels, strict=True):
        page = yield "type", {"mark": mark, "text": words[label]}
    yield "click", {"mark": marks(page, '(?:button )?"(?:Submit|Search|Go!)"')[0]}


@plan("simple-arithmetic")
def _sum(said: str, page: str) -> Plan:
    a, sign, b = re.findall(r"^(\d+) ([-+x]) (\d+) =", page, re.MULTILINE)[0]
    page = yield write(page, "textbox", str({"+": int(a) + int(b), "-": int(a) - int(b), "x": int(a) * int(b)}[sign]))
    yield click(page, button())


@plan("simple-algebra")
def _algebra(said: str, page: str) -> Plan:
    left, sign, right, total = re.findall(r"^(x|\d+) ([-+]) (x|\d+) = (\d+)", page, re.MULTILINE)[0]
    n, total = int(right if left == "x" else left), int(total)
    page = yield write(page, "textbox", str(total - n if sign == "+" else total + n if left == "x" else n - total))
    yield click(page, button())


@plan("odd-or-even")
def _parity(said: str, page: str) -> Plan:
    for odd, number, even in re.findall(r'\[(\d+)\] button "Odd"\s+(-?\d+)\s+\[(\d+)\] button "Even"', page):
        yield "click", {"mark": int(odd if int(number) % 2 else even)}
    yield click(page, button())


@plan("ascending-numbers")
def _ascending(said: str, page: str) -> Plan:
    found = re.findall(r'text\.text .*?(\d+)x(\d+) at (\d+),(\d+) "(\d+)"', page)
    for width, height, x, y, _ in sorted((tuple(map(int, one)) for one in found), key=lambda one: one[4]):
        yield "click_at", {"x": x + width // 2, "y": y + height // 2}  # after the first, the numbers are hidden


@plan("find-greatest")
def _greatest(said: str, page: str) -> Plan:
    found = re.findall(r'\[(\d+)\] "(\d+)"', page)
    page = yield "click", {"mark": int(max(found, key=lambda pair: int(pair[1]))[0])}
    yield click(page, button())


@plan("grid-coordinate")
def _grid(said: str, page: str) -> Plan:
    x, y = map(int, re.findall(r"-?\d+", said))
    yield click(page, "circle", (x + 2) * 5 + (2 - y))  # column by column, from the top


@plan("guess-number")
def _guess(said: str, page: str) -> Plan:
    low, high = 0, 9
    while True:
        guess = (low + high) // 2
        page = yield write(page, "spinbutton", str(guess))
        page = yield click(page, button())
        if "lower than" in page:
            high = guess - 1
        elif "higher than" in page:
            low = guess + 1
        else:
            return


@plan("phone-book")
def _contact(said: str, page: str) -> Plan:
    name, field = re.findall(r"Find (.+) in the contact book and click on their (\w+)", said)[0]
    while f'heading "{name}"' not in page:
        page = yield click(page, named(">", "link"))
    yield "click", {"mark": int(re.findall(rf"{field.capitalize()}: \[(\d+)\]", page)[0])}


@plan("find-word")
def _word(said: str, page: str) -> Plan:
    words = page.partition(said)[2].split()
    page = yield write(page, "textbox", re.sub(r"[^a-zA-Z]", "", words[int(re.findall(r"\d+", said)[0]) - 1]))
    yield click(page, button())


@plan("copy-paste")
def _copy(said: str, page: str) -> Plan:
    page = yield click(page, 'textbox value "')
    for key in ("Control+a", "Control+c"):
        page = yield "press", {"key": key}
    page = yield click(page, "textbox(?! value)")
    page = yield "press", {"key": "Control+v"}
    yield click(page, button())


@plan("read-table", "read-table-2")
def _table(said: str, page: str) -> Plan:
    rows = dict(re.findall(r"row: (.+?) \| (.+)", page))
    one = re.findall(r"value of (.+) into", said)
    asked = one or re.findall(r"^(.+):$", page, re.MULTILINE)
    for mark, label in zip(marks(page, "textbox"), asked, strict=True):
        page = yield "type", {"mark": mark, "text": rows[label]}
    yield click(page, button())


@plan("email-inbox-delete", "email-inbox-important")
def _mail(said: str, page: str) -> Plan:
    sender = re.findall(r"by (\w+)", said)[0]
    row = page[page.index(f'"{sender}"') :]
    yield click(row, r"image span\.trash" if "trash" in said else r"image span\.star")


@plan("navigate-tree")
def _tree(said: str, page: str) -> Plan:
    wanted, opened = f'"{re.escape(quoted(said)[0])}"', set[int]()
    while not marks(page, wanted):
        folder = next(mark for mark in marks(page, r"div\.hitarea\.expandable") if mark not in opened)
        opened.add(folder)
        page = yield "click", {"mark": folder}
    yield click(page, wanted)


@plan("form-sequence-2")
def _sequence(said: str, page: str) -> Plan:
    radio, box = (int(n) - 1 for n in re.findall(r"(\d+)(?:st|nd|rd|th)", said))
    page = yield click(page, "radio", radio)
    page = yield write(page, "textbox", quoted(said)[0], box)
    yield click(page, button())


@plan("social-media")
def _post(said: str, page: str) -> Plan:
    user, what = re.findall(r'user (@\w+), click on the "(.+)" button', said)[0]
    shown = {"Reply": "reply", "Retweet": "retweet", "Like": "like"}
    post = page[page.index(f"{user} ·") :] if f"{user} ·" in page else page[page.rindex(user) :]
    if what in shown:
        yield click(post, rf"image span\.{shown[what]}")
    else:
        page = yield click(post, r"image span\.more")
        yield click(page, f'listitem "{re.escape(what)}[" ]')


@plan("use-spinner")
def _spinner(said: str, page: str) -> Plan:
    steps = int(re.findall(r"-?\d+", said)[0])
    page = yield click(page, "spinbutton")
    for _ in range(abs(steps)):
        page = yield "press", {"key": "ArrowUp" if steps > 0 else "ArrowDown"}
    yield click(page, button())


@plan("use-autocomplete-nodelay")
def _complete(said: str, page: str) -> Plan:
    start, end = [*quoted(said), ""][:2]
    page = yield write(page, "textbox", start)
    options = re.findall(rf'\[(\d+)\] \w* ?"({re.escape(start)}[^"]*)"', page)
    page = yield "click", {"mark": int(next(mark for mark, name in options if name.endswith(end)))}
    yield click(page, button())
