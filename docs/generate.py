"""Writes the generated blocks of the pages: `python docs/generate.py`.

A block stands between `<!-- generated: NAME -->` and `<!-- end -->` and comes from the code that it describes.
"""

import argparse
import ast
import re
from pathlib import Path

DOCS = Path(__file__).parent
BLOCK = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def cli() -> str:
    """Every verb of the command line with its arguments."""
    from etude.apps.cli.main import parser

    verbs = next(action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    return "\n\n".join(_verb(name, verb) for name, verb in verbs.choices.items())


def _verb(name: str, verb: argparse.ArgumentParser) -> str:
    actions = [action for action in verb._actions if action.dest not in ("help", "json")]
    positional = [action for action in actions if not action.option_strings]
    usage = " ".join(["etude", name, *(_shape(action) for action in positional)])
    rows = [(f"`{_call(action)}`", action.help or "") for action in actions]
    parts = [f"## {name}", verb.description or "", f"```\n{usage}\n```"]
    return "\n\n".join([*parts, table(("argument", "what"), rows)] if rows else parts)


def _call(action: argparse.Action) -> str:
    """`recipe`, or `--out DIR`."""
    if not action.option_strings:
        return _name(action)
    takes = "" if action.nargs == 0 else f" {_name(action)}"
    return action.option_strings[-1] + takes


def _name(action: argparse.Action) -> str:
    if action.choices:
        return "|".join(map(str, action.choices))
    return str(action.metavar or (action.dest.upper() if action.option_strings else action.dest))


def _shape(action: argparse.Action) -> str:
    name = _name(action)
    return {"*": f"[{name} ...]", "+": f"{name} ...", "?": f"[{name}]"}.get(str(action.nargs), name)


def preflight() -> str:
    """Every finding: what preflight says, and what to do."""
    from etude.curation.preflight import TEXTS

    rows = [(f"`{code}`", f"… {cause}", cure[0].upper() + cure[1:]) for code, (cause, cure) in TEXTS.items()]
    return table(("code", "samples that …", "what to do"), rows)


def tolerances() -> str:
    """How much worse each loss may become."""
    from etude.evaluation.report import NOUNS, RELATIVE, TOLERANCES

    rows = [
        (name, f"{limit:g}" + (" of the value before" if name in RELATIVE else ""), NOUNS[name])
        for name, limit in TOLERANCES.items()
    ]
    return table(("row", "tolerance", "items"), rows)


def verdicts() -> str:
    """The exit code of each verdict."""
    from etude.evaluation.report import EXIT_CODES

    when = {
        "better": "success is better, and nothing is lost",
        "narrower": "success is better, and something is lost",
        "no different": "success is not better, and nothing is lost",
        "worse": "success is not better, and something is lost; or success itself is lost",
    }
    return table(("verdict", "when", "exit code"), [(v, when[v], str(code)) for v, code in EXIT_CODES.items()])


def formats() -> str:
    """Every format, from the first line of its module."""
    from etude.trajectory.formats import FORMATS, base

    def title(name: str) -> str:
        source = Path(base.__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
        return (ast.get_docstring(ast.parse(source)) or "").split("\n\n")[0].replace("\n", " ")

    return table(("format", "what a row is"), [(f"`{name}`", title(name)) for name in FORMATS])


def schema() -> str:
    """The columns of a trajectory shard."""
    from etude.trajectory.store import schema

    lines = []
    for field in schema():
        lines += _field(field.name, field.type, "")
    return "```\n" + "\n".join(lines) + "\n```"


def _field(name: str, kind, indent: str) -> list[str]:
    import pyarrow.types as kinds

    many = kinds.is_list(kind)
    inner = kind.value_type if many else kind
    if not kinds.is_struct(inner):
        return [f"{indent}{name:<{24 - len(indent)}}{'list of ' if many else ''}{inner}"]
    nested = [line for field in inner for line in _field(field.name, field.type, indent + "  ")]
    return [f"{indent}{name:<{24 - len(indent)}}{'list of' if many else 'struct'}", *nested]


def worlds() -> str:
    """What is known of each world, from `evidence/worlds`."""
    from etude.apps import worlds
    from etude.apps.cli.env import mean
    from etude.core import parts

    built_in, rows = parts.find("environments"), []
    for name, known in sorted(worlds.evidence(DOCS.parent / "evidence").items()):
        part = worlds.part_of(name)
        counts = " / ".join(f"{known['tasks'].get(split, 0):,}" for split in ("train", "dev", "test"))
        scores = [mean(known.get(what)) for what in ("nothing", "random", "gold")]
        models = [f"{m} {mean(one)} [{mean(one, 'low')}, {mean(one, 'high')}]" for m, one in known["models"].items()]
        failed = [check for check, outcome in known["checks"].items() if outcome["result"] == "failed"]
        told = [counts, *scores, ", ".join(models) or "-", ", ".join(failed) or "none"]
        told.append(f"{known['step_ms']:.2g}" if known.get("step_ms") is not None else "-")
        install = f"`{worlds.command(part)}`" if worlds.command(part) else "comes with etude"
        rows.append((f"`{known['world']}`", built_in[part].title, *told, install))
    head = ("world", "what", "train / dev / test", "nothing", "random", "gold", "model", "failed", "ms/step", "install")
    return table(head, rows)


def conformance() -> str:
    """Every check, and what it asks of a world."""
    from etude.evaluation.conformance import CHECKS

    rows = [(f"`{n}`", " ".join(str(judge.__doc__).split()), ", ".join(needs)) for n, (judge, needs) in CHECKS.items()]
    return table(("check", "what must hold", "judged where these passed"), rows)


BLOCKS = {"cli": cli, "preflight": preflight, "tolerances": tolerances, "verdicts": verdicts}
BLOCKS |= {"formats": formats, "schema": schema, "worlds": worlds, "conformance": conformance}


def updated(text: str) -> str:
    """A page with its generated blocks made anew."""
    return BLOCK.sub(lambda match: f"{match[1]}\n{BLOCKS[match[2]]()}\n\n{match[3]}", text)


if __name__ == "__main__":
    for page in sorted(DOCS.rglob("*.md")):
        before = page.read_text(encoding="utf-8")
        if (after := updated(before)) != before:
            page.write_text(after, encoding="utf-8")
            print(f"{page} written")
