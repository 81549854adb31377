"""A shop on the web, of several pages: search, goods, a cart, a checkout, and orders to cancel, move or return.

Each task has a shop of its own, made from the task's number: invented goods, and orders that were placed before. The
pages are plain HTML with forms, served on loopback by the worker that holds the browser; there is no log-in and no
cookie, for a worker serves one episode at a time. The agent reads and acts through `etude.tools.browser`.

The reward is 1 where the shop's state at the end is exactly what the task asked for, cart and orders with all their
fields, and 0 otherwise: to do nothing earns nothing, and so does the right order with a wrong one beside it.
"""

import copy
import html
import random
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from etude.core.errors import PartError, suggest
from etude.core.parts import part
from etude.environments.base import LazyTasks, Tasks
from etude.environments.functions import ToolError
from etude.environments.hosted import HostedSession
from etude.protocols import Observation, Task
from etude.tools.browser import ACTIONS, Browser, Plan, crew
from etude.trajectory import Message, ToolCall

INSTALL = "pip install 'etude[browser]' && apt-get install chromium"
ADDRESS = "http://shop.test/"
TOOLS = ("goto", "back", "look", "click", "type", "press", "select")
INSTRUCTION = (
    "Do in the web shop what is asked and nothing else, with the tools. The numbers in brackets name the page's "
    "elements. When all is done, say so without calling a tool."
)
FAMILIES = ("put", "cheapest", "cancel", "move", "return", "order", "mend")  # from easy to hard
GOODS = {
    "kitchen": ["mug", "bowl", "ladle", "tray", "kettle"],
    "garden": ["rake", "hose", "trowel", "lantern", "planter"],
    "office": ["stapler", "lamp", "folder", "ruler", "punch"],
    "music": ["drum", "flute", "strap", "tuner", "stand"],  # never seen in training
}
COLOURS = ["red", "blue", "green", "black"]
STREETS = ["Mill Lane", "Oak Road", "Quay Street", "Hill Rise"]
CITIES = ["Riga", "Bari", "Cork", "Oslo"]
PEOPLE = ["Ana Berg", "Ben Cole", "Carla Diaz", "Finn Eder", "Gina Ford"]
DELIVERIES = ["standard", "express", "pick-up"]
REASONS = ["broken", "wrong size", "not as described"]
PER_PAGE = 6


