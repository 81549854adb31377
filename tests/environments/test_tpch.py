"""environments/tpch: the suite's queries with other values, judged by their rows, run in processes that may die."""

import pytest

from etude.agents.loops import native
from etude.core.errors import PartError
from etude.environments import tpch
from etude.environments.tpch import kinds, reader, reference, same, statement
from etude.policies import scripted
from etude.rollout.collect import collect
from etude.trajectory import Message, ToolCall

pytest.importorskip("duckdb_extension_tpch", reason="pip install 'etude[tpch]'")
SUITE = {  # the suite's own values, by the specification's section 2.4
    "q1": {"days": 90},
    "q2": {"size": 15, "metal": "BRASS", "region": "EUROPE"},
    "q3": {"segment": "BUILDING", "day": 15},
    "q4": {"year": 1993, "month": "07"},
    "q5": {"region": "ASIA", "year": 1994},
    "q6": {"year": 1994, "discount": 6, "quantity": 24},
    "q7": {"nation1": "FRANCE", "nation2": "GERMANY"},
    "q8": {"nation": "BRAZIL", "kind": "ECONOMY", "finish": "ANODIZED", "metal": "STEEL"},
    "q9": {"colour": "green"},
    "q10": {"year": 1993, "month": "10"},
    "q11": {"nation": "GERMANY", "share": 0.1},
    "q12": {"mode1": "MAIL", "mode2": "SHIP", "year": 1994},
    "q13": {"word1": "special", "word2": "requests"},
    "q14": {"year": 1995, "month": "09"},
    "q15": {"year": 1996, "month": "01"},
    "q16": {"brand": "Brand#45", "kind": "MEDIUM", "finish": "POLISHED", "sizes": "49, 14, 23, 45, 19, 3, 36, 9"},
    "q17": {"brand": "Brand#23", "case": "MED", "box": "BOX"},
    "q18": {"quantity": 300},
    "q19": {"brand1": "Brand#12", "brand2": "Brand#23", "brand3": "Brand#34", "quantity1": 1, "quantity2": 10,
        "quantity3": 20},
    "q20": {"nation": "CANADA", "colour": "forest", "year": 1994},
    "q21": {"nation": "SAUDI ARABIA"},
    "q22": {"codes": "'13', '31', '23', '29', '30', '18', '17'"},
}  # fmt: skip


def say(tool, **arguments):
    return Message("assistant", tool_calls=(ToolCall(tool, arguments, "c"),))


@pytest.fixture(scope="module")
def world():
    world = tpch()
    yield world
    world.crew.close()


async def play(world, task, *messages):
    (played,) = await collect(scripted(list(messages)), [task], agent=native(), max_turns=20)
    assert played.episodes[0].failure is None, played.episodes[0].failure
    return played.episodes[0].reward, [m.content for m in played.messages if m.role == "tool"]


async def test_every_kinds_reference_earns_1_and_silence_0(world):
    for task in world.tasks("test")[: len(kinds())]:
        reward, told = await play(world, task, *world.solve(task, 0))
        assert reward == 1.0, task.id
        assert told[1] == "submitted"
        assert (await play(world, task, Message("assistant", "I cannot know.")))[0] == 0.0
        assert (await play(world, task, say("submit", sql="SELECT 1 WHERE false")))[0] == 0.0
        assert (await play(world, task, say("submit", sql="SELECT 0")))[0] == 0.0


def test_with_the_suites_values_the_queries_are_the_suites():
    rows = [row for row in kinds().values() if "query" in row]
    assert [row["query"] for row in rows] == list(range(1, 23))
    for row in rows:
        mine = reader(0.01).query(statement(row, SUITE[row["name"]]))
        theirs = reader(0.01).query(reference()[row["query"]])
        assert mine["rows"], row["name"]
        assert mine["rows"] == theirs["rows"], row["name"]


def test_our_own_questions_by_hand():
    everything = {}
    for name in ("customer", "orders", "nation"):
        result = reader(0.01).query(f"SELECT * FROM {name}")
        everything[name] = [dict(zip(result["columns"], row, strict=True)) for row in result["rows"]]
    number = next(n["n_nationkey"] for n in everything["nation"] if n["n_name"] == "KENYA")
    kenyans = [c for c in everything["customer"] if c["c_nationkey"] == number]

    def asked(kind, **drawn):
        return sorted(reader(0.01).query(statement(kinds()[kind], drawn))["rows"])

    buyers = {o["o_custkey"] for o in everything["orders"]}
    idle = [c["c_mktsegment"] for c in kenyans if c["c_acctbal"] > 2000 and c["c_custkey"] not in buyers]
    assert asked("never ordered", nation="KENYA", balance=2000) == [[s, idle.count(s)] for s in sorted(set(idle))]
    best = {}
    for order in everything["orders"]:
        if order["o_orderdate"].startswith("1995") and order["o_custkey"] in {c["c_custkey"] for c in kenyans}:
            month = int(order["o_orderdate"][5:7])
            best[month] = max(best.get(month, (0, 0)), (order["o_totalprice"], order["o_orderkey"]))
    expected = [[month, key, price] for month, (price, key) in sorted(best.items())]
    assert asked("record orders", nation="KENYA", year=1995) == expected
    rich = sum(c["c_mktsegment"] == "BUILDING" and c["c_acctbal"] > 3000 for c in everything["customer"])
    assert asked("rich customers", segment="BUILDING", balance=3000) == [[rich]]


