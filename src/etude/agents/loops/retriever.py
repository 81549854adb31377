"""A ranking without a policy: what a learnt ranker has to beat.

The candidates are the lines `- name: text` of the last message of the world, and what stands before the first of
them there, or in an earlier message, is the query. They are all named, in the order of BM25 (Robertson & Zaragoza 2009)
over stemless lower-case words, or of the cosine of their meanings (MiniLM, Wang et al. 2020, arXiv:2002.10957; needs
the extra `corpus`). Equal scores stay in the order in which they were shown.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from etude.core.parts import part
from etude.protocols import Observation, Run
from etude.tools import embed, ranking
from etude.trajectory import Message

LINE = re.compile(r"^- (.+?): (.*)$", re.MULTILINE)


@part
@dataclass(frozen=True)
class retriever:
    """Answer every request to rank by a fixed score; the policy is never asked."""

    by: Literal["bm25", "minilm"] = "bm25"
    """What is compared: words or meanings."""

    async def __call__(self, run: Run, first: Observation) -> None:
        shown, query = first.messages, ""
        while not run.over:
            run.observe(*shown)
            asked = shown[-1].content
            found = LINE.findall(asked)
            start = LINE.search(asked)
            query = (asked[: start.start()] if start else asked).strip() or query
            score_N = self._scores(query, [f"{name} {text}" for name, text in found]) if found else []
            order = sorted(range(len(found)), key=lambda n: -score_N[n])
            answer = Message("assistant", ", ".join(found[n][0] for n in order))
            run.observe(answer)
            step = await run.step(answer)
            if step.done:
                return
            shown = step.observation.messages

    def _scores(self, query: str, texts: Sequence[str]) -> list[float]:
        if self.by == "bm25":
            return ranking.bm25(_words(query), [_words(text) for text in texts])
        vectors_ND = embed.minilm()([query, *texts])
        return np.asarray(vectors_ND[1:] @ vectors_ND[0], float).tolist()


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