@part
@dataclass(eq=False)
class site(Tasks):
    """A web shop whose state is checked.

    Raises MissingExtra where Playwright or Chromium is absent.
    """

    size: int = 2000
    """Tasks in the split `train`; `dev`, `test` and `domains` (a shop of goods never seen) have a tenth."""
    max_steps: int = 30
    """Messages after which the episode ends as it stands."""
    name = "site"
    reward_range = (0.0, 1.0)
    at_once = 8

    def __post_init__(self) -> None:
        self.crew = crew(f"{__name__}:Site", size=self.at_once)
        self.experts = crew(f"{__name__}:Site", size=1)

    def tasks(self, split: str) -> LazyTasks:
        """Tasks of `train`, `dev`, `test` or `domains`. Raises PartError for another split."""
        sizes = {"train": self.size, "dev": self.size // 10, "test": self.size // 10, "domains": self.size // 10}
        if split not in sizes:
            raise PartError(f"environments/site has no split {split!r}; {suggest(split, sizes)}")
        return LazyTasks(lambda i: self._make(split, i), sizes[split])

    def _make(self, split: str, i: int) -> Task:
        identity, family = f"site/{split}/{i}", FAMILIES[i % len(FAMILIES)]
        rng = random.Random(identity)
        kind = "music" if split == "domains" else rng.choice(list(GOODS)[:-1])
        data = draw(rng, kind, identity, family)
        difficulty = float(FAMILIES.index(family))
        return Task(identity, self, split, data, kind, difficulty, (family,), "site.py")

    def open(self) -> "SiteSession":
        return SiteSession(self)

    def solve(self, task: Task, seed: int) -> list[Message]:
        """The way of a customer who reads the pages as an agent does."""
        done = self.experts.ask("solve", data=task.data)
        calls = [ToolCall(name, arguments, f"call_{n}") for n, (name, arguments) in enumerate(done, 1)]
        return [*(Message("assistant", "", (call,)) for call in calls), Message("assistant", "Done.")]


class SiteSession(HostedSession):
    """One episode: a shop and a browser at its door."""

    def __init__(self, world: site):
        super().__init__(world.crew, max_steps=world.max_steps, max_chars=8000, call_seconds=60)
        self.tools = [ACTIONS[name] for name in TOOLS]

    async def begin(self, task: Task, seed: int) -> Observation:
        self.goal = goal(task.data)
        page = await self.ask("start", kind=task.data["kind"], seed=task.data["seed"])
        return Observation((Message("system", INSTRUCTION), Message("user", f"{task.data['prompt']}\n\n{page}")))

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        reply = await self.ask("act", name=name, arguments=arguments)
        if "mistake" in reply:
            raise ToolError(reply["mistake"])
        return reply["page"]

    async def finish(self, answer: str) -> float:
        return await self.current_reward()

    async def current_reward(self) -> float:
        """Whether the shop is now as it should be."""
        return float(await self.ask("state") == self.goal)


# -- the shop --------------------------------------------------------------------------------------------------------


class Refused(Exception):
    """What a customer did wrong, in words for the page."""


class Shop:
    """The goods and the state, all that the pages show and change."""

    def __init__(self, kind: str, seed: str):
        rng = random.Random(f"{kind} {seed}")
        pairs = [(colour, good) for good in GOODS[kind] for colour in COLOURS]
        prices = rng.sample(range(300, 9900, 5), len(pairs))  # all different, so that there is one cheapest
        rng.shuffle(pairs)
        self.kind = kind
        self.items = {
            n: {"name": f"{colour} {good}", "good": good, "price": price, "stock": rng.randint(8, 30)}
            for n, ((colour, good), price) in enumerate(zip(pairs, prices, strict=True), 101)
        }
        self.cart = {n: rng.randint(1, 3) for n in sorted(rng.sample(list(self.items), 3))}
        bought = rng.sample([n for n in self.items if n not in self.cart], 6)
        self.orders = {
            5001 + i: {
                "items": {str(n): rng.randint(1, 3) for n in sorted(bought[2 * i : 2 * i + 2])},
                **somebody(rng), "delivery": rng.choice(DELIVERIES), "gift": False, "status": "placed", "returns": [],
            }
            for i in range(3)
        }  # fmt: skip

    def state(self) -> dict[str, Any]:
        """What is compared with the goal, as JSON has it."""
        cart = {str(n): count for n, count in sorted(self.cart.items())}
        return {"cart": cart, "orders": {str(n): copy.deepcopy(order) for n, order in self.orders.items()}}

    def put(self, item: str, count: str) -> str:
        return self.change(item, str(self.cart.get(int(item), 0) + number_of(count)))

    def change(self, item: str, count: str) -> str:
        held, wanted = self.items[int(item)], number_of(count)
        if wanted > held["stock"]:
            raise Refused(f"Only {held['stock']} of {held['name']} are in stock.")
        self.cart[int(item)] = wanted
        return "/cart"

    def remove(self, item: str) -> str:
        self.cart.pop(int(item), None)
        return "/cart"

    def order(self, name: str = "", street: str = "", city: str = "", delivery: str = "", gift: str = "") -> str:
        given = {"name": name.strip(), "street": street.strip(), "city": city.strip(), "delivery": delivery}
        missing = [field for field, text in given.items() if not text]
        if missing or not self.cart:
            raise Refused(f"Please give: {', '.join(missing)}." if missing else "The cart is empty.")
        number = max(self.orders) + 1
        self.orders[number] = {
            "items": {str(n): count for n, count in sorted(self.cart.items())},
            **given,
            "gift": bool(gift),
            "status": "placed",
            "returns": [],
        }
        self.cart = {}
        return f"/orders/{number}"

    def cancel(self, number: str) -> str:
        self.orders[int(number)]["status"] = "cancelled"
        return f"/orders/{number}"

    def move(self, number: str, street: str = "", city: str = "") -> str:
        if not street.strip() or not city.strip():
            raise Refused("Please give: street, city.")
        self.orders[int(number)] |= {"street": street.strip(), "city": city.strip()}
        return f"/orders/{number}"

    def send_back(self, number: str, item: str, reason: str = "") -> str:
        if not reason:
            raise Refused("Please choose a reason.")
        self.orders[int(number)]["returns"].append({"item": item, "reason": reason})
        return f"/orders/{number}"


def number_of(text: str) -> int:
    if not re.fullmatch(r"\s*[1-9]\d?\s*", text):
        raise Refused(f"{text!r} is no number of items; give one from 1 to 99.")
    return int(text)


def somebody(rng: random.Random) -> dict[str, str]:
    street = f"{rng.randint(1, 99)} {rng.choice(STREETS)}"
    return {"name": rng.choice(PEOPLE), "street": street, "city": rng.choice(CITIES)}


def draw(rng: random.Random, kind: str, seed: str, family: str) -> dict[str, Any]:
    """A shop and what is wanted of it: in words, as the figures of a plan, and as steps that change the state."""
    shop = Shop(kind, seed)
    new = rng.choice([n for n in shop.items if n not in shop.cart])
    number = rng.choice(list(shop.orders))
    held = rng.choice(list(shop.orders[number]["items"]))
    person, count = somebody(rng), rng.randint(2, 4)
    delivery, gift = rng.choice(DELIVERIES), rng.random() < 0.5
    thing = shop.items[new]["name"]
    where = f"{person['street']}, {person['city']}"
    send = f"Order it all for {person['name']}, {where}, by {delivery} delivery{', as a gift' if gift else ''}."
    checkout = ["order", {**person, "delivery": delivery, "gift": "yes" if gift else ""}]
    want: dict[str, Any] = {"thing": thing, "count": count, **person, "delivery": delivery, "gift": gift}
    if family == "cheapest":
        goods = [min((n for n in shop.items if shop.items[n]["good"] == good), key=lambda n: shop.items[n]["price"])
                 for good in GOODS[kind]]  # fmt: skip
        new = rng.choice([n for n in goods if n not in shop.cart])
        want |= {"good": shop.items[new]["good"], "thing": shop.items[new]["name"]}
        prompt = f"Put {count} of the cheapest {want['good']} into the cart."
        steps = [["put", {"item": str(new), "count": str(count)}]]
    elif family == "put":
        prompt = f"Put {count} of the {thing} into the cart."
        steps = [["put", {"item": str(new), "count": str(count)}]]
    elif family == "order":
        prompt = f"Add {count} of the {thing} to what is in the cart. {send}"
        steps = [["put", {"item": str(new), "count": str(count)}], checkout]
    elif family == "mend":
        drop, keep = rng.sample(list(shop.cart), 2)
        want |= {"drop": shop.items[drop]["name"], "keep": shop.items[keep]["name"], "count": shop.cart[keep] + 1}
        prompt = f"In the cart, remove the {want['drop']} and make it {want['count']} of the {want['keep']}. {send}"
        steps = [
            ["remove", {"item": str(drop)}],
            ["change", {"item": str(keep), "count": str(want["count"])}],
            checkout,
        ]
    else:
        want["thing"] = shop.items[int(held)]["name"]
        place = {"number": str(number)}
        if family == "cancel":
            prompt, steps = f"Cancel the order with the {want['thing']}.", [["cancel", place]]
        elif family == "move":
            prompt = f"Let the order with the {want['thing']} be sent to {where}."
            steps = [["move", {**place, "street": person["street"], "city": person["city"]}]]
        else:
            want["reason"] = rng.choice(REASONS)
            prompt = f"Return the {want['thing']} that was ordered: it is {want['reason']}."
            steps = [["send_back", {**place, "item": held, "reason": want["reason"]}]]
    return {"kind": kind, "seed": seed, "family": family, "prompt": prompt, "want": want, "steps": steps}


def goal(data: dict[str, Any]) -> dict[str, Any]:
    """The state that a task asks for."""
    shop = Shop(data["kind"], data["seed"])
    for step, arguments in data["steps"]:
        getattr(shop, step)(**arguments)
    return shop.state()


# -- its pages -------------------------------------------------------------------------------------------------------


def money(cents: int) -> str:
    return f"{cents / 100:.2f}"


def form(action: str, inside: str, button: str) -> str:
    return f'<form method="post" action="{action}">{inside} <button>{button}</button></form>'


def field(name: str, label: str, value: str = "") -> str:
    return f'<p><label>{label} <input name="{name}" value="{html.escape(value, quote=True)}"></label></p>'


def options(name: str, label: str, values: dict[str, str]) -> str:
    inside = "".join(f'<option value="{value}">{text}</option>' for value, text in values.items())
    return f'<label>{label} <select name="{name}">{inside}</select></label>'


def table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows]
    return f"<table><tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr>{''.join(lines)}</table>"


