"""`etude arena`: policies against each other, and their ratings."""

import argparse
import asyncio
from typing import Any

from etude.apps.cli.output import print_json, print_table
from etude.core import recipe as recipes
from etude.core.errors import EtudeError
from etude.core.progress import progress

CHANCE = "chance"


def arena(args: argparse.Namespace) -> int:
    """Each two policies play; prints the ratings, the best first."""
    from etude.evaluation import arena as arenas
    from etude.evaluation.elo import ratings

    if len(names := list(dict.fromkeys(args.policies))) < 2:
        raise EtudeError(f"arena takes two policies or more (given {args.policies}); `{CHANCE}` is one that draws")
    loop = recipes.build("agents/loops", recipes.parse(args.agent))
    players = {name: arenas.Player(_policy(name), loop) for name in names}
    battles = args.battles * len(args.games) * len(names) * (len(names) - 1) // 2
    with progress(battles, "arena", "battles") as advance:
        played = asyncio.run(
            arenas.arena(players, games=args.games, battles=args.battles, seed=args.seed, on_battle=advance)
        )
    found = ratings(played.battles)
    if args.json:
        print_json({name: vars(rating) for name, rating in found.items()})
    else:
        rows = [[name, f"{r.mean:.0f}", f"[{r.low:.0f}, {r.high:.0f}]"] for name, r in found.items()]
        print_table(("policy", "rating", "95%"), rows)
    return 0


def _policy(name: str) -> Any:
    import etude
    from etude.evaluation.arena import chance

    return chance() if name == CHANCE else etude.policy(name)
