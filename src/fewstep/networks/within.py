"""A network within another: what stands around a plain network hands its input on in other channels."""

from typing import Any

from torch import nn


def built_within(network: dict[str, Any], channels: int, classes: int) -> nn.Module:
    """The network that `network` describes, {"kind": …} and its arguments.

    Args:
        network: as `fewstep.networks.build` takes it.
        channels, classes: what it must have.

    Raises:
        ValueError: it has other channels or classes.
    """
    from fewstep.networks import build

    made = build(network)
    config: Any = made.config
    if config.get("channels") != channels or config.get("classes") != classes:
        raise ValueError(f"the network within needs {channels} channels and {classes} classes, got {config}")
    return made
