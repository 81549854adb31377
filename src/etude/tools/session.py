"""The Python session inside the sandbox: runs one piece of code after the other, with the same names.

`jail.py` starts its text with the sandbox's interpreter: the standard library alone. Descriptor 3 brings code, eight
bytes of length before each piece. On 4 a byte says that a piece is done, 0 or 1 for an exception, and eight more which
it was. The value of a last expression is printed.
"""

import ast
import contextlib
import linecache
import os
import sys
import traceback
from typing import Any


def run(code: str, names: dict[str, Any], place: str) -> bool:
    """Whether the code came to its end; an exception is printed as Python does."""
    linecache.cache[place] = (len(code), None, code.splitlines(keepends=True), place)
    try:
        body = ast.parse(code, place).body
        last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
        exec(compile(ast.Module(body, []), place, "exec"), names)
        value = eval(compile(ast.Expression(last.value), place, "eval"), names) if isinstance(last, ast.Expr) else None
        if value is not None:
            print(repr(value))
    except SystemExit as error:
        print(f"SystemExit: {error}. The session goes on.", file=sys.stderr)
        return not error.code
    except BaseException as error:
        trace = error.__traceback__.tb_next if error.__traceback__ else None
        traceback.print_exception(type(error), error, trace)
        return False
    return True


if __name__ == "__main__":
    sys.path.insert(0, "")
    names: dict[str, Any] = {"__name__": "__main__", "__builtins__": __builtins__}
    pieces, number = os.fdopen(3, "rb"), 0
    while length := pieces.read(8):
        number += 1
        code = pieces.read(int.from_bytes(length, "little")).decode(errors="replace")
        said = b"0" if run(code, names, f"<call {number}>") else b"1"
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # the code closed it
                stream.flush()
        os.write(4, said + number.to_bytes(8, "little"))
