"""Layers of a network left out at some times of a plan: of a residual layer only its shortcut remains.

    h ← shortcut(h) + f(h)      becomes      h ← shortcut(h)

Layers are the residual and attention blocks of our UNet and the blocks of our DiT, found in the blocks that
`networks.anatomy` names.  Which are left out at which answer stands in a plan's `skips`, and a program that is bound to
such a plan asks `skipping(denoiser, times, skips)`.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import Tensor, nn

from fewstep.denoisers.around import Around
from fewstep.denoisers.base import Denoiser
from fewstep.errors import ArgumentError
from fewstep.networks.anatomy import anatomy_of
from fewstep.networks.dit import TransformerBlock
from fewstep.networks.unet import Attend, Block

_LEFT_OUT: ContextVar[frozenset[str]] = ContextVar("layers left out", default=frozenset())
_LOCK = threading.Lock()


def layers_of(denoiser: Denoiser) -> dict[str, nn.Module]:
    """The layers of a denoiser's network that can be left out, by name, in their order.

    Raises:
        ArgumentError: the denoiser has no network, or one without such layers.
    """
    found: dict[str, nn.Module] = {}
    for part in anatomy_of(denoiser, "leaving out layers").parts:
        if part.kind == "block":
            for inner, module in part.module.named_modules():
                if isinstance(module, (Block, Attend, TransformerBlock)):
                    found[f"{part.name}.{inner}" if inner else part.name] = module
    if not found:
        raise ArgumentError("leaving out layers needs our UNet or DiT; the network has no layer that is known")
    return found


class _Tap:
    """Stands before a layer's forward while anybody leaves it out; other threads pass it untouched."""

    def __init__(self, name: str, module: nn.Module) -> None:
        self.name, self.module, self.own, self.users = name, module, module.__dict__.get("forward"), 1
        self.forward = module.forward

    def __call__(self, x: Tensor, *args: Any) -> Any:
        if self.name not in _LEFT_OUT.get():
            return self.forward(x, *args)
        return self.module.skip(x) if isinstance(self.module, Block) else x


@contextmanager
def left_out(layers: Mapping[str, nn.Module], names: Sequence[str]) -> Iterator[None]:
    """A context in which this thread's calls of the network go past the layers of these names.

    Args:
        layers: of `layers_of`.
        names: among them.
    """
    with _LOCK:
        for name in names:
            tap = layers[name].__dict__.get("forward")
            if isinstance(tap, _Tap):
                tap.users += 1
            else:
                layers[name].forward = _Tap(name, layers[name])  # type: ignore[method-assign]
    token = _LEFT_OUT.set(_LEFT_OUT.get() | frozenset(names))
    try:
        yield
    finally:
        _LEFT_OUT.reset(token)
        with _LOCK:
            for name in names:
                tap = layers[name].__dict__["forward"]
                tap.users -= 1
                if tap.users == 0 and tap.own is None:
                    del layers[name].__dict__["forward"]
                elif tap.users == 0:
                    layers[name].forward = tap.own  # type: ignore[method-assign]


class Skipping(Around):
    """A denoiser that leaves out some layers at some times; made by `skipping`.

    The time of each call is read on the host, once a step.
    """

    def __init__(self, denoiser: Denoiser, times: Tensor, skips: Sequence[Sequence[str]]) -> None:
        super().__init__(denoiser)
        self.layers, self.skips = layers_of(denoiser), [tuple(names) for names in skips]
        unknown = {name for names in self.skips for name in names} - self.layers.keys()
        if unknown:
            raise ArgumentError(f"the network has no layers {sorted(unknown)}; it has {', '.join(self.layers)}")
        self.places = denoiser.told(times).double()

    def raw(self, x: Tensor, told: Tensor, **cond: Any) -> Tensor:
        """The network's answer; at a time that is none of the plan's nothing is left out."""
        off = (self.places - float(told.flatten()[0])).abs()
        step = int(off.argmin())
        # Float32 times are near those that they were made of.
        near = float(off[step]) <= 1e-5 * (1 + float(self.places[step].abs()))
        with left_out(self.layers, self.skips[step] if near else ()):
            return self.inner.raw(x, told, **cond)


def skipping(denoiser: Denoiser, times: Tensor, skips: Sequence[Sequence[str]]) -> Denoiser:
    """The denoiser that leaves out layers at some times; itself where there is nothing to leave out.

    Args:
        denoiser: of our UNet or DiT, where anything is left out.
        times: (answers,), of a plan's answers.
        skips: for each of them the names of layers.

    Raises:
        ArgumentError: names that are no layers of the network.
    """
    return Skipping(denoiser, times, skips) if any(skips) else denoiser


def share_left_out(denoiser: Denoiser, skips: Sequence[Sequence[str]]) -> float:
    """The share of all layers of all steps that is left out."""
    return sum(map(len, skips)) / (len(skips) * len(layers_of(denoiser)))
