"""What happened: the message graph, its store and its formats."""

from etude.trajectory.graph import (
    Boundary,
    Episode,
    Failure,
    Image,
    Message,
    Node,
    StopReason,
    ToolCall,
    Trajectory,
    episodes,
)

__all__ = [
    "Boundary",
    "Episode",
    "Failure",
    "Image",
    "Message",
    "Node",
    "StopReason",
    "ToolCall",
    "Trajectory",
    "episodes",
]
