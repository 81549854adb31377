"""tools/sql: what a statement may do is the engine's decision, and no statement of an agent raises."""

import sqlite3

import pytest

from etude.core.errors import EnvironmentFault, PartError
from etude.tools.process import Crew
from etude.tools.sql import Database, table

duckdb = pytest.importorskip("duckdb", reason="pip install 'etude[sql]'")
both = pytest.mark.parametrize("engine", ["sqlite", "duckdb"])
TABLES = [
    "CREATE TABLE shelf (item VARCHAR, n INTEGER, price DECIMAL(8, 2), since DATE)",
    "INSERT INTO shelf VALUES ('lamp', 3, 9.5, '2020-01-31'), ('mug', NULL, 4, '2021-12-01')",
    "CREATE VIEW cheap AS SELECT item FROM shelf WHERE price < 5",
]


@pytest.fixture
def file(engine, tmp_path):
    path = str(tmp_path / f"it's a shop.{engine}")
    connection = sqlite3.connect(path) if engine == "sqlite" else duckdb.connect(path)
    for sql in TABLES:
        connection.execute(sql)
    connection.commit()
    connection.close()
    return path


@both
def test_reading(engine, file):
    database = Database(file, engine=engine)
    result = database.query("SELECT item, n, price, since FROM shelf ORDER BY item")
    assert result["rows"] == [["lamp", 3, 9.5, "2020-01-31"], ["mug", None, 4.0, "2021-12-01"]]
    assert table(result).splitlines()[:2] == ["item | n | price | since", "lamp | 3 | 9.5 | 2020-01-31"]
    assert table(database.query("SELECT item FROM shelf WHERE n > 99")) == "item\n(no rows)"
    assert "CREATE TABLE shelf" in database.schema("shelf")["sql"]
    assert "cheap" in database.schema()["sql"]
    assert database.schema("shelv")["error"] == "no table 'shelv'; did you mean 'shelf'? There are: cheap, shelf"
    database.close()


FORBIDDEN = [
    "INSERT INTO shelf VALUES ('pen', 1, 1, '2020-01-01')",
    "UPDATE shelf SET n = 0",
    "DELETE FROM shelf",
    "DROP TABLE shelf",
    "CREATE TABLE more (x INTEGER)",
    "CREATE TEMP TABLE more (x INTEGER)",
    "CREATE TEMP TABLE more AS SELECT 1 AS x",
    "UPDATE sqlite_master SET sql = ''",
    "BEGIN",
    "ROLLBACK",
]
OUTSIDE = [
    "ATTACH '{0}/other.db' AS other",
    "VACUUM INTO '{0}/copy.db'",
    "PRAGMA user_version = 7",
    "PRAGMA journal_mode = DELETE",
    "PRAGMA writable_schema = ON",
    "COPY shelf TO '{0}/out.csv'",
    "EXPORT DATABASE '{0}/out'",
    "SELECT * FROM read_text('{0}/secret.txt')",
    "SELECT * FROM read_csv('{0}/secret.txt')",
    "SELECT * FROM '{0}/secret.csv'",
    "SELECT * FROM glob('{0}/*')",
    "SELECT readfile('{0}/secret.txt')",
    "SELECT load_extension('{0}/evil.so')",
    "INSTALL tpch",
    "LOAD tpch",
    "SET memory_limit = '100GB'",
    "PRAGMA memory_limit = '100GB'",
    "SET VARIABLE x = 1",
    "RESET threads",
    "PREPARE p AS SELECT 1",
    "CALL pragma_version()",
    "SELECT * FROM FORBIDDEN",
]


@both
@pytest.mark.parametrize("write", [False, True])
def test_nothing_outside_the_database_is_read_written_or_set(engine, write, file, tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "secret.csv").write_text("a\n1")
    database = Database(file, engine=engine, write=write)
    names = {path.name for path in tmp_path.iterdir()}
    for sql in OUTSIDE:
        assert database.query(sql.format(tmp_path)).get("error"), sql
    assert {path.name for path in tmp_path.iterdir()} == names
    assert database.query("SELECT count(*) FROM shelf")["rows"] == [[2]]
    database.close()


@both
def test_what_is_only_read_is_not_changed(engine, file):
    with open(file, "rb") as opened:
        before = opened.read()
    database = Database(file, engine=engine)
    for sql in FORBIDDEN:
        said = database.query(sql)
        if "sqlite_master" in sql:
            assert said["error"]  # by a rule of the engines' own
        else:
            assert said.get("error", "").startswith("not allowed here: only reading tables"), (sql, said)
    assert database.query("SELECT count(*) FROM shelf")["rows"] == [[2]]
    database.close()
    with open(file, "rb") as opened:
        assert opened.read() == before