async def test_another_way_to_the_same_rows_is_right_and_a_near_miss_is_not(world):
    suppliers = tpch("suppliers")
    task = suppliers.tasks("train")[0]
    assert len(reader(0.01).query(task.data["sql"])["rows"]) > 1
    right = f"SELECT a, b::DOUBLE + 1e-9 FROM ({task.data['sql']}) AS x(a, b) ORDER BY b DESC"
    for sql, reward in [
        (right, 1.0),
        (f"SELECT b, a FROM ({task.data['sql']}) AS x(a, b)", 0.0),
        (f"SELECT a, b + 0.01 FROM ({task.data['sql']}) AS x(a, b)", 0.0),
        (f"{task.data['sql']} UNION ALL {task.data['sql']}", 0.0),
        (f"SELECT * FROM ({task.data['sql']}) LIMIT 1", 0.0),
    ]:
        assert (await play(suppliers, task, say("submit", sql=sql)))[0] == reward, sql
    suppliers.crew.close()


def test_same_rows():
    assert same([[1, "a"], [2, "b"]], [[2, "b"], [1, "a"]])
    assert not same([[1, "a"], [1, "a"]], [[1, "a"], [2, "b"]])
    assert not same([[1, "a"]], [[1, "a"], [1, "a"]])
    assert not same([[1, "a"], [2, "b"]], [[1, "a"], [1, "a"]])
    assert not same([[60175]], [[60176]]), "counts are exact"
    assert same([[60175.0, "1995-01-01T00:00:00"]], [[60175, "1995-01-01"]])
    assert same([[None, 0.5]], [[None, 0.5000001]])
    assert not same([[None]], [[0.5]])
    assert not same([["0.5"]], [[0.5]])
    assert not same([], [[0.5]])
    assert not same([[1, 2]], [[1]])


async def test_mistakes_are_answered_in_words_and_nothing_gives_the_answer_away(world):
    task = world.tasks("dev")[14]
    reward, told = await play(
        world,
        task,
        say("schema", table="lineitem"),
        say("query", sql="SELECT count(*) FROM lineitm"),
        say("query", sql="SELECT * FROM tpch_answers()"),
        say("query", sql="CREATE TABLE x AS SELECT 1"),
        say("submit", sql="SELECT"),
        say("query", sql="SELECT count(*) AS n FROM lineitem"),
        *world.solve(task, 0),
    )
    assert "CREATE TABLE lineitem" in told[0]
    assert "lineitem" in told[1]
    assert told[1].startswith("error: ")
    assert "tpch_answers" in told[2]
    assert told[3].startswith("error: not allowed here")
    assert told[4].startswith("error: ")
    assert told[5] == "n\n60175"
    assert reward == 1.0
    assert world.secrets(task) == [task.data["sql"]]


async def test_a_statement_that_its_process_cannot_bear_is_the_agents_mistake():
    small = tpch("rich customers")
    small.crew.memory_mb = 400
    task = small.tasks("test")[0]
    reward, told = await play(small, task, say("query", sql="SELECT repeat('x', 2000000000)"), *small.solve(task, 0))
    assert told[0].startswith("error: the statement took too much time or memory")
    assert reward == 1.0
    small.crew.close()


async def test_forks_keep_what_was_found(world):
    task = world.tasks("test")[3]
    session, other = world.open(), world.open()
    await session.reset(task, 0)
    await session.step(say("query", sql="SELECT 1"))
    await other.restore(await session.snapshot())
    assert (await session.step(say("submit", sql="SELECT 1"))).reward == 0.0
    assert (await other.step(world.solve(task, 0)[1])).reward == 1.0
    await session.close()
    await other.close()


def test_tasks_are_fixed_and_no_question_is_in_two_splits():
    small = tpch(["q13", "trade of a brand", "q14"], size=60)
    asked = {split: [t.data["question"] for t in small.tasks(split)] for split in ("train", "dev", "test")}
    assert [len(q) for q in asked.values()] == [60, 6, 6]
    sets = [set(questions) for questions in asked.values()]
    assert not sets[0] & sets[1]
    assert not sets[0] & sets[2]
    assert not sets[1] & sets[2]
    assert len(sets[0]) > 30
    assert small.tasks("test")[1].id == "tpch/trade of a brand@0.01/test/0"
    assert tpch("q13").tasks("dev")[1].data == small.tasks("dev")[3].data
    assert small.tasks("dev")[0].difficulty == 7.0


def test_settings():
    with pytest.raises(PartError, match="no kind 'q23'; did you mean 'q3'"):
        tpch("q23")
    with pytest.raises(PartError, match="scale is 5"):
        tpch(scale=5)
    with pytest.raises(PartError, match="no split 'valid'"):
        tpch().tasks("valid")
