"""Scored group -> one weight per episode: one file per method."""

from etude.core.parts import as_shelf

as_shelf(__name__)
