"""Messages <-> tokens: chat templates and masks, torch-free."""

from etude.rendering.renderer import Renderer, TrainOnWhat

__all__ = ["Renderer", "TrainOnWhat"]
