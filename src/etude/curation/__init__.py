"""Trajectories -> trajectories: choose, edit, schedule; and preflight, which looks before training."""

from etude.core.parts import as_shelf

as_shelf(__name__)
