"""Every error etude raises on purpose.

One tree, so that a program can catch `EtudeError` and a person always reads the offending value, its place, and what to
do next.
"""

import difflib
from collections.abc import Iterable


class EtudeError(Exception):
    """Base of all errors raised on purpose; the command line prints it without a traceback."""


class PartError(EtudeError):
    """A part was not found, or was given an argument that it does not take."""


class RecipeError(EtudeError):
    """A recipe holds a key or a value that cannot be used; the message names the key and the allowed ones."""


class MissingExtra(EtudeError):
    """An optional dependency is absent; the message is the exact install command."""


class TrajectoryError(EtudeError):
    """A trajectory is not a well-formed tree, or its per-token arrays do not line up."""


class FormatError(EtudeError):
    """A row of a log could not be read; carries the reason that the quarantine report prints."""


class RenderingError(EtudeError):
    """Messages could not be turned into tokens for this chat template, or tokens into a message."""


class EnvironmentFault(EtudeError):
    """An environment or one of its tools failed for a reason that is not the agent's."""


class ScoreError(EtudeError):
    """A score is NaN, infinite or outside its declared range."""


class CreditError(EtudeError):
    """A credit cannot be computed from this group."""


class PreflightError(EtudeError):
    """The data would train something other than what was asked for."""


class CheckpointError(EtudeError):
    """A checkpoint is incomplete or belongs to another run."""


class MergeError(EtudeError):
    """Models cannot be merged: they are not of one kind, or a setting does not fit them."""


class PolicyError(EtudeError):
    """A policy cannot be loaded or could not answer."""


def suggest(value: str, allowed: Iterable[str]) -> str:
    """The second half of a helpful message: the closest allowed value, then all of them.

    >>> suggest("gruop", ["group", "rloo"])
    "did you mean 'group'? There are: group, rloo"
    """
    allowed = sorted(allowed)
    close = difflib.get_close_matches(value, allowed, n=1, cutoff=0.5)
    there = f"There are: {', '.join(allowed)}" if allowed else "There are none."
    return f"did you mean {close[0]!r}? {there}" if close else there


def missing_extra(extra: str, package: str) -> MissingExtra:
    """The error to raise where an optional dependency is absent.

    >>> str(missing_extra("local", "torch"))
    "torch is not installed; run:  pip install 'etude[local]'"
    """
    return MissingExtra(f"{package} is not installed; run:  pip install 'etude[{extra}]'")
