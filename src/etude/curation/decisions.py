"""Trajectories as series of decisions: at each step several actions to choose from, one of which was taken.

Higher-order action synthesis, AgentFounder, Su et al. 2025, "Scaling Agents via Continual Pre-training",
arXiv:2509.13310: context, options 1..N with the original at a random place, "I choose option n", what it led to, and at
the end whether it was right; the loss is on the whole text.
Departures: the other options are actions of other episodes with the same tools, instead of a model's; the request and
the system's words are context.
"""

import numpy as np

from etude.core.parts import part
from etude.curation.base import answers, log, saying, split_episodes, wording
from etude.trajectory import Message, Trajectory


@part
def decisions(trajectories: list[Trajectory], *, options: int = 4, seed: int = 0) -> list[Trajectory]:
    """The same trajectories, then one text for each episode in which there was something to choose.

    options: most at each step, the original's among them; fewer where the data has no others for these tools.
    seed: of the others and of the original's place.

    Nothing is played. A text has `meta["synthetic"] = "decisions"`, and the places of the originals, from 1, in
    `meta["chosen"]`.
    """
    random = np.random.default_rng(seed)
    alone = [one for t in trajectories if "synthetic" not in t.meta for one in split_episodes(t)]
    actions: dict[str, set[str]] = {}  # wording -> the tools that it takes
    for one in alone:
        for m, _ in answers(one):
            message = one.messages[m]
            if message.tool_calls:
                actions.setdefault(wording(message), {call.name for call in message.tool_calls})
    texts = [text for one in alone if (text := _text(one, actions, options, random)) is not None]
    log.info("decisions: %d texts of %d episodes", len(texts), len(alone))
    return [*trajectories, *texts]


def _text(
    one: Trajectory, actions: dict[str, set[str]], options: int, random: np.random.Generator
) -> Trajectory | None:
    offered = {tool["name"] for tool in one.tools}
    lines: list[str] = []
    chosen: list[int] = []
    for m, results in answers(one):
        right = wording(one.messages[m])
        others = sorted(a for a, names in actions.items() if a != right and names <= offered)
        drawn = [others[i] for i in random.permutation(len(others))[: options - 1]]
        place = int(random.integers(len(drawn) + 1))
        drawn.insert(place, right)
        lines += [f"Option {n}: {action}" for n, action in enumerate(drawn, 1)]
        lines += [f"I choose option {place + 1}.", *(f"Result: {result.content}" for result in results)]
        chosen.append(place + 1)
    if not any(line.startswith("Option 2: ") for line in lines):
        return None  # there never was another
    lines.append(f"My decision is {'correct' if one.episodes[0].reward else 'incorrect'}.")
    dialogue = one.dialogue(one.episodes[0].leaf)
    begin = next(i for i, message in enumerate(dialogue) if message.role == "assistant")
    text = saying(one, [*dialogue[:begin], Message("assistant", "\n".join(lines))])
    text.id, text.tools = f"{one.id}!", []
    text.meta = one.meta | {"synthetic": "decisions", "chosen": chosen}
    return text
