"""The parts of a network by name, so that a guide can read or replace what passes them, for one call.

Three kinds of part, each at a place (encoder, middle, decoder; of a transformer's blocks the first, second and last
third):

    attention    a self-attention, seen as (query, key, value) → what comes out before the output projection;
    block        a block of the network, seen as what it gives to the next;
    skip         what a decoder block of a UNet gets from the encoder beside the main path.

Our UNet and DiT are known, and diffusers' UNet2D, UNet2DCondition, DiT, SD3 and Flux (and networks built from the same
blocks).  A part is touched only inside `Anatomy.edit`, only in the thread that opened it, and the network is as it was
when the context is left, also by an exception.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fewstep.errors import ArgumentError, unknown
from fewstep.networks.parts import KINDS, PLACES, Part, parts_of


@dataclass(frozen=True)
class Attended:
    """What a self-attention is about to do.

    Args:
        query, key, value: (batch, heads, tokens, width).
        plain: (batch, heads, tokens, width), what it gives by itself.
        picture: which tokens are the picture's; the others are a text's.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    plain: Tensor
    picture: slice

    @property
    def weights(self) -> Tensor:
        """softmax(QKᵀ/√d), (batch, heads, tokens, tokens)."""
        return (self.query @ self.key.mT * self.query.shape[-1] ** -0.5).softmax(-1)


@dataclass(frozen=True)
class Edit:
    """What is done at a part.

    Args:
        part: where.
        change: gets an `Attended` (attention) or a tensor (block, skip) and gives what stands instead, of the shape of
            `plain` or of the tensor; None leaves it, so that a change that only reads gives None.
        rows: the rows of the batch that it sees and changes.
    """

    part: Part
    change: Callable[[Any], Tensor | None]
    rows: slice = field(default_factory=lambda: slice(None))


_OPEN: ContextVar[tuple[Edit, ...]] = ContextVar("open edits", default=())
_LOCK = threading.Lock()


def _changed(edit: Edit, seen: Any, whole: Tensor) -> Tensor:
    """`whole` with the edit's rows replaced by what its change gives for what is seen there."""
    new = edit.change(seen)
    if new is None:
        return whole
    old = whole[edit.rows]
    if new.shape != old.shape:
        raise ArgumentError(f"the change of {edit.part.name} must keep the shape {tuple(old.shape)}, got {new.shape}")
    out = whole.clone()
    out[edit.rows] = new
    return out


class _Attention(TorchFunctionMode):
    """Catches the one scaled_dot_product_attention of a self-attention; a mode is the thread's own."""

    def __init__(self, edits: list[Edit], text: int) -> None:
        super().__init__()
        self.edits, self.text, self.caught = edits, text, False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is not nn.functional.scaled_dot_product_attention:
            return out
        self.caught = True
        query, key, value = (args[i] if i < len(args) else kwargs[n] for i, n in enumerate(("query", "key", "value")))
        for edit in self.edits:
            picture = slice(self.text, None) if edit.part.text_first else slice(0, query.shape[2] - self.text)
            rows = edit.rows
            out = _changed(edit, Attended(query[rows], key[rows], value[rows], out[rows], picture), out)
        return out


