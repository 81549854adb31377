"""A database for an agent's SQL: SQLite or DuckDB, one statement at a time, within limits that the engine keeps.

What a statement may do is decided by the engine's own reading of it, never by looking at its text: SQLite asks an
authorizer about every action of a statement, and DuckDB says of what type a parsed statement is. Neither engine may
touch another file, load an extension or change a setting; a database that is only read is opened so. A statement that
is refused, wrong, too slow or too large is answered in words.

Time and memory are the engine's limits. DuckDB has functions that neither an interrupt nor `memory_limit` stops, such
as `repeat('x', 2000000000)`, so where a model writes the statements, keep a `Database` in a worker of
`tools.process.Crew`, which kills it; all that goes in and out is JSON for that reason.
"""

import base64
import datetime
import decimal
import math
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from etude.core.errors import EnvironmentFault, PartError, missing_extra, suggest

INSTALL = "pip install 'etude[sql]'"
TOOLS = [
    {
        "name": "schema",
        "description": "how tables and views were created",
        "parameters": {
            "type": "object",
            "properties": {"table": {"type": "string", "description": "one of them; all where it is left out"}},
        },
    },
    {
        "name": "query",
        "description": "run one SQL statement",
        "parameters": {"type": "object", "properties": {"sql": {"type": "string"}}, "required": ["sql"]},
    },
]
READS = ("SELECT", "READ", "FUNCTION", "RECURSIVE")  # actions of SQLite's authorizer
WRITES = ("INSERT", "UPDATE", "DELETE", "ALTER_TABLE", "REINDEX", "ANALYZE")
WRITES += tuple(f"{verb}_{what}" for verb in ("CREATE", "DROP") for what in ("TABLE", "INDEX", "VIEW", "TRIGGER"))
READ_TYPES = ("SELECT", "EXPLAIN")  # of DuckDB's statements
WRITE_TYPES = ("INSERT", "UPDATE", "DELETE", "CREATE", "ALTER", "DROP")
LIMITS = {  # of SQLite, on one value and one statement
    sqlite3.SQLITE_LIMIT_LENGTH: 10**6,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 10**5,
    sqlite3.SQLITE_LIMIT_COLUMN: 200,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
}
CREATED = {
    "sqlite": "SELECT name, sql FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite%'",
    "duckdb": "SELECT table_name, sql FROM duckdb_tables() WHERE database_name = current_database() "
    "UNION ALL SELECT view_name, sql FROM duckdb_views() WHERE database_name = current_database() AND NOT internal",
}


