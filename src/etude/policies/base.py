"""What policies that sample token ids share: from a dialogue to a prompt, and from sampled ids to a message."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import numpy as np

from etude.core.errors import PolicyError
from etude.protocols import Action, Grammar, Sampling
from etude.rendering import Renderer, TrainOnWhat
from etude.rendering.notations import calls_grammar
from etude.trajectory import Message, Trajectory


async def act(
    policy: Any,
    submit: Callable[[np.ndarray, Sampling, int], Awaitable[Any]],
    trajectory: Trajectory,
    leaf: int | None,
    *,
    sampling: Sampling,
    seed: int,
) -> tuple[int, Action]:
    """See protocols.Policy.act. `submit` continues int32 ids, as `rollout.generator.Generator` does.

    policy: has `renderer`, `context` (most tokens of a conversation) and `version`.
    """
    if leaf is None:
        raise PolicyError("a language model needs at least one message to answer")
    renderer: Renderer = policy.renderer
    # what is not filled yet is context, an assistant's words among it: this policy did not sample them
    leaf = renderer.fill(trajectory, leaf, TrainOnWhat.CUSTOMIZED)
    leaf, prompt_ids_T = renderer.generation_prompt(trajectory, leaf)
    ids_P = np.concatenate([trajectory.ids_P(leaf), prompt_ids_T])
    if len(ids_P) >= policy.context:
        return leaf, Action(Message("assistant"), prompt_ids_T, ids_P[:0], truncated=True, version=policy.version)
    if sampling.grammar and sampling.grammar.kind == "calls":
        text = calls_grammar(trajectory.tools, renderer.notation) if trajectory.tools else ""
        sampling = replace(sampling, grammar=Grammar("lark", text) if text else None)
    version = policy.version  # the weights may move while this is being sampled
    got = await submit(ids_P, sampling, seed)
    message, problem = renderer.parse(got.ids_T, trajectory.tools)
    return leaf, Action(
        message,
        prompt_ids_T=prompt_ids_T,
        ids_T=got.ids_T,
        logprob_T=got.logprob_T,
        own_T=got.own_T,
        truncated=got.truncated,
        version=version,
        problem=problem,
    )