class _Tap:
    """Stands before a module's forward while any thread has it open; other threads pass it untouched."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self.own, self.users = module, module.__dict__.get("forward"), 1
        self.forward = module.forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        edits: dict[str, list[Edit]] = {kind: [] for kind in KINDS}
        for edit in _OPEN.get():
            if edit.part.module is self.module:
                edits[edit.part.kind].append(edit)
        for edit in edits["skip"]:
            x, at = args[0], edit.part.main
            skip = _changed(edit, x[edit.rows, at:], x[:, at:])
            args = (torch.cat([x[:, :at], skip], 1), *args[1:])
        out = self._attended(edits["attention"], args, kwargs) if edits["attention"] else self.forward(*args, **kwargs)
        for edit in edits["block"]:
            whole, place = _picture_of(out)
            new = _changed(edit, whole[edit.rows], whole)
            out = new if place < 0 else (*out[:place], new, *out[place + 1 :])
        return out

    def _attended(self, edits: list[Edit], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        text = kwargs.get("encoder_hidden_states")
        with _Attention(edits, 0 if text is None else text.shape[1]) as mode:
            out = self.forward(*args, **kwargs)
        if not mode.caught:
            raise ArgumentError(
                f"{edits[0].part.name} did not call scaled_dot_product_attention, so it cannot be read; "
                "give the network an attention processor that does"
            )
        return out


def _picture_of(out: Any) -> tuple[Tensor, int]:
    """The tensor of the picture in what a block gives, and its place where that is a tuple; −1 where it is not."""
    if isinstance(out, Tensor):
        return out, -1
    # A joint block gives (text, picture); a block of a UNet's encoder (picture, what it hands on).
    at = 1 if isinstance(out[1], Tensor) else 0
    return out[at], at


@contextmanager
def _tapped(modules: Sequence[nn.Module]) -> Iterator[None]:
    with _LOCK:
        for module in modules:
            tap = module.__dict__.get("forward")
            if isinstance(tap, _Tap):
                tap.users += 1
            else:
                module.forward = _Tap(module)  # type: ignore[method-assign]
    try:
        yield
    finally:
        with _LOCK:
            for module in modules:
                tap = module.__dict__["forward"]
                tap.users -= 1
                if tap.users == 0 and tap.own is None:
                    del module.__dict__["forward"]
                elif tap.users == 0:
                    module.forward = tap.own  # type: ignore[method-assign]


class Anatomy:
    """The named parts of a network.

    Args:
        network: one of those that the module names, or built alike.

    `parts` holds them in the order in which the network runs them, as far as its modules are in that order.
    """

    def __init__(self, network: nn.Module) -> None:
        self.parts = parts_of(network)

    def select(self, kind: str, place: str = "", names: Sequence[str] = ()) -> list[Part]:
        """The parts of a kind, at a place if one is given, or by their names.

        Raises:
            ArgumentError: an unknown kind, place or name, or the network has no such part.
        """
        if kind not in KINDS:
            raise unknown("kind of part", kind, KINDS)
        if place and place not in PLACES:
            raise unknown("place", place, PLACES)
        known = {p.name: p for p in self.parts if p.kind == kind}
        for name in names:
            if name not in known:
                raise unknown(f"{kind} of the network", name, known)
        chosen = [known[n] for n in names] if names else [p for p in known.values() if place in ("", p.place)]
        if not chosen:
            places = sorted({p.place for p in known.values()})
            there = f"it has some in the {', '.join(places)}" if places else "it has none anywhere"
            kinds = {"attention": "self-attention", "block": "block", "skip": "skip"}
            raise ArgumentError(f"the network has no {kinds[kind]}{' in the ' + place if place else ''}; {there}")
        return chosen

    @contextmanager
    def edit(self, edits: Sequence[Edit]) -> Iterator[None]:
        """A context in which the network's calls from this thread are read and changed at the given parts."""
        with _tapped(list({id(e.part.module): e.part.module for e in edits}.values())):
            token = _OPEN.set((*_OPEN.get(), *edits))
            try:
                yield
            finally:
                _OPEN.reset(token)


_KNOWN: "WeakKeyDictionary[nn.Module, Anatomy]" = WeakKeyDictionary()


def anatomy_of(denoiser: object, who: str) -> Anatomy:
    """The anatomy of a denoiser's network, made once a network.

    Args:
        denoiser: a denoiser with a `net` that is a torch module.
        who: what needs it, for the message.

    Raises:
        ArgumentError: the denoiser has no network.
    """
    network = getattr(denoiser, "net", None)
    if not isinstance(network, nn.Module):
        raise ArgumentError(
            f"{who} needs a network with self-attention; {type(denoiser).__name__} has no torch module"
            + ("; leave compile out" if type(denoiser).__name__ == "Compiled" else "")
        )
    if network not in _KNOWN:
        _KNOWN[network] = Anatomy(network)
    return _KNOWN[network]