class Database:
    """One connection. With `write` it is a private copy: statements change that alone, and the file never.

    >>> database = Database(write=True)
    >>> database.query("CREATE TABLE stock (item TEXT, count INT)")
    {'columns': [], 'rows': [], 'more': False}
    >>> before = database.save()
    >>> database.query("INSERT INTO stock VALUES ('lamp', 3), ('mug', 7) RETURNING count")["rows"]
    [[3], [7]]
    >>> database.load(before)
    >>> database.query("SELECT count(*) AS n FROM stock")
    {'columns': ['n'], 'rows': [[0]], 'more': False}
    >>> database.query("ATTACH 'other.db' AS other")["error"]
    'not allowed here: only reading and changing tables of this database is, without PRAGMA, ATTACH or transactions'
    """

    def __init__(
        self,
        path: str = "",
        *,
        engine: str = "sqlite",
        write: bool = False,
        seconds: float = 10.0,
        rows: int = 100,
        chars: int = 100_000,
        memory_mb: int = 512,
    ):
        """path: the file; '' for an empty database, which only `write` makes sense of.
        engine: `sqlite` or `duckdb`.
        seconds: after which a statement is interrupted.
        rows, chars: of a result; what is beyond is not read.
        memory_mb: what DuckDB's buffers may take. SQLite has one limit for all databases of a process, which can only
            be lowered, so that the lowest that any asks for holds.

        Raises PartError for an unknown engine, EnvironmentFault where the file cannot be opened.
        """
        if engine not in CREATED:
            raise PartError(f"tools/sql: no engine {engine!r}; {suggest(engine, CREATED)}")
        self.path, self.engine, self.write = path, engine, write
        self.seconds, self.rows, self.chars, self.memory_mb = seconds, rows, chars, memory_mb
        self.folder: tempfile.TemporaryDirectory[str] | None = None
        what = "reading and changing tables" if write else "reading tables"
        self.rule = f"not allowed here: only {what} of this database is, without PRAGMA, ATTACH or transactions"
        try:
            self.connection: Any = self._sqlite() if engine == "sqlite" else self._duckdb(path)
        except (sqlite3.Error, OSError) as error:
            raise EnvironmentFault(f"database {path!r} cannot be opened: {error}") from error

    def query(self, sql: str, rows: int | None = None) -> dict[str, Any]:
        """`{columns, rows, more}`, where `more` says that the limit cut the rows; or `{error}`, in words.

        rows: in place of the database's own limit.
        """
        alarm = threading.Timer(self.seconds, self.connection.interrupt)
        alarm.start()
        try:
            cursor = self._execute(sql)
            columns = [column[0] for column in cursor.description or ()]
            return {"columns": columns, **self._fetch(cursor, self.rows if rows is None else rows)}
        except MemoryError:
            return {"error": f"out of memory ({self.memory_mb} MB); ask for less"}
        except Exception as error:
            return {"error": self._in_words(error)}
        finally:
            alarm.cancel()

    def schema(self, table: str = "") -> dict[str, Any]:
        """`{sql}`, the statements that created the table or view, or all of them; or `{error}`."""
        result = self.query(CREATED[self.engine], rows=1000)
        if "error" in result:
            raise EnvironmentFault(f"database {self.path!r}: its schema cannot be read: {result['error']}")
        created = dict(result["rows"])
        if table and table not in created:
            return {"error": f"no table {table!r}; {suggest(table, created)}"}
        return {"sql": created[table] if table else "\n".join(created.values()) or "The database has no tables."}

    def save(self) -> str:
        """A copy of a private database, as text; what is temporary is not in it."""
        if not self.write:
            return ""
        if self.engine == "sqlite":
            self.connection.set_authorizer(None)  # it would forbid what SQLite does for this
            content = self.connection.serialize()
            self._guard(self.connection)
        else:
            self.connection.execute("CHECKPOINT")
            content = self._file().read_bytes()
        return base64.b64encode(content).decode()

    def load(self, state: str) -> None:
        """Take over what `save` gave, here or in another database of the same engine."""
        if not self.write:
            return
        content = base64.b64decode(state)
        if self.engine == "sqlite":
            self.connection.set_authorizer(None)
            self.connection.deserialize(content)
            self._guard(self.connection)
        else:
            self.connection.close()
            self._file().write_bytes(content)
            self.connection = self._connect(str(self._file()))

    def close(self) -> None:
        self.connection.close()
        if self.folder is not None:
            self.folder.cleanup()

    # -- SQLite ----------------------------------------------------------------------------------------------------

    def _sqlite(self) -> sqlite3.Connection:
        file = f"file:{quote(self.path)}?mode=ro"
        place = ":memory:" if self.write else file
        connection = sqlite3.connect(place, uri=True, isolation_level=None, check_same_thread=False)
        if self.write and self.path:
            source = sqlite3.connect(file, uri=True)
            source.backup(connection)
            source.close()
        connection.execute("PRAGMA temp_store = MEMORY")  # else what a statement sorts goes to files
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute(f"PRAGMA hard_heap_limit = {self.memory_mb * 2**20}")
        connection.execute("SELECT count(*) FROM sqlite_master")  # a file that is no database says so only now
        for limit, value in LIMITS.items():
            connection.setlimit(limit, value)
        self._guard(connection)
        return connection

    def _guard(self, connection: sqlite3.Connection) -> None:
        allowed = {getattr(sqlite3, f"SQLITE_{name}") for name in (*READS, *(WRITES if self.write else ()))}

        def authorize(action: int, name: str | None, value: str | None, *_: Any) -> int:
            searches = action == sqlite3.SQLITE_PRAGMA and (name, value) == ("data_version", None)  # FTS5 asks for it
            declares = action == sqlite3.SQLITE_UPDATE and name == "sqlite_master"  # a virtual table, as it is opened
            return sqlite3.SQLITE_OK if action in allowed or searches or declares else sqlite3.SQLITE_DENY

        connection.set_authorizer(authorize)

    # -- DuckDB ----------------------------------------------------------------------------------------------------

    def _duckdb(self, path: str) -> Any:
        if not self.write:
            return self._connect(path)
        self.folder = tempfile.TemporaryDirectory(prefix="etude-sql-")
        if path:
            shutil.copyfile(path, self._file())
        return self._connect(str(self._file()))

    def _file(self) -> Path:
        assert self.folder is not None
        return Path(self.folder.name, "private.duckdb")

    def _connect(self, path: str) -> Any:
        duckdb = _import_duckdb()
        config = {
            "enable_external_access": "false",
            "autoload_known_extensions": "false",
            "python_enable_replacements": "false",  # else a table's name may mean a variable of this process
            "memory_limit": f"{self.memory_mb}MiB",
            "max_temp_directory_size": "0B",
            "threads": "1",
            "lock_configuration": "true",
        }
        try:
            return duckdb.connect(path, read_only=not self.write, config=config)
        except duckdb.Error as error:
            raise EnvironmentFault(f"database {path!r} cannot be opened: {error}") from error

    # -- both ------------------------------------------------------------------------------------------------------

    def _execute(self, sql: str) -> Any:
        if self.engine == "sqlite":
            return self.connection.execute(sql)
        statements = self.connection.extract_statements(sql)
        if len(statements) != 1:
            raise ValueError(f"{len(statements)} statements; give one at a time")
        if statements[0].type.name not in (*READ_TYPES, *(WRITE_TYPES if self.write else ())):
            raise ValueError(self.rule)
        return self.connection.execute(statements[0])  # what was looked at, not the text again

    def _fetch(self, cursor: Any, limit: int) -> dict[str, Any]:
        rows, size = list[list[Any]](), 0
        try:
            while cursor.description and (row := cursor.fetchone()) is not None:
                size += sum(len(str(value)) for value in row)
                if len(rows) == limit or size > self.chars:
                    return {"rows": rows, "more": True}
                rows.append([_json(value) for value in row])
            return {"rows": rows, "more": False}
        finally:
            if self.engine == "sqlite":
                cursor.close()  # so that nothing stays half read; DuckDB's is the connection itself

    def _in_words(self, error: Exception) -> str:
        text = str(error)
        if "interrupted" in text.lower():
            return f"interrupted after {self.seconds:g} s; ask for less"
        if "not authorized" in text or "prohibited" in text or "read-only mode" in text:
            return self.rule
        return text


