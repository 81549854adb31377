"""What may come next in an answer that follows a grammar, by the library llguidance.

Every request has a matcher of its own, which its sampled tokens advance; what else is in the batch, and which keys and
values it goes on from, changes nothing. Stop tokens are allowed only where the grammar is complete, other special
tokens only where it names them.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from etude.core.errors import PolicyError, missing_extra
from etude.protocols import Grammar

SPACES: Any = {"whitespace_pattern": r"[ \n]{1,8}"}  # between JSON's tokens; without end, a weak model never writes on


class Matchers:
    """Makes the matchers of one tokenizer; call it with a grammar."""

    def __init__(self, tokenizer: Any, stop_ids: Iterable[int], vocabulary: int):
        """tokenizer: a transformers fast tokenizer. vocabulary: width of the model's logits, padding included."""
        self.tokenizer, self.stop_ids, self.vocabulary = tokenizer, sorted(stop_ids), vocabulary
        self._compiled: Any = None

    def __call__(self, grammar: Grammar) -> "Matcher":
        """Raises PolicyError for a grammar that cannot be read, MissingExtra without llguidance."""
        try:
            from llguidance import LLMatcher, hf
        except ImportError as error:
            raise missing_extra("grammar", "llguidance") from error
        if self._compiled is None:  # takes a second for a large vocabulary
            self._compiled = hf.from_tokenizer(self.tokenizer, n_vocab=self.vocabulary, eos_token=self.stop_ids)
        read = {
            "json": lambda text: LLMatcher.grammar_from_json_schema(text, overrides=SPACES),
            "regex": LLMatcher.grammar_from_regex,
            "lark": LLMatcher.grammar_from_lark,
        }
        if grammar.kind not in read:
            raise PolicyError("a grammar of kind 'calls' is made by the policy that knows the tools; use its `act`")
        try:
            matcher = LLMatcher(self._compiled, read[grammar.kind](grammar.text), log_level=0)
            problem = matcher.get_error()
        except ValueError as error:
            raise PolicyError(f"the {grammar.kind} grammar cannot be read: {error}: {grammar.text[:200]}") from error
        if problem:
            raise PolicyError(f"the {grammar.kind} grammar cannot be read: {problem}: {grammar.text[:200]}")
        return Matcher(matcher, self.vocabulary)


class Matcher:
    """Where one answer stands in its grammar."""

    def __init__(self, matcher: Any, vocabulary: int):
        self._matcher, self._vocabulary = matcher, vocabulary

    def allowed(self) -> np.ndarray:
        """bool [V]; the tokens that may come next, never none. Raises PolicyError where no token of the model fits."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        allowed_V = np.unpackbits(bits, count=self._vocabulary, bitorder="little").astype(bool)
        if self._matcher.is_error() or not allowed_V.any():
            raise PolicyError(f"no token continues the grammar: {self._matcher.get_error() or 'vocabulary too small'}")
        return allowed_V

    def advance(self, token: int) -> None:
        """Go on by a token that `allowed` allowed."""
        self._matcher.consume_token(token)
