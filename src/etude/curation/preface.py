"""Put a prompt before what is to be learnt: how to read the text that follows.

Contextual fine-tuning, Choi et al. 2025, "Teaching LLMs How to Learn with Contextual Fine-Tuning", arXiv:2503.09032:
    L = -sum_t log p(x_t | c, x_<t),  c drawn from a small set of prompts;  none at test time
The prompt is context: its tokens carry no weight. Without prompts nothing changes, and this is continued pre-training.
Departures: the prompt joins the user's message before the text, where a chat template wants one.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from etude.core.errors import PartError
from etude.core.parts import part
from etude.curation.base import untokenised, value_of
from etude.trajectory import Trajectory

PROMPTS = (
    "Think about how the next text could be used.",
    "Relate the next text to what you already know.",
    "Question what the next text claims.",
    "Put the next text into your own words.",
    "Look for what the next text has in common with others.",
)


@part
def preface(
    trajectories: list[Trajectory],
    *,
    prompts: Sequence[str] = PROMPTS,
    shuffle: bool = False,
    domain: str = "",
    seed: int = 0,
) -> list[Trajectory]:
    """The same trajectories, a prompt before the first user message of each.

    prompts: of which one is drawn for each trajectory; none at all changes nothing.
    shuffle: mix the words of each prompt, a control that keeps its tokens and not its meaning.
    domain: only trajectories whose meta has this domain; '' means all.
    seed: of the draw and of the order of words.
    Raises PartError for a trajectory without a user message.
    """
    if not prompts:
        return list(trajectories)
    random = np.random.default_rng(seed)
    made = []
    for trajectory in trajectories:
        words = prompts[int(random.integers(len(prompts)))].split()
        order = random.permutation(len(words))
        if domain and value_of(trajectory, "domain") != domain:
            made.append(trajectory)
            continue
        prompt = " ".join(words[i] for i in order) if shuffle else " ".join(words)
        first = next((m for m, message in enumerate(trajectory.messages) if message.role == "user"), None)
        if first is None:
            raise PartError(f"curation/preface: trajectory {trajectory.id} has no user message to put a prompt before")
        messages = list(trajectory.messages)
        messages[first] = dataclasses.replace(messages[first], content=f"{prompt}\n{messages[first].content}")
        made.append(dataclasses.replace(untokenised(trajectory), messages=messages))
    return made
