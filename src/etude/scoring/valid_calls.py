"""The share of calls that fit the description of a tool: the first stage of Environment Tuning's curriculum.

Lu et al. 2025, arXiv:2510.10197, reward form before outcome: a well-formed answer (scoring/format) and valid calls.
Departures: whether a call is run is left to the world, which may refuse a valid one.
"""

from __future__ import annotations

from dataclasses import dataclass

from jsonschema import Draft202012Validator

from etude.core.parts import part
from etude.scoring.base import steps
from etude.trajectory import Episode, ToolCall, Trajectory


@part
@dataclass
class valid_calls:
    """Calls that fit / calls, those that could not be read included; 0 where nothing was called.

    A call fits where there is a tool of that name, and its arguments are those that the tool describes, of the right
    types.
    """

    range = (0.0, 1.0)

    async def __call__(self, trajectory: Trajectory, episode: Episode) -> float:
        nodes = [trajectory.nodes[n] for n, _ in steps(trajectory, episode)]
        calls = [call for node in nodes for call in trajectory.messages[node.message].tool_calls]
        unread = sum("malformed" in node.scores for node in nodes)
        schemas = {tool["name"]: {"additionalProperties": False, **tool["parameters"]} for tool in trajectory.tools}
        return sum(_fits(schemas, call) for call in calls) / max(1, len(calls) + unread)


def _fits(schemas: dict[str, dict], call: ToolCall) -> bool:
    return call.name in schemas and Draft202012Validator(schemas[call.name]).is_valid(call.arguments)
