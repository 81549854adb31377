"""The `messages` and `tools` columns of Hugging Face chat data: OpenAI's, with the arguments of calls as objects.

In Parquet, which has no object with free keys, arguments and tools are JSON text; both are read.
"""

from typing import Any

from etude.trajectory.formats import openai
from etude.trajectory.formats.dialogue import read_arguments
from etude.trajectory.graph import Trajectory

read = openai.read


def matches(row: dict[str, Any]) -> bool:
    return isinstance(row.get("messages"), list) and openai.dict_arguments(row["messages"])


def write(trajectory: Trajectory) -> dict[str, Any]:
    row = openai.write(trajectory)
    for message in row["messages"]:
        for call in message.get("tool_calls", []):
            call["function"]["arguments"] = read_arguments(call["function"]["arguments"], "")
        message["content"] = message["content"] or ""
    return row
