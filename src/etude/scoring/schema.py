"""Whether the final answer, or the last call, is the JSON that was asked for."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import jsonschema

from etude.core.errors import PartError
from etude.core.parts import part
from etude.scoring.base import accepted_answers, final_answer, turns
from etude.trajectory import Episode, Trajectory


@part
@dataclass
class schema:
    """1 if the JSON validates, else 0; text that is no JSON scores 0.

    Raises PartError for an invalid schema, or for a `read` other than these.
    """

    schema: dict[str, Any] | None = None
    """JSON Schema. Without one, the value must equal one of `meta["answer"]`, each JSON or text that holds it."""
    read: str = "answer"
    """`answer`: the final answer, bare or in a code fence; `call`: the last call's `{name, arguments}`."""

    range = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.read not in ("answer", "call"):
            raise PartError(f"scoring/schema: read is {self.read!r}; it can be 'answer' or 'call'")
        try:
            jsonschema.Draft202012Validator.check_schema(self.schema or {})
        except jsonschema.SchemaError as error:
            raise PartError(f"scoring/schema: not a JSON Schema at {error.json_path}: {error.message}") from error

    async def __call__(self, trajectory: Trajectory, episode: Episode) -> float:
        """Raises ScoreError where neither a schema nor `meta["answer"]` is given."""
        wanted = self.schema
        if wanted is None:
            golds = [json.loads(g) if isinstance(g, str) else g for g in accepted_answers(trajectory)]
            wanted = {"enum": golds}  # JSON's equality: 1 is 1.0 but not true
        if self.read == "call":
            calls = [call for turn in turns(trajectory, episode) for call in turn.tool_calls]
            if not calls:
                return 0.0
            value = {"name": calls[-1].name, "arguments": calls[-1].arguments}
        else:
            answer = final_answer(trajectory, episode)
            fenced = re.search(r"```(?:json)?\s*\n(.*?)```", answer, re.DOTALL)
            try:
                value = json.loads(fenced[1] if fenced else answer)
            except ValueError:
                return 0.0
        return float(jsonschema.Draft202012Validator(wanted).is_valid(value))
