"""What follows from an action is trained as well: the world's answers to actions that the expert did not take.

Early Experience, Zhang et al. 2025, "Agent Learning via Early Experience", arXiv:2510.08558, implicit world modelling:
    L = -sum_(s, a, s') log p(s' | s, a)      over K actions of the policy in every state of the expert's, no rewards
AutoCoA, arXiv:2503.06580, has the same loss on the observations of the demonstrations themselves (`own`).
Departures: none.
"""

import dataclasses

import numpy as np

from etude.core.parts import part
from etude.curation.base import answers, as_context, log, split_episodes
from etude.trajectory import Message, Node, Trajectory


@part
def world_model(trajectories: list[Trajectory], *, own: bool = False) -> list[Trajectory]:
    """The expert's episodes, then one-episode trajectories that train what the world answered to another action.

    own: train what the world answered in the expert's own episodes, too, and the expert's answers with it.

    The actions come from the stage `branch` (`by: policy, turns: 1, group: K`); those that repeat the expert's or an
    earlier one in the same state are dropped, and those that ended the episode, for nothing follows. Such samples have
    `meta["world_model"]` and no reward. Preflight calls what they train `tool_result_trained`: allow that.
    """
    episodes = [one for t in trajectories for one in split_episodes(t)]
    experts = {one.id: one for one in episodes if "origin" not in one.meta}
    seen = {(one.id, k, _action(one.messages[m])) for one in experts.values() for k, (m, _) in enumerate(answers(one))}
    found = []
    for one in (one for one in episodes if "start" in one.meta):
        start = one.meta["start"]
        place = answers(one)[start : start + 1]
        action = (one.meta["origin"], start, _action(one.messages[place[0][0]])) if place else None
        if action is None or action in seen or not place[0][1]:
            continue
        seen.add(action)
        found.append(_observing(one, place[0][1]))
    log.info("world_model: %d other actions in the states of %d episodes", len(found), len(experts))
    return [*(_with_observations(one) if own else one for one in experts.values()), *found]


def _action(message: Message) -> str:
    calls = [(call.name, sorted(call.arguments.items(), key=str)) for call in message.tool_calls]
    return f"{message.content} {calls}"


def _observing(one: Trajectory, results: list[Message]) -> Trajectory:
    """What follows the last answer is trained, and nothing else; whatever came of it is forgotten."""
    nodes = []
    for node in one.nodes:
        observed = any(one.messages[node.message] is result for result in results)
        nodes.append(_observed(node) if observed else as_context(dataclasses.replace(node, reward=None)))
    episode = dataclasses.replace(one.episodes[0], reward=None, score=None, scores={}, stop=None)
    return dataclasses.replace(one, nodes=nodes, episodes=[episode], meta=one.meta | {"world_model": True})


def _with_observations(one: Trajectory) -> Trajectory:
    observed = {id(result) for _, results in answers(one) for result in results}
    nodes = [_observed(n) if id(one.messages[n.message]) in observed else n for n in one.nodes]
    return dataclasses.replace(one, nodes=nodes, meta=one.meta | {"world_model": True})


def _observed(node: Node) -> Node:
    trained_T = None if node.ids_T is None else np.ones(len(node.ids_T), bool)
    return dataclasses.replace(node, sampled_T=trained_T)
