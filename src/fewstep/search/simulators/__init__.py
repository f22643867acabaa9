"""Small simulators to design for: one that is differentiable, and one that is a black box."""

from fewstep.search.simulators.bead import Bead
from fewstep.search.simulators.channel_flow import ChannelFlow

__all__ = ["Bead", "ChannelFlow"]
