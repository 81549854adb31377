"""`etude env serve`: an environment for other programs' agents."""

import argparse
import os
import secrets

from etude.core.errors import EtudeError
from etude.evaluation import plays


def serve(args: argparse.Namespace) -> int:
    """Serve an environment as an MCP server, until the client hangs up or Ctrl-C."""
    from etude.apps.serve import mcp

    if len(args.worlds) != 1:
        raise EtudeError(f"env serve takes one world (given {len(args.worlds)}); `etude env list` shows them")
    served = mcp.server(plays.build(args.worlds[0]), split=args.split, task=args.task)
    if args.http:
        token = args.token or os.environ.get("ETUDE_TOKEN") or secrets.token_urlsafe(24)
        mcp.over_http(served, port=args.port, token=token)
    else:
        mcp.over_stdio(served)
    return 0