@both
def test_a_private_copy_is_changed_alone_and_goes_back(engine, file):
    database, other = (Database(file, engine=engine, write=True) for _ in range(2))
    first = database.save()
    assert "error" not in database.query("UPDATE shelf SET n = 10 WHERE item = 'mug'")
    assert "error" not in database.query("CREATE TABLE more (x INTEGER)")
    second = database.save()
    assert "error" not in database.query("DELETE FROM shelf")
    assert database.query("SELECT count(*) FROM shelf")["rows"] == [[0]]
    assert other.query("SELECT count(*) FROM shelf")["rows"] == [[2]]
    for state, expected in ((second, [[3], [10]]), (first, [[3], [None]]), (second, [[3], [10]])):
        other.load(state)
        assert other.query("SELECT n FROM shelf ORDER BY item")["rows"] == expected
        assert ("error" in other.query("SELECT * FROM more")) == (state == first)
        assert other.query("PRAGMA user_version = 7")["error"].startswith("not allowed here: only reading and changing")
    assert "not allowed" in database.query("BEGIN")["error"]
    reader = Database(file, engine=engine)
    assert reader.query("SELECT count(*) FROM shelf")["rows"] == [[2]]
    for one in (database, other, reader):
        one.close()


@both
def test_one_statement_and_errors_in_words(engine, file):
    database = Database(file, engine=engine)
    two = ["SELECT 1; SELECT 2", "SELECT 1; DROP TABLE shelf"]
    for sql in [*two, "SELEC 1", "SELECT nope FROM shelf", "SELECT \udcff", "SELECT ?"]:
        assert database.query(sql)["error"], sql
    assert "nope" in database.query("SELECT nope FROM shelf")["error"]
    assert database.query("WITH a AS (SELECT 1 AS x) SELECT x FROM a;")["rows"] == [[1]]
    assert "error" not in database.query("EXPLAIN SELECT 1")
    database.close()


@both
def test_limits(engine, file):
    database = Database(file, engine=engine, seconds=0.3, rows=5, chars=2000)
    endless = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r)"
    assert database.query(f"{endless} SELECT count(*) FROM r")["error"] == "interrupted after 0.3 s; ask for less"
    few = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 50)"
    cut = database.query(f"{few} SELECT n FROM r")
    assert (len(cut["rows"]), cut["more"]) == (5, True)
    assert len(database.query(f"{few} SELECT n FROM r", rows=50)["rows"]) == 50
    assert not database.query(f"{few} SELECT n FROM r", rows=50)["more"]
    wide = database.query(f"{few} SELECT replace(hex(n + 1000), '3', '{'x' * 100}') AS t FROM r", rows=50)
    assert wide["more"]
    assert 0 < len(str(wide["rows"])) < 4000
    assert database.query("SELECT 1")["rows"] == [[1]]
    assert table({"columns": ["t"], "rows": [["y" * 300]], "more": False}) == "t\n" + "y" * 100 + "..."
    database.close()


LARGE = {
    "sqlite": "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r LIMIT 100000) "
    "SELECT max(b) FROM (SELECT randomblob(5000) AS b FROM r ORDER BY b)",
    "duckdb": "SELECT string_agg(repeat('x', 1000), '') FROM range(10000000)",
}


@both
async def test_memory_is_limited_in_a_process_of_its_own(engine, file):
    crew = Crew("etude.tools.sql:Database", settings={"path": file, "engine": engine, "memory_mb": 50, "seconds": 60})
    worker = await crew.hire()
    try:
        assert "memory" in (await worker.call("query", sql=LARGE[engine]))["error"].lower()
        assert (await worker.call("query", sql="SELECT count(*) FROM shelf"))["rows"] == [[2]]
    finally:
        crew.release(worker)
        crew.close()


def test_sqlites_values_are_limited():
    database = Database(write=True)
    assert "too big" in database.query("SELECT length(randomblob(1000001))")["error"]
    assert database.query("SELECT x'00ff'")["rows"] == [["0x00ff"]]


def test_full_text_search_works_where_only_reading_is_allowed(tmp_path):
    connection = sqlite3.connect(tmp_path / "f.db")
    connection.execute("CREATE VIRTUAL TABLE pages USING fts5(body)")
    connection.execute("INSERT INTO pages VALUES ('a red lamp'), ('a blue mug')")
    connection.commit()
    connection.close()
    database = Database(str(tmp_path / "f.db"))
    found = database.query("SELECT body FROM pages WHERE pages MATCH 'lamp' ORDER BY bm25(pages)")
    assert found["rows"] == [["a red lamp"]]
    assert "not allowed" in database.query("INSERT INTO pages VALUES ('more')")["error"]


def test_settings_and_files(tmp_path):
    with pytest.raises(PartError, match="no engine 'sqlight'; did you mean 'sqlite'"):
        Database(engine="sqlight")
    for engine in ("sqlite", "duckdb"):
        with pytest.raises(EnvironmentFault, match="cannot be opened"):
            Database(str(tmp_path / "absent.db"), engine=engine)
        (tmp_path / "text.db").write_text("no database at all, but long enough to look at" * 100)
        with pytest.raises(EnvironmentFault, match="cannot be opened"):
            Database(str(tmp_path / "text.db"), engine=engine)
    assert Database(write=True).schema()["sql"] == "The database has no tables."
