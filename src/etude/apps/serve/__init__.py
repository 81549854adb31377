"""Etude's things served to other programs."""