class Pages:
    """What the shop shows. Each method is a page, by the first part of its path."""

    def __init__(self, shop: Shop):
        self.shop = shop

    def show(self, path: str, query: dict[str, str]) -> str:
        """The page's HTML. Raises LookupError where there is none."""
        first, *rest = path.strip("/").split("/")
        pages: dict[str, Callable[..., str]] = {
            "": self.search, "search": self.search, "item": self.item, "cart": self.cart, "checkout": self.checkout,
            "orders": self.order if rest else self.orders,
        }  # fmt: skip
        return self.frame(pages[first](*rest, **query))

    def frame(self, inside: str, problem: str = "") -> str:
        alert = f'<p role="alert">{html.escape(problem)}</p>' if problem else ""
        links = '<a href="/">Shop</a> <a href="/cart">Cart</a> <a href="/orders">Orders</a>'
        return f"<!doctype html><title>The {self.shop.kind} shop</title><nav>{links}</nav>{alert}{inside}"

    def search(self, q: str = "", sort: str = "name", page: str = "1") -> str:
        words = q.lower().split()
        found = [(n, item) for n, item in self.shop.items.items() if all(word in item["name"] for word in words)]
        found.sort(key=lambda pair: pair[1]["price" if sort == "price" else "name"])
        at = int(page)
        rows = [
            [f'<a href="/item/{n}">{item["name"]}</a>', money(item["price"])]
            for n, item in found[PER_PAGE * (at - 1) : PER_PAGE * at]
        ]
        more = f'<a href="/search?q={html.escape(q, quote=True)}&sort={sort}&page={at + 1}">More</a>'
        ask = f'<input name="q" aria-label="Search" value="{html.escape(q, quote=True)}">'
        ask += options("sort", "Sort by", {"name": "name", "price": "price"})
        listed = table(["Item", "Price"], rows) if rows else "<p>Nothing found.</p>"
        ask = f'<form action="/search">{ask} <button>Search</button></form>'
        return f"<h1>Goods</h1>{ask}{listed}{more if len(found) > PER_PAGE * at else ''}"

    def item(self, n: str) -> str:
        item = self.shop.items[int(n)]
        inside = f'<input type="hidden" name="item" value="{n}">{field("count", "How many", "1")}'
        facts = f"<p>Price {money(item['price'])}, {item['stock']} in stock.</p>"
        return f"<h1>{item['name']}</h1>{facts}{form('/do/put', inside, 'Put into cart')}"

    def cart(self) -> str:
        rows = []
        for n, count in self.shop.cart.items():
            item, hidden = self.shop.items[n], f'<input type="hidden" name="item" value="{n}">'
            box = f'{hidden}<input name="count" size="2" aria-label="Count of {item["name"]}" value="{count}">'
            rows.append([item["name"], money(item["price"]), form("/do/change", box, "Change"),
                         form("/do/remove", hidden, "Remove")])  # fmt: skip
        total = money(sum(self.shop.items[n]["price"] * count for n, count in self.shop.cart.items()))
        if not rows:
            return "<h1>Cart</h1><p>It is empty.</p>"
        listed = table(["Item", "Price", "Count", ""], rows)
        return f'<h1>Cart</h1>{listed}<p>Total {total}</p><a href="/checkout">Check out</a>'

    def checkout(self) -> str:
        radios = "".join(f'<label><input type="radio" name="delivery" value="{d}"> {d}</label> ' for d in DELIVERIES)
        inside = field("name", "Name") + field("street", "Street") + field("city", "City")
        inside += f"<p>Delivery: {radios}</p>"
        inside += '<p><label><input type="checkbox" name="gift" value="yes"> Wrap as a gift</label></p>'
        return f"<h1>Check out</h1>{form('/do/order', inside, 'Place order')}"

    def orders(self) -> str:
        rows = [
            [f'<a href="/orders/{n}">Order {n}</a>', order["name"], order["status"]]
            for n, order in self.shop.orders.items()
        ]
        return f"<h1>Orders</h1>{table(['Order', 'For', 'Status'], rows)}"

    def order(self, n: str) -> str:
        order = self.shop.orders[int(n)]
        names = {item: self.shop.items[int(item)]["name"] for item in order["items"]}
        hidden = f'<input type="hidden" name="number" value="{n}">'
        sent = f"{order['name']}, {order['street']}, {order['city']}, by {order['delivery']} delivery"
        facts = f"<p>For {html.escape(sent)}{', as a gift' if order['gift'] else ''}. It is {order['status']}.</p>"
        listed = table(["Item", "Count"], [[names[item], str(count)] for item, count in order["items"].items()])
        back = "".join(f"<p>Return of {names[r['item']]}: {r['reason']}.</p>" for r in order["returns"])
        address = hidden + field("street", "Street", order["street"]) + field("city", "City", order["city"])
        reasons = {"": "choose", **{reason: reason for reason in REASONS}}
        give = hidden + options("item", "Item", names) + options("reason", "Reason", reasons)
        forms = form("/do/cancel", hidden, "Cancel order") + "<h2>Send elsewhere</h2>"
        forms += form("/do/move", address, "Change address") + "<h2>Return an item</h2>"
        return f"<h1>Order {n}</h1>{facts}{listed}{back}{forms}{form('/do/send_back', give, 'Return item')}"


