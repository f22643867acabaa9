"""Long runs: many samples into a folder of shards, which a kill does not harm."""

from fewstep.generation.run import Generated, generate
from fewstep.generation.verification import Verified, verify

__all__ = ["Generated", "Verified", "generate", "verify"]
