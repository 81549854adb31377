"""Ten thousand damaged rows: nothing crashes, nothing is lost, and what is accepted is kept exactly."""

import copy
import json
import random

import pytest

from etude.trajectory import Trajectory
from etude.trajectory.formats import FORMATS, export_file, iter_file
from etude.trajectory.store import Store

from .samples import ODD, PLAIN, normal

ROWS = 10_000
WEIRD = [
    *(None, True, False, 0, -1, 1e308, 10**30, "", "x", "\x00", "é\u2028𝄞", [], {}, [[]], [None], {"": None}, [{}]),
    *("x" * 5000, "\\ud800", "data:image/png;base64,!", "data:;base64,", "<tool_call>", "{", "[1]", '{"a": 1e999}'),
    *("<execute>\nf(a=1)\n</execute>", "Action: f[", "Observation: x", {"role": "tool"}, {"from": "human", "value": 1}),
]


def mutate_value(value, rng: random.Random):
    """Damage one place of a row's tree."""
    spots = [(value, key) for key in value]
    for container, key in spots:
        inside = container[key]
        if isinstance(inside, (dict, list)):
            spots += [(inside, k) for k in (inside if isinstance(inside, dict) else range(len(inside)))]
    container, key = rng.choice(spots)
    match rng.randrange(6):
        case 0:
            del container[key]
        case 1 if isinstance(container, dict):
            container[rng.choice(["", "role", "value", "_format", "task", key + "s"])] = container.pop(key)
        case 2 if isinstance(container, list):
            container.insert(rng.randrange(len(container) + 1), copy.deepcopy(container[key]))
        case 3 if isinstance(container, list):
            rng.shuffle(container)
        case 4:
            other, there = rng.choice(spots)
            container[key] = (
                copy.deepcopy(other[there]) if there in (other if isinstance(other, dict) else range(len(other))) else 0
            )
        case _:
            container[key] = copy.deepcopy(rng.choice(WEIRD))


def mutate_bytes(raw: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(raw))
    match rng.randrange(9):
        case 0:
            return raw[:at]
        case 1:
            return raw[at:]
        case 2:
            return raw[:at] + bytes([rng.randrange(256)]) + raw[at + 1 :]
        case 3:
            return raw[:at] + b"\xff\xc0\x80" + raw[at:]
        case 4:
            return rng.randbytes(rng.randrange(1, 200))
        case 5:
            depth = rng.choice([5, 120, 3000, 50_000])
            return b'{"messages": ' + b"[" * depth + b"]" * depth + b"}"
        case 6:
            return raw.replace(
                b": ", b": " + rng.choice([b"NaN, ", b"-Infinity, ", b"1e999, ", b"9" * 5000 + b", "]), 1
            )
        case 7:
            return raw.replace(
                b"}", b', "reward": ' + rng.choice([b"NaN", b"1" + b"0" * 400, b'"\\udfff"', b"1e400"]) + b"}"
            )
        case _:
            return raw + raw[:at]


def damaged(format: str, count: int, rng: random.Random) -> list[bytes]:
    samples = PLAIN[format] + ODD[format]
    rows = []
    while len(rows) < count:
        row = copy.deepcopy(rng.choice(samples))
        for _ in range(rng.choice([0, 1, 1, 1, 2, 4])):
            if row:
                mutate_value(row, rng)
        raw = json.dumps(row).encode()
        if rng.random() < 0.4:
            raw = mutate_bytes(raw, rng)
        raw = raw.replace(b"\n", b" ")
        if raw.strip():
            rows.append(raw)
    return rows


@pytest.mark.exact(7)
def test_ten_thousand_damaged_rows(tmp_path):
    rng = random.Random(20_251)
    good, bad, reasons = 0, 0, set()
    for n, format in enumerate(FORMATS):
        count = ROWS // len(FORMATS) + (n < ROWS % len(FORMATS))
        rows = damaged(format, count, rng)
        path = tmp_path / f"{format}.jsonl"
        path.write_bytes(b"\n".join(rows) + b"\n")
        accepted, sources, lines = [], [], set()
        for line, item in enumerate(iter_file(path, format), 1):
            if isinstance(item, Trajectory):
                accepted.append(item)
                sources.append(json.loads(rows[line - 1].removeprefix(b"\xef\xbb\xbf")))
            else:
                assert item.line == line
                assert item.reason
                assert len(item.excerpt) <= 500
                lines.add(line)
                reasons.add((format, item.reason.split(":")[-1][:12]))
        assert len(accepted) + len(lines) == count
        good, bad = good + len(accepted), bad + len(lines)

        store = Store(tmp_path / "store")
        store.write(accepted, format)
        exported = export_file(store.read([format]), tmp_path / f"{format}-out.jsonl", format)
        assert exported.refused == []
        again = [json.loads(row) for row in (tmp_path / f"{format}-out.jsonl").read_bytes().splitlines()]
        for row, source in zip(again, sources, strict=True):
            assert normal(row) == normal(source)
    assert good + bad == ROWS
    assert min(good, bad) > ROWS / 5
    assert len(reasons) > 50