def table(result: dict[str, Any], width: int = 100) -> str:
    """A result as text, one row a line.

    width: characters of a value, beyond which it is cut.

    >>> print(table({"columns": ["item", "n"], "rows": [["lamp", 3], ["mug", None]], "more": True}))
    item | n
    lamp | 3
    mug | NULL
    (2 rows are shown; there are more)
    """
    lines = [" | ".join(result["columns"])] if result["columns"] else ["done"]
    for row in result["rows"]:
        texts = ["NULL" if value is None else str(value) for value in row]
        lines.append(" | ".join(text if len(text) <= width else f"{text[:width]}..." for text in texts))
    if result["more"]:
        lines.append(f"({len(result['rows'])} rows are shown; there are more)")
    elif result["columns"] and not result["rows"]:
        lines.append("(no rows)")
    return "\n".join(lines)


def _json(value: Any) -> Any:
    """A value of either engine as JSON has it: decimals are numbers, dates are ISO text, bytes are hexadecimal."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, decimal.Decimal):
        return float(value)
    if isinstance(value, (datetime.date, datetime.time)):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, bytes):
        return f"0x{value.hex()}"
    if isinstance(value, dict):
        return {str(key): _json(item) for key, item in value.items()}
    return [_json(item) for item in value] if isinstance(value, Sequence) else str(value)


def _import_duckdb() -> Any:
    try:
        import duckdb
    except ImportError as error:
        raise missing_extra("sql", "duckdb") from error
    return duckdb
