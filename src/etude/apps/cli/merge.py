"""`etude merge`: several models become one."""

import argparse
from typing import Any

import yaml

from etude.apps.cli.output import print_json
from etude.core.errors import MergeError
from etude.core.recipe import parse


def merge(args: argparse.Namespace) -> int:
    """Merge the models and say what was written."""
    from etude.apps.merge import merge as merge_models

    settings = dict(setting(text) for text in args.set)
    method = {args.method: settings}
    record = merge_models(args.models, method=method, base=args.base, out=args.out, shard_gb=args.shard_gb)
    if args.json:
        print_json(record)
        return 0
    for note in record["notes"]:
        print(f"note: {note}")
    count = f"{record['tensors']} tensors, {record['parameters']:,} parameters of {len(args.models)} models"
    print(f"{count} merged by {record['method']}; use the result with  policy={args.out}")
    return 0


def setting(text: str) -> tuple[str, Any]:
    """`density=0.3` -> its name and its value, read as YAML."""
    name, equals, value = text.partition("=")
    try:
        if name and equals:
            return name, parse(value)
    except yaml.YAMLError:
        pass
    raise MergeError(f"{text!r} is not a setting; write key=value, such as density=0.3 or weights=[0.5,0.5]")
