"""Tasks for a shell: find, count, move, rename, mend, pack and unpack files, in a sandbox of their own.

Every task is made from its split and number: files of an invented shop, library and so on, and one thing to do with
them. There are twenty kinds of tasks (`KINDS`), in three sizes. Some ask a question, and the words after the last
`Answer:` are compared; others want the files changed, and the files are compared: those that were to change, and all
others, which must be as they were. A mended program is run on input that nobody has seen. The reward is 1 or 0, and
doing nothing earns 0.

The agent has one tool, `bash`, in an `etude.tools.sandbox`: no network, nothing of this machine, limits on all that it
uses. The folder and what was exported stay from call to call. A fork copies the files. This world needs Linux, and that
the sandbox can be had (docs/sandbox.md).
"""

import gzip
import io
import json
import posixpath
import random
import tarfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from etude.core.errors import PartError, suggest
from etude.core.parts import part
from etude.environments.base import LazyTasks, Snapshot, Tasks, ToolSession
from etude.environments.functions import ToolError
from etude.protocols import Observation, Task
from etude.tools.sandbox import File, Sandbox
from etude.trajectory import Message, ToolCall

BASH = {
    "name": "bash",
    "description": "run a command in bash; the folder and exported variables stay as they are left",
    "parameters": {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]},
}
INSTRUCTION = (
    "You have a shell. Your files are in /work. Do what is asked and change nothing else there; /tmp is for your own "
    "use. When you are done, say so without a call. If you were asked a question, end with  Answer: and the answer."
)
BEGIN = 1_700_000_000 * 10**9  # when files were changed, in nanoseconds; nothing depends on today
LIMITS: dict[str, Any] = {
    "seconds": 10,
    "memory_mb": 256,
    "disk_mb": 16,
    "files": 2000,
    "processes": 32,
    "output_kb": 4,
}
# what the files are about; the last is never seen in training
THEMES = {
    "shop": {
        "folders": ["orders", "invoices", "stock", "returns"],
        "items": ["lamp", "chair", "mug", "clock", "rug", "vase"],
        "events": ["paid", "refused", "shipped", "delayed"],
    },
    "library": {
        "folders": ["loans", "shelves", "members", "fines"],
        "items": ["atlas", "novel", "diary", "manual", "comic", "score"],
        "events": ["borrowed", "returned", "reserved", "lost"],
    },
    "weather": {
        "folders": ["stations", "readings", "alerts", "archive"],
        "items": ["rain", "wind", "snow", "frost", "cloud", "storm"],
        "events": ["measured", "missing", "rounded", "checked"],
    },
    "kitchen": {
        "folders": ["recipes", "menus", "pantry", "bills"],
        "items": ["flour", "sugar", "butter", "onion", "rice", "bean"],
        "events": ["bought", "cooked", "spoiled", "served"],
    },
    "harbour": {
        "folders": ["ships", "cargo", "berths", "permits"],
        "items": ["timber", "grain", "cotton", "steel", "fish", "salt"],
        "events": ["docked", "loaded", "sailed", "towed"],
    },
}
PEOPLE = ["ana", "ben", "carla", "dan", "eva", "finn", "gina", "hugo", "ida", "jan"]


