"""Short answers compared by their words, as worlds and scorers both do.

Rajpurkar et al. 2016, "SQuAD: 100,000+ Questions for Machine Comprehension of Text", arXiv:1606.05250, section 6.1.
"""

import re
import string
from collections import Counter


def words(text: str) -> list[str]:
    """SQuAD's normalisation: lower case, no ASCII punctuation, no English articles, split at spaces.

    >>> words("The  Eiffel-Tower, Paris.")
    ['eiffeltower', 'paris']
    """
    bare = "".join(c for c in text.lower() if c not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", bare).split()


def overlap(answer: list[str], gold: list[str]) -> float:
    """F1 of two bags of words; two empty ones agree.

    >>> overlap(["red", "old", "car"], ["red", "car"])
    0.8
    """
    if not answer or not gold:
        return float(answer == gold)
    shared = sum((Counter(answer) & Counter(gold)).values())
    return 2 * shared / (len(answer) + len(gold))


def marked(text: str) -> str:
    """What stands after the last `Answer:`, or the whole text where there is none."""
    return text.rpartition("Answer:")[2].strip()
