"""Guides: they change what the denoiser says."""

from fewstep.guidance.base import LEVELS, Ask, Guide
from fewstep.guidance.cfg import CFG

__all__ = ["CFG", "LEVELS", "Ask", "Guide"]
