"""The dimension of data from scores: near the data the score points back to it, across it.

On data along d of D directions E‖s‖² = (D − d)/h + O(1) as the noise's variance h = (σ/α)² falls, so that the singular
values of √h·s at noised neighbours of a point are about 1 across the data and small along it.
"""

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.denoisers import Denoiser
from fewstep.errors import ArgumentError


@method(
    name="score-dimension",
    papers=[
        "An Overview of Diffusion Models: Applications, Guided Generation, Statistical Rates and Optimization"
    ],
    arxiv="2404.07771", family="theory", summary="The dimension of the data at a point, from scores around it.",
)  # fmt: skip
def score_dimension(
    denoiser: Denoiser, x: Tensor, level: float = 0.01, draws: int = 0, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """How many directions the data has at each point.

    Args:
        denoiser: the model.
        x: (batch, *shape), clean data.
        level: σ/α of the noise: below the data's own spread and curvature, above its finest structure.
        draws: noised neighbours of each point; four times its numbers unless given.
        seed: of the noise.

    Returns:
        (dimensions (batch,), singular values (batch, d) of √h·s/√draws, falling); those below ½ count as data's own.

    Raises:
        ArgumentError: another shape, fewer draws than numbers, or a level that the path does not have.
    """
    path, size = denoiser.path, x[0].numel()
    if tuple(x.shape[1:]) != denoiser.shape:
        raise ArgumentError(f"x must have shape (batch, *{denoiser.shape}), got {tuple(x.shape)}")
    draws = 4 * size if draws == 0 else draws
    if not isinstance(draws, int) or isinstance(draws, bool) or draws < size:
        raise ArgumentError(f"draws must be an integer of at least the {size} numbers of a point, got {draws!r}")
    t = path.t_of_lam(-torch.tensor(level, dtype=torch.float64).log())
    if not level > 0 or not 0 < float(t) < 1:
        raise ArgumentError(f"level must be a σ/α that the path has, got {level!r}")
    alpha, sigma = path.alpha(t).to(x.dtype), path.sigma(t).to(x.dtype)
    noise = torch.randn(len(x), draws, *x.shape[1:], dtype=x.dtype, generator=torch.Generator().manual_seed(seed))
    near = (alpha * x[:, None] + sigma * noise.to(x.device)).flatten(0, 1)
    with torch.no_grad():
        pull = (alpha * denoiser(near, t) - near) / sigma
    values = torch.linalg.svdvals(pull.reshape(len(x), draws, size)) / draws**0.5
    return (values < 0.5).sum(1), values