class Handler(BaseHTTPRequestHandler):
    """Serves the shop that its server holds now."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        try:
            self.answer(200, self.pages.show(parts.path, read(parts.query)))
        except (LookupError, TypeError, ValueError):
            self.answer(404, self.pages.frame(f"<p>There is no page {html.escape(parts.path)}.</p>"))

    def do_POST(self) -> None:
        given = read(self.rfile.read(int(self.headers["Content-Length"])).decode())
        step = self.path.removeprefix("/do/")
        try:
            if step not in ("put", "change", "remove", "order", "cancel", "move", "send_back"):
                raise LookupError(step)
            place = getattr(self.pages.shop, step)(**given)
        except Refused as refused:
            self.answer(200, self.pages.frame('<p><a href="/cart">Back to the cart</a></p>', str(refused)))
        except (LookupError, TypeError, ValueError):
            self.answer(400, self.pages.frame("<p>The shop cannot do that.</p>"))
        else:
            self.send_response(303)
            self.send_header("Location", place)
            self.send_header("Content-Length", "0")
            self.end_headers()

    @property
    def pages(self) -> Pages:
        return Pages(self.server.shop)  # type: ignore[attr-defined]

    def answer(self, status: int, page: str) -> None:
        body = page.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged."""


def read(query: str) -> dict[str, str]:
    return {name: values[-1] for name, values in parse_qs(query, keep_blank_values=True).items()}