@part
@dataclass(eq=False)
class shell(Tasks):
    """Files to be searched and changed with bash, judged by an answer or by the files.

    >>> shell().tasks("test")[0].id
    'shell/test/0'
    """

    kinds: list[str] | str = ""
    """The kinds of tasks; all where none is named."""
    size: int = 4000
    """Tasks in the split `train`; `dev`, `test` and `domains` (files about something never seen) have a tenth."""
    max_steps: int = 12
    """Messages after which the episode is judged as it stands."""
    name = "shell"
    reward_range = (0.0, 1.0)
    at_once = 16

    def __post_init__(self) -> None:
        self.kinds = [self.kinds] if isinstance(self.kinds, str) and self.kinds else list(self.kinds) or list(KINDS)
        for kind in self.kinds:
            if kind not in KINDS:
                raise PartError(f"environments/shell: no kind {kind!r}; {suggest(kind, KINDS)}")

    def tasks(self, split: str) -> LazyTasks:
        """Tasks of `train`, `dev`, `test` or `domains`, of the kinds in turn. Raises PartError for another split."""
        sizes = {"train": self.size, **dict.fromkeys(("dev", "test", "domains"), self.size // 10)}
        if split not in sizes:
            raise PartError(f"environments/shell has no split {split!r}; {suggest(split, sizes)}")
        wanted = [n for n, kind in enumerate(KINDS) if kind in self.kinds]  # the same number is always the same task
        rounds, rest = divmod(sizes[split], len(wanted))
        numbers = [len(KINDS) * r + n for r in range(rounds + 1) for n in wanted][: rounds * len(wanted) + rest]
        return LazyTasks(lambda i: self._make(split, numbers[i]), len(numbers))

    def _make(self, split: str, i: int) -> Task:
        rng = random.Random(f"shell/{split}/{i}")
        kind, level = list(KINDS)[i % len(KINDS)], 1 + i // len(KINDS) % 3
        theme = rng.choice(list(THEMES)[-1:] if split == "domains" else list(THEMES)[:-1])
        draft = KINDS[kind](Draw(rng, THEMES[theme], level))
        return Task(f"shell/{split}/{i}", self, split, {"draft": draft}, theme, float(level), (kind,), "shell.py")

    def open(self) -> "ShellSession":
        return ShellSession(self)

    def solve(self, task: Task, seed: int) -> list[Message]:
        """A command, or a few, and the answer; the same for every seed."""
        draft: Draft = task.data["draft"]
        calls = [
            Message("assistant", "", (ToolCall("bash", {"command": command}, f"c{n}"),))
            for n, command in enumerate(draft.gold)
        ]
        return [*calls, Message("assistant", f"Answer: {draft.answer}" if draft.answer else "Done.")]

    def secrets(self, task: Task) -> list[str]:
        """The solution, and what a mended program is tried with."""
        draft: Draft = task.data["draft"]
        return [*draft.gold, *(text for pair in draft.trials for text in pair)]


class ShellSession(ToolSession):
    """One episode: a sandbox with the task's files."""

    def __init__(self, world: shell):
        super().__init__(max_steps=world.max_steps, max_chars=6000, call_seconds=60)
        self.box = Sandbox(**LIMITS)
        self.draft = Draft("")

    async def begin(self, task: Task, seed: int) -> Observation:
        self.tools = [BASH]
        self.draft = task.data["draft"]
        self.box.close()  # the last episode's
        await self.box.put(self.draft.files)
        return Observation((Message("system", INSTRUCTION), Message("user", self.draft.prompt)))

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        ran = await self.box.shell(arguments["command"])
        if ran.status:
            raise ToolError(str(ran))
        return str(ran)

    async def finish(self, answer: str) -> float:
        if self.draft.answer:
            said = answer.rpartition("Answer:")[2].lstrip(" \n`'\"").rstrip(" \n`'\".")
            said = said.removeprefix("/work/").removeprefix("./")
            return float("Answer:" in answer and said == self.draft.answer)
        return float(await self._done())

    async def current_reward(self) -> float:
        return await self.finish("")

    async def _done(self) -> bool:
        """Whether the files are as they were to become, and all others as they were."""
        draft, found = self.draft, await self.box.tree()
        wanted: dict[str, File | None] = {**draft.files, **draft.want}
        wanted.pop(draft.program, None)  # which is judged by what it does
        if not all(same(path, found.get(path), file) for path, file in wanted.items()):
            return False
        for path, members in draft.packed.items():
            if unpacked(found.get(path)) != members:
                return False
        for given, expected in draft.trials:
            ran = await self.box.execute([self.box.settings["python"], draft.program], given)
            if ran.status or ran.output.split() != expected.split():
                return False
        return True

    async def snapshot(self) -> Snapshot:
        return replace(await super().snapshot(), state=await self.box.save())

    async def restore(self, snapshot: Snapshot) -> None:
        self.task, self.seed, self.done = snapshot.task, snapshot.seed, snapshot.done
        self.actions, self.tools, self.draft = list(snapshot.actions), [BASH], snapshot.task.data["draft"]
        await self.box.load(snapshot.state)

    async def close(self) -> None:
        self.box.close()


def same(path: str, found: File | None, wanted: File | None) -> bool:
    """Whether a file is as it was to be; of its rights, only whether it may be run, of its time nothing."""
    if found is None or wanted is None or found.kind != wanted.kind:
        return found is wanted
    if wanted.kind == "link":
        here = posixpath.join("/work", posixpath.dirname(path))
        ends = [posixpath.normpath(posixpath.join(here, as_text(file))) for file in (found, wanted)]
        return ends[0] == ends[1]
    return wanted.kind == "folder" or (as_bytes(found) == as_bytes(wanted) and (found.mode ^ wanted.mode) & 0o100 == 0)


def as_bytes(file: File) -> bytes:
    return file.content.encode() if isinstance(file.content, str) else file.content


def as_text(file: File) -> str:
    return as_bytes(file).decode(errors="replace")


def unpacked(archive: File | None) -> dict[str, bytes] | None:
    """The files in a .tar.gz, None where it is none; at most a megabyte is looked at."""
    try:
        data = gzip.GzipFile(fileobj=io.BytesIO(as_bytes(archive or File()))).read(1 << 20)
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            files = [(member.name, tar.extractfile(member)) for member in tar.getmembers() if member.isfile()]
            return {posixpath.normpath(name): file.read() for name, file in files if file}
    except (OSError, EOFError, tarfile.TarError):
        return None


# -- tasks -----------------------------------------------------------------------------------------------------------


@dataclass
class Draft:
    """A task before it has a number."""

    prompt: str
    files: dict[str, File] = field(default_factory=dict)
    gold: list[str] = field(default_factory=list)
    """Commands that solve it."""
    answer: str = ""
    want: dict[str, File | None] = field(default_factory=dict)
    """What must be there at the end besides the other files; None for what must be gone."""
    packed: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Archives that must be there, and the files in them."""
    program: str = ""
    trials: list[tuple[str, str]] = field(default_factory=list)
    """Standard input of the program, and what it must print."""


class Draw:
    """The dice and the words of one task."""

    def __init__(self, rng: random.Random, theme: dict[str, list[str]], level: int):
        self.rng, self.theme, self.level = rng, theme, level
        self.folder, self.other = rng.sample(theme["folders"], 2)
        self.item, self.second = rng.sample(theme["items"], 2)
        self.event, self.later = rng.sample(theme["events"], 2)
        self.count = (4, 9, 20)[level - 1] + rng.randrange(3)

    def text(self, lines: int) -> str:
        """Lines that tell what happened to things."""
        return "".join(f"{self.line()}\n" for _ in range(lines))

    def line(self) -> str:
        r, t = self.rng, self.theme
        day = f"2024-{r.randint(1, 12):02}-{r.randint(1, 28):02}"
        return f"{day} {r.choice(PEOPLE)} {r.choice(t['items'])} {r.choice(t['events'])} {r.randint(1, 99)}"

    def paths(self, ending: str, count: int = 0, depth: int = 0) -> list[str]:
        """Different paths below the folder; the base names differ too."""
        names = [f"{item}-{n}" for n in range(1, 40) for item in self.theme["items"]]
        found = []
        for name in self.rng.sample(names[: 12 * self.level + 40], count or self.count):
            inner = self.rng.sample(PEOPLE[:4], self.rng.randint(0, depth or self.level - 1))
            found.append("/".join([self.folder, *inner, f"{name}{ending}"]))
        return found

    def tree(self, ending: str, count: int = 0, lines: int = 6) -> dict[str, File]:
        return {path: plain(self.text(self.rng.randint(2, lines))) for path in self.paths(ending, count)}


def plain(text: str | bytes, mode: int = 0o644, changed: int = BEGIN) -> File:
    return File(text, mode, changed)


def count_lines(d: Draw) -> Draft:
    files = d.tree(".log") | {f"{d.folder}/notes.txt": plain(d.text(5))}
    lines = [line for path, file in files.items() if path.endswith(".log") for line in as_text(file).splitlines()]
    return Draft(
        f"How many lines of the .log files anywhere under {d.folder} contain the word {d.event!r}?",
        files,
        [f"grep -rhw --include='*.log' {d.event} {d.folder} | wc -l"],
        str(sum(d.event in line.split() for line in lines)),
    )


def largest_file(d: Draw) -> Draft:
    lengths = d.rng.sample(range(3, 90), d.count)
    files = {path: plain("x" * n * 7 + "\n") for path, n in zip(d.paths(".dat", len(lengths)), lengths, strict=True)}
    return Draft(
        f"Which file anywhere under {d.folder} is the largest? Answer with its path, beginning with {d.folder}/.",
        files,
        [f"find {d.folder} -type f -printf '%s %p\\n' | sort -n | tail -1 | cut -d' ' -f2"],
        max(files, key=lambda path: len(files[path].content)),
    )


def newest_file(d: Draw) -> Draft:
    paths = d.paths(".txt")
    ages = d.rng.sample(range(len(paths) * 9), len(paths))
    files = {p: plain(d.text(2), changed=BEGIN + n * 3600 * 10**9) for p, n in zip(paths, ages, strict=True)}
    return Draft(
        f"Which file anywhere under {d.folder} was changed last? Answer with its path, beginning with {d.folder}/.",
        files,
        [f"find {d.folder} -type f -printf '%T@ %p\\n' | sort -n | tail -1 | cut -d' ' -f2"],
        max(files, key=lambda path: files[path].changed),
    )


def find_text(d: Draw) -> Draft:
    files, code = d.tree(".txt"), f"{d.rng.choice('KLMN')}{d.rng.randint(1000, 9999)}"
    path = d.rng.choice(list(files))
    files[path] = plain(f"{as_text(files[path])}reference {code}\n")
    return Draft(
        f"Which file under {d.folder} mentions the reference {code}? Answer with its path, beginning with {d.folder}/.",
        files,
        [f"grep -rlw {code} {d.folder}"],
        path,
    )


def sum_column(d: Draw) -> Draft:
    rows = [(d.rng.choice(d.theme["items"]), d.rng.choice(PEOPLE), d.rng.randint(1, 500)) for _ in range(6 * d.count)]
    table = "".join(f"{item},{who},{amount}\n" for item, who, amount in [*rows, (d.item, PEOPLE[0], 7)])
    return Draft(
        f"In {d.folder}.csv, what is the sum of `amount` over the rows whose `item` is {d.item}?",
        {f"{d.folder}.csv": plain(f"item,person,amount\n{table}")},
        [f"awk -F, '$1 == \"{d.item}\" {{ s += $3 }} END {{ print s }}' {d.folder}.csv"],
        str(sum(amount for item, _, amount in rows if item == d.item) + 7),
    )


def most_frequent(d: Draw) -> Draft:
    winner = d.rng.choice(PEOPLE)
    lines = [d.line() for _ in range(4 * d.count)]
    best = max(Counter(line.split()[1] for line in lines).values())
    lines += [f"2024-06-{1 + n % 28:02} {winner} {d.item} {d.event} {n}" for n in range(best + 1)]
    d.rng.shuffle(lines)
    return Draft(
        f"Each line of {d.folder}.log names a person in its second word. Which person occurs most often?",
        {f"{d.folder}.log": plain("".join(f"{line}\n" for line in lines))},
        [f"cut -d' ' -f2 {d.folder}.log | sort | uniq -c | sort -n | tail -1"],
        winner,
    )


def count_different(d: Draw) -> Draft:
    files = {path: plain("".join(f"{d.rng.randint(1, 30)}\n" for _ in range(6))) for path in d.paths(".ids")}
    return Draft(
        f"The .ids files anywhere under {d.folder} hold one number a line. How many different numbers are there?",
        files,
        [f"find {d.folder} -name '*.ids' -exec cat {{}} + | sort -u | wc -l"],
        str(len({line for file in files.values() for line in as_text(file).split()})),
    )


def move_by_ending(d: Draw) -> Draft:
    kept, moved = d.tree(".txt", d.count), d.tree(".csv", d.count)
    want: dict[str, File | None] = dict.fromkeys(moved)
    return Draft(
        f"Move every .csv file anywhere under {d.folder} into a new folder {d.other}, without the folders it was in.",
        kept | moved,
        [f"mkdir {d.other}; find {d.folder} -name '*.csv' -exec mv {{}} {d.other}/ \\;"],
        want=want | {f"{d.other}/{posixpath.basename(path)}": file for path, file in moved.items()},
    )


def rename(d: Draw) -> Draft:
    files, left = d.tree(".txt"), d.tree(".log", 3)
    want: dict[str, File | None] = dict.fromkeys(files)
    return Draft(
        f"Rename every .txt file anywhere under {d.folder} so that it ends in .md instead.",
        files | left,
        [f'find {d.folder} -name \'*.txt\' | while read -r f; do mv "$f" "${{f%.txt}}.md"; done'],
        want=want | {f"{path[:-4]}.md": file for path, file in files.items()},
    )


def replace_word(d: Draw) -> Draft:
    files, left = d.tree(".txt"), d.tree(".log", 3)
    files[next(iter(files))] = plain(f"2024-02-03 {PEOPLE[0]} {d.item} {d.event} 5\n")
    return Draft(
        f"In every .txt file anywhere under {d.folder}, write {d.second!r} in place of the word {d.item!r}.",
        files | left,
        [f"find {d.folder} -name '*.txt' -exec sed -i 's/\\b{d.item}\\b/{d.second}/g' {{}} +"],
        want={path: plain(as_text(file).replace(d.item, d.second)) for path, file in files.items()},
    )


def extract(d: Draw) -> Draft:
    inner = d.tree(".txt")
    path = d.rng.choice(list(inner))
    name = posixpath.basename(path)
    return Draft(
        f"Take the file {path} out of backup.tar.gz and put it at restored/{name}. Leave nothing else behind in /work.",
        {"backup.tar.gz": plain(packed(inner))},
        [f"mkdir restored; tar -xzOf backup.tar.gz {path} > restored/{name}"],
        want={f"restored/{name}": inner[path], **dict.fromkeys(inner)},
    )


def pack(d: Draw) -> Draft:
    files = d.tree(".txt")
    return Draft(
        f"Pack the folder {d.folder} into {d.folder}.tar.gz, with {d.folder} as its top folder. Keep the folder.",
        files | {f"{d.other}/{d.item}.txt": plain(d.text(3))},
        [f"tar -czf {d.folder}.tar.gz {d.folder}"],
        packed={f"{d.folder}.tar.gz": {path: as_bytes(file) for path, file in files.items()}},
    )


def mend_program(d: Draw) -> Draft:
    right = "import sys\n\ntotal = 0\nfor line in sys.stdin:\n    name, amount = line.split(',')\n"
    right += f"    if name == {d.item!r}:\n        total += int(amount)\nprint(total)\n"
    wrong, gold = d.rng.choice(
        [
            (right.replace("total = 0", "total = 1"), "s/total = 1/total = 0/"),
            (right.replace("+= int", "= int"), "s/total = int/total += int/"),
            (right.replace("==", "!="), "s/!=/==/"),
            (right.replace("name, amount =", "amount, name ="), "s/amount, name =/name, amount =/"),
            (right.replace("split(',')", "split(';')"), "s/split(';')/split(',')/"),
            (right.replace("int(amount)", "len(amount)"), "s/len(amount)/int(amount)/"),
            (right.replace("print(total)", "    print(total)"), "s/^    print/print/"),
        ]
    )
    trials = []
    for _ in range(3):
        rows = [(d.rng.choice(d.theme["items"]), d.rng.randint(10, 900)) for _ in range(4 * d.count)] + [
            (d.item, 11)
        ] * 2
        total = sum(amount for name, amount in rows if name == d.item)
        trials.append(("".join(f"{name},{amount}\n" for name, amount in rows), f"{total}\n"))
    return Draft(
        f"total.py reads lines `name,amount` from standard input and should print the sum of the amounts of {d.item}, "
        "and nothing else. It is wrong. Mend it.",
        {"total.py": plain(wrong), "example.txt": plain(f"{d.item},12\n{d.second},30\n{d.item},5\n")},
        [f'sed -i "{gold}" total.py'],
        program="total.py",
        trials=trials,
    )


def report(d: Draw) -> Draft:
    lines = [d.line() for _ in range(5 * d.count)] + [f"2024-03-04 {PEOPLE[1]} {d.item} {d.event} 1"]
    counts = Counter(line.split()[2] for line in lines if line.split()[3] == d.event)
    return Draft(
        f"The words of each line of {d.folder}.log are day, person, item, event, number. Write report.csv with one "
        f"line `item,count` for each item that was {d.event!r}, sorted by item, where count is how many such lines "
        "there are. Write no heading.",
        {f"{d.folder}.log": plain("".join(f"{line}\n" for line in lines))},
        [
            f'awk \'$4 == "{d.event}" {{ n[$3]++ }} END {{ for (i in n) print i "," n[i] }}\' {d.folder}.log '
            "| sort > report.csv"
        ],
        want={"report.csv": plain("".join(f"{item},{n}\n" for item, n in sorted(counts.items())))},
    )


def delete_empty(d: Draw) -> Draft:
    files, empty = d.tree(".txt"), d.paths(".tmp")
    files[f"{d.folder}/kept.tmp"] = plain("something\n")
    return Draft(
        f"Delete every empty file anywhere under {d.folder}, and no other.",
        files | {path: plain("") for path in empty},
        [f"find {d.folder} -type f -empty -delete"],
        want=dict.fromkeys(empty),
    )


def make_runnable(d: Draw) -> Draft:
    files, scripts = d.tree(".txt"), {path: plain("#!/bin/sh\necho done\n") for path in d.paths(".sh")}
    return Draft(
        f"Let its owner run every .sh file anywhere under {d.folder}, and no other file.",
        files | scripts,
        [f"find {d.folder} -name '*.sh' -exec chmod u+x {{}} +"],
        want={path: replace(file, mode=0o744) for path, file in scripts.items()},
    )


def link_latest(d: Draw) -> Draft:
    minors = d.rng.sample(range(1, 30), d.count)
    names = [f"{d.folder}/{d.item}-1.{minor}.txt" for minor in minors]
    latest = f"{d.folder}/{d.item}-1.{max(minors)}.txt"
    return Draft(
        f"Make {d.folder}/current a symbolic link to the file there with the highest version; 1.10 is after 1.9.",
        {name: plain(d.text(1)) for name in names},
        [f"cd {d.folder}", "ln -s $(ls | sort -V | tail -1) current"],
        want={f"{d.folder}/current": File(posixpath.basename(latest), kind="link")},
    )


def table_from_json(d: Draw) -> Draft:
    rows = [
        {"id": n, "item": d.rng.choice(d.theme["items"]), "amount": d.rng.randint(1, 99)}
        for n in d.rng.sample(range(100, 999), d.count)
    ]
    lines = "".join("{id},{item},{amount}\n".format(**row) for row in sorted(rows, key=lambda row: row["id"]))
    return Draft(
        f"{d.folder}.json is a list of objects. Write {d.folder}.csv with the heading `id,item,amount` and one line "
        "for each object, sorted by id.",
        {f"{d.folder}.json": plain(json.dumps(rows, indent=1))},
        [
            'python3 -c \'import json\nprint("id,item,amount")\n'
            f'for r in sorted(json.load(open("{d.folder}.json")), key=lambda r: r["id"]): '
            f'print(r["id"], r["item"], r["amount"], sep=",")\' > {d.folder}.csv'
        ],
        want={f"{d.folder}.csv": plain(f"id,item,amount\n{lines}")},
    )


def remove_copies(d: Draw) -> Draft:
    names = [f"{d.folder}/{n:02}.txt" for n in range(d.count)]
    texts = [d.text(2) for _ in range(max(2, d.count // 2))]
    picked = [*texts, *(d.rng.choice(texts) for _ in range(d.count - len(texts)))]
    d.rng.shuffle(picked)
    files = {name: plain(text) for name, text in zip(names, picked, strict=True)}
    copies = [name for n, name in enumerate(names) if picked[n] in picked[:n]]
    return Draft(
        f"Some files in {d.folder} have the same content. Of each such group keep the file whose name comes first, and "
        "delete the others.",
        files,
        [f"cd {d.folder}; md5sum *.txt | awk 'seen[$1]++ {{ print $2 }}' | xargs rm"],
        want=dict.fromkeys(copies),
    )


def merge_numbers(d: Draw) -> Draft:
    files = {path: plain("".join(f"{d.rng.randint(1, 200)}\n" for _ in range(5))) for path in d.paths(".num")}
    numbers = sorted({int(line) for file in files.values() for line in as_text(file).split()})
    return Draft(
        f"Write all.txt with the numbers of all .num files anywhere under {d.folder}, one a line, rising, each once.",
        files,
        [f"find {d.folder} -name '*.num' -exec cat {{}} + | sort -nu > all.txt"],
        want={"all.txt": plain("".join(f"{n}\n" for n in numbers))},
    )


def packed(files: dict[str, File]) -> bytes:
    """A .tar.gz that is the same every time."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as tar:
        for path, file in files.items():
            info = tarfile.TarInfo(path)
            info.size, info.mtime = len(as_bytes(file)), BEGIN // 10**9
            tar.addfile(info, io.BytesIO(as_bytes(file)))
    return out.getvalue()


KINDS: dict[str, Callable[[Draw], Draft]] = {
    function.__name__: function
    for function in (
        count_lines, largest_file, newest_file, find_text, sum_column, most_frequent, count_different, move_by_ending,
        rename, replace_word, extract, pack, mend_program, report, delete_empty, make_runnable, link_latest,
        table_from_json, remove_copies, merge_numbers,
    )
}  # fmt: skip
