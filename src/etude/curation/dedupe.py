"""Drop episodes that say what another has said.

Two dialogues are near-duplicates when the Jaccard similarity of their word shingles reaches a threshold: Broder 1997,
doi.org/10.1109/SEQUEN.1997.666900. Pairs are found by prefix filtering, Chaudhuri et al. 2006,
doi.org/10.1109/ICDE.2006.9: with its shingles ordered from rare to common, a set of n can only be that similar to
another if their first n - ceil(threshold n) + 1 shingles meet.
Departures: similarity is computed exactly for every pair that passes, not estimated by MinHash.
"""

import json
import math
from collections import Counter, defaultdict

from etude.core.errors import RecipeError
from etude.core.parts import part
from etude.curation.base import keep_episodes, log
from etude.trajectory import Message, Trajectory

EPSILON = 1e-9  # so that rounding does not lose a pair exactly at the threshold


@part
def dedupe(trajectories: list[Trajectory], *, threshold: float = 0.9, shingle: int = 5) -> list[Trajectory]:
    """The same trees without the episodes whose dialogue repeats an earlier one that is kept.

    threshold: smallest Jaccard similarity, in (0, 1], that counts as a repetition; 1 drops exact repetitions only.
    shingle: words per shingle.

    Text is compared without regard to case and spacing. Numbers count: another amount is another task. The first of
    several is kept; a trajectory that keeps no episode is dropped. The counts are logged.
    Raises RecipeError for a threshold outside (0, 1].
    """
    if not 0 < threshold <= 1:
        raise RecipeError(f"curation/dedupe: threshold={threshold} is not in (0, 1]; 1 drops exact repetitions only")
    words = [_words(t.dialogue(e.leaf)) for t in trajectories for e in t.episodes]
    keep = _first_of_each(words, threshold, shingle)
    log.info("dedupe: kept %d of %d episodes", sum(keep), len(keep))
    rest, kept = iter(keep), []
    for trajectory in trajectories:
        chosen = keep_episodes(trajectory, [next(rest) for _ in trajectory.episodes])
        if chosen is not None:
            kept.append(chosen)
    return kept


def _words(dialogue: list[Message]) -> tuple[str, ...]:
    """Everything that was said and called, normalised."""
    pieces = []
    for message in dialogue:
        calls = [f"{c.name} {json.dumps(c.arguments, sort_keys=True)}" for c in message.tool_calls]
        pieces += [f"{message.role}:", message.thought, message.content, *calls]
    return tuple(" ".join(pieces).lower().split())


def _first_of_each(texts: list[tuple[str, ...]], threshold: float, shingle: int) -> list[bool]:
    """Whether each text is unlike every kept text before it."""
    sets = [{t[i : i + shingle] for i in range(max(len(t) - shingle + 1, 1))} for t in texts]
    frequency = Counter(s for shingles in sets for s in shingles)
    seen: set[tuple[str, ...]] = set()
    holders: dict[tuple[str, ...], list[int]] = defaultdict(list)  # rare shingle -> kept texts that have it
    keep = []
    for i, (text, shingles) in enumerate(zip(texts, sets, strict=True)):
        rare_first = sorted(shingles, key=lambda s: (frequency[s], s))
        prefix = rare_first[: len(shingles) - math.ceil(threshold * len(shingles) - EPSILON) + 1]
        rivals = {j for s in prefix for j in holders[s]} if threshold < 1 else set()
        unlike = all(len(shingles & sets[j]) < threshold * len(shingles | sets[j]) - EPSILON for j in rivals)
        keep.append(text not in seen and unlike)
        if keep[-1]:
            seen.add(text)
            for s in prefix:
                holders[s].append(i)
    return keep