class Site(Browser):
    """In the worker: the shop's server, and the browser that may reach nothing else."""

    def __init__(self) -> None:
        self.server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        super().__init__(hosts={"shop.test": f"127.0.0.1:{self.server.server_port}"})

    def start(self, kind: str, seed: str) -> str:
        self.server.shop = Shop(kind, seed)
        return self.open(ADDRESS)["page"]

    def state(self) -> dict[str, Any]:
        return self.server.shop.state()

    def solve(self, data: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        page = self.start(data["kind"], data["seed"])
        return self.follow(PLANS[data["family"]](data["want"], page))


# -- the expert ------------------------------------------------------------------------------------------------------


def mark(page: str, what: str) -> int:
    found = re.search(rf"\[(\d+)\] {what}", page)
    if found is None:
        raise ValueError(f"no {what!r} in: {page}")
    return int(found[1])


def _put(want: dict[str, Any], page: str) -> Plan:
    page = yield "type", {"mark": mark(page, 'textbox "Search"'), "text": want["thing"], "enter": True}
    page = yield "click", {"mark": mark(page, f'link "{want["thing"]}"')}
    page = yield "type", {"mark": mark(page, 'textbox "How many"'), "text": str(want["count"])}
    return (yield "click", {"mark": mark(page, 'button "Put into cart"')})


def _cheapest(want: dict[str, Any], page: str) -> Plan:
    page = yield "type", {"mark": mark(page, 'textbox "Search"'), "text": want["good"]}
    page = yield "select", {"mark": mark(page, 'combobox "Sort by"'), "options": ["price"]}
    page = yield "click", {"mark": mark(page, 'button "Search"')}
    page = yield "click", {"mark": mark(page, f'link ".* {want["good"]}"')}
    page = yield "type", {"mark": mark(page, 'textbox "How many"'), "text": str(want["count"])}
    yield "click", {"mark": mark(page, 'button "Put into cart"')}


def _check_out(want: dict[str, Any], page: str) -> Plan:
    page = yield "click", {"mark": mark(page, 'link "Check out"')}
    for name in ("name", "street", "city"):
        page = yield "type", {"mark": mark(page, f'textbox "{name.capitalize()}"'), "text": want[name]}
    page = yield "click", {"mark": mark(page, f'radio "{want["delivery"]}"')}
    if want["gift"]:
        page = yield "click", {"mark": mark(page, "checkbox")}
    yield "click", {"mark": mark(page, 'button "Place order"')}


def _order(want: dict[str, Any], page: str) -> Plan:
    page = yield from _put(want, page)
    yield from _check_out(want, page)


def _mend(want: dict[str, Any], page: str) -> Plan:
    page = yield "click", {"mark": mark(page, 'link "Cart"')}
    row = page[page.index(f"row: {want['drop']}") :]
    page = yield "click", {"mark": mark(row, 'button "Remove"')}
    row = page[page.index(f"row: {want['keep']}") :]
    page = yield "type", {"mark": mark(row, "textbox"), "text": str(want["count"])}
    page = yield "click", {"mark": mark(row, 'button "Change"')}
    yield from _check_out(want, page)


def _find_order(want: dict[str, Any], page: str) -> Plan:
    orders = yield "click", {"mark": mark(page, 'link "Orders"')}
    for number in re.findall(r'link "Order (\d+)"', orders):
        page = yield "click", {"mark": mark(orders, f'link "Order {number}"')}
        if f"row: {want['thing']} |" in page:
            return page
        orders = yield "back", {}
    raise ValueError(f"no order has {want['thing']}")


def _cancel(want: dict[str, Any], page: str) -> Plan:
    page = yield from _find_order(want, page)
    yield "click", {"mark": mark(page, 'button "Cancel order"')}


def _move(want: dict[str, Any], page: str) -> Plan:
    page = yield from _find_order(want, page)
    for name in ("street", "city"):
        page = yield "type", {"mark": mark(page, f'textbox "{name.capitalize()}"'), "text": want[name]}
    yield "click", {"mark": mark(page, 'button "Change address"')}


def _return(want: dict[str, Any], page: str) -> Plan:
    page = yield from _find_order(want, page)
    page = yield "select", {"mark": mark(page, 'combobox "Item"'), "options": [want["thing"]]}
    page = yield "select", {"mark": mark(page, 'combobox "Reason"'), "options": [want["reason"]]}
    yield "click", {"mark": mark(page, 'button "Return item"')}


PLANS: dict[str, Callable[[dict[str, Any], str], Plan]] = {
    "put": _put, "cheapest": _cheapest, "order": _order, "mend": _mend, "cancel": _cancel, "move": _move,
    "return": _return,
}  # fmt: skip
