"""`etude env serve`: an environment for other programs' agents."""

import argparse
import os
import secrets

from etude.apps.cli.merge import setting


def env(args: argparse.Namespace) -> int:
    """Serve an environment as an MCP server, until the client hangs up or Ctrl-C."""
    from etude.apps.serve import mcp
    from etude.core import recipe

    environment = recipe.build("environments", {args.name: dict(map(setting, args.set))})
    served = mcp.server(environment, split=args.split, task=args.task)
    if args.http:
        token = args.token or os.environ.get("ETUDE_TOKEN") or secrets.token_urlsafe(24)
        mcp.over_http(served, port=args.port, token=token)
    else:
        mcp.over_stdio(served)
    return 0
