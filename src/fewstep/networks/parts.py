"""Which parts a network has, by name and place: read from how it is built, without running it.

The blocks of a UNet are its down, middle and up blocks; those of a transformer its stacks, the first, second and last
third of which count as encoder, middle and decoder.  A self-attention is ours, or a module with to_q, to_k and to_v
that is told nothing of another sequence.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from fewstep.networks.attention import SelfAttention

KINDS = ("attention", "block", "skip")
PLACES = ("encoder", "middle", "decoder")


@dataclass(frozen=True)
class Part:
    """A named part of a network.

    Args:
        name: the dotted path of its module.
        kind: "attention", "block" or "skip".
        place: "encoder", "middle" or "decoder".
        module: the module whose call is watched.
        main: for a skip, how many channels of the module's input come before it, from the main path.
        text_first: for an attention joint with text, whether the tokens of the text come first.
    """

    name: str
    kind: str
    place: str
    module: nn.Module
    main: int = 0
    text_first: bool = False


ENDS: Mapping[str, str] = {
    "down": "encoder", "down_blocks": "encoder", "middle": "middle", "mid_block": "middle", "up": "decoder",
    "up_blocks": "decoder",
}  # fmt: skip
STACKS = ("blocks", "transformer_blocks", "single_transformer_blocks")


def parts_of(network: nn.Module) -> tuple[Part, ...]:
    """The self-attentions, blocks and skips of a network, each kind in the order of its modules."""
    return (*_attentions(network), *_blocks(network), *_skips(network))


def _stacked(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """The blocks of a transformer in their order, with their names."""
    stacks = [(n, m) for n, m in network.named_children() if n in STACKS and isinstance(m, nn.ModuleList)]
    return [(f"{n}.{i}", block) for n, stack in stacks for i, block in enumerate(stack)]


def _blocks(network: nn.Module) -> list[Part]:
    stacked = _stacked(network)
    found = [Part(n, "block", PLACES[3 * i // len(stacked)], block) for i, (n, block) in enumerate(stacked)]
    for name, child in network.named_children():
        if name in ENDS:
            inner = [(name, child)]
            if isinstance(child, nn.ModuleList):
                inner = [(f"{name}.{i}", block) for i, block in enumerate(child)]
            found += [Part(n, "block", ENDS[name], block) for n, block in inner]
    return found


def _is_self_attention(module: nn.Module) -> bool:
    theirs = all(hasattr(module, n) for n in ("to_q", "to_k", "to_v", "heads"))
    return isinstance(module, SelfAttention) or (theirs and not getattr(module, "is_cross_attention", False))


def _attentions(network: nn.Module) -> list[Part]:
    found = []
    for block in _blocks(network):
        single = block.name.startswith("single_")
        for inner, module in block.module.named_modules():
            if not _is_self_attention(module):
                continue
            name = f"{block.name}.{inner}" if inner else block.name
            # Only the single block of Flux, which joins text and picture itself, is told how many tokens are a text's.
            first = single or type(module).__name__.startswith("Flux")
            found.append(Part(name, "attention", block.place, block.module if single else module, text_first=first))
    return found


def _skips(network: nn.Module) -> list[Part]:
    ups = [(n, m) for n, m in network.named_children() if ENDS.get(n) == "decoder"]
    if not ups or not isinstance(ups[0][1], nn.ModuleList):
        return []
    name, blocks = ups[0]
    found, width = [], _width(network.get_submodule("middle" if name == "up" else "mid_block"))
    for i, block in enumerate(blocks.children()):
        inner = [(f"{name}.{i}", block)]
        if name == "up_blocks":
            inner = [(f"{name}.{i}.resnets.{j}", m) for j, m in enumerate(block.get_submodule("resnets").children())]
        for part, module in inner:
            found.append(Part(part, "skip", "decoder", module, main=width))
            width = _width(module)
    return found


def _width(module: nn.Module) -> int:
    """The channels that come out of a block: those of its last convolution to the main path."""
    convolutions = [m for n, m in module.named_modules() if n.split(".")[-1] == "conv2" and isinstance(m, nn.Conv2d)]
    return convolutions[-1].out_channels
