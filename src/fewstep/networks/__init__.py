"""The few architectures that fewstep needs itself."""

from typing import Any

from torch import nn

from fewstep.errors import WeightsError
from fewstep.networks.attention import SelfAttention
from fewstep.networks.bridged import BridgedNetwork
from fewstep.networks.classifier import Classifier
from fewstep.networks.dit import DiT
from fewstep.networks.latent import LatentNetwork
from fewstep.networks.masked import MaskedNetwork
from fewstep.networks.unet import UNet
from fewstep.networks.vae import VAE
from fewstep.networks.variance import VarianceNetwork

NETWORKS: dict[str, type[nn.Module]] = {
    "unet": UNet, "dit": DiT, "classifier": Classifier, "vae": VAE, "latent": LatentNetwork,
    "masked": MaskedNetwork, "bridged": BridgedNetwork, "variance": VarianceNetwork,
}  # fmt: skip

__all__ = [
    "NETWORKS", "VAE", "BridgedNetwork", "Classifier", "DiT", "LatentNetwork", "MaskedNetwork", "SelfAttention", "UNet",
    "VarianceNetwork", "build",
]  # fmt: skip


def build(config: dict[str, Any]) -> nn.Module:
    """The network that `config` describes: {"kind": a known network, and its arguments}.

    Raises:
        WeightsError: the kind is unknown or the arguments are not that network's.
    """
    if not isinstance(config, dict):
        raise WeightsError(f"a network is described by an object with a 'kind', got {config!r:.80}")
    arguments = dict(config)
    kind = arguments.pop("kind", None)
    if not isinstance(kind, str) or kind not in NETWORKS:
        raise WeightsError(f"unknown network {kind!r}; known: {', '.join(NETWORKS)}")
    try:
        return NETWORKS[kind](**arguments)
    except (TypeError, ValueError, IndexError, RuntimeError, ZeroDivisionError) as error:
        raise WeightsError(f"network {kind!r} cannot be built from {arguments}: {error}") from error
