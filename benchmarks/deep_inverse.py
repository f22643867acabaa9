"""deepinv beside us: its samplers on a denoiser of ours, with its own operators.

deepinv's pictures lie in [0, 1] and its denoiser is asked x + σ·n in that range:  x = (x′ + 1)/2, σ = σ̄/2.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import math
import sys
import types
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from fewstep.denoisers import Denoiser


class _Stub(types.ModuleType):
    """A module whose every name is an empty class."""

    __path__: ClassVar[list[str]] = []

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class _Torchvision(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds stubs for torchvision and all within."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        ours = name.split(".")[0] == "torchvision"
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if ours else None

    def create_module(self, spec: Any) -> types.ModuleType:
        return _Stub(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


def deepinv() -> Any:
    """deepinv, or None where it is not installed; torchvision, which its samplers do without, is stood in for."""
    if importlib.util.find_spec("deepinv") is None:
        return None
    if importlib.util.find_spec("torchvision") is None:
        sys.meta_path.append(_Torchvision())
    return importlib.import_module("deepinv")


def denoiser_for(dinv: Any, denoiser: Denoiser) -> Any:
    """A denoiser of ours as one of deepinv's; `asked` counts its evaluations."""

    class Asked(dinv.models.Denoiser):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.asked = 0

        def forward(self, x: Tensor, sigma: Any, *rest: Any, **named: Any) -> Tensor:
            self.asked += 1
            level = max(2 * float(torch.as_tensor(sigma).flatten()[0]), 1e-4)
            t = denoiser.path.t_of_lam(-math.log(level))
            label = {"label": torch.full((len(x),), denoiser.null["label"])} if "label" in denoiser.null else {}
            state = float(denoiser.path.alpha(t)) * (2 * x - 1)
            return (denoiser(state, t, **label) + 1) / 2

    return Asked()


def physics(dinv: Any, task: str, operator: Any, sigma: float) -> Any:
    """deepinv's physics of a task that deepinv has; σ in [−1, 1]."""
    noise = dinv.physics.GaussianNoise(sigma / 2)
    if task == "inpainting":
        mask = operator.mask.float().expand(3, 32, 32).clone()
        return dinv.physics.Inpainting(img_size=(3, 32, 32), mask=mask, noise_model=noise)
    if task == "deblurring":
        return dinv.physics.BlurFFT((3, 32, 32), filter=operator.kernel.float()[None, None], noise_model=noise)
    return _block_means(dinv, operator.factor, noise)


def _block_means(dinv: Any, side: int, noise: Any) -> Any:
    """The mean of every block of side × side pixels by its singular vectors, which deepinv's DDRM asks for.

    The coordinates of a block are those of an orthonormal basis whose first vector is even: 1/side is its singular
    value, 0 that of all others.
    """
    first = torch.ones(side**2, side**2) / side
    basis = torch.linalg.qr(torch.cat([first[:, :1], torch.eye(side**2)[:, 1:]], 1))[0].mT
    basis = basis * basis[:1].sum().sign()

    def into(x: Tensor) -> Tensor:
        rows, columns = x.shape[-2] // side, x.shape[-1] // side
        blocks = x.reshape(*x.shape[:2], rows, side, columns, side).transpose(3, 4)
        return blocks.flatten(4) @ basis.mT

    def back(c: Tensor) -> Tensor:
        blocks = (c @ basis).unflatten(-1, (side, side)).transpose(3, 4)
        return blocks.flatten(4).flatten(2, 3)

    def padded(y: Tensor) -> Tensor:
        return torch.nn.functional.pad(y[..., None], (0, side**2 - 1))

    return dinv.physics.DecomposablePhysics(
        U=lambda c: c[..., 0], U_adjoint=padded, V=back, V_adjoint=into,
        mask=padded(torch.full((1, 3, 32 // side, 32 // side), 1 / side)), noise_model=noise,
    )  # fmt: skip


def restored(
    dinv: Any, model: Any, method: str, made: Any, y: Tensor, calls: int, sigma: float, **options: Any
) -> Tensor:
    """deepinv's answer in [−1, 1] at its defaults but for `options`; y is in [0, 1]."""
    sampling = dinv.sampling
    if method == "ddrm":
        x = sampling.DDRM(model, sigmas=np.linspace(1, 0, calls), **options)(y, made)
    elif method == "diffpir":
        fidelity = dinv.optim.data_fidelity.L2()
        x = sampling.DiffPIR(model, fidelity, sigma=sigma / 2, max_iter=calls, **options)(
            y, made, x_init=made.A_dagger(y)
        )
    else:
        x = sampling.DPS(model, num_steps=calls + 1, dtype=torch.float32, **options)(y, made)
    return 2 * x.detach() - 1
