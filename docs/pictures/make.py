"""The pictures of the manual's page on guides: shipped models, same noises, the guide alone differing.

    python docs/pictures/make.py [name …]

Each picture is rows of samples; a row's index is the guide of `ROWS` below, in order.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import fewstep  # noqa: E402
from claims.guidance.judge import NONE, model  # noqa: E402
from fewstep.guidance import (  # noqa: E402
    CADS,
    CFG,
    PAG,
    SAG,
    Factorized,
    HiGS,
    SelfGuidedMinority,
    embedded_labels,
    minority_score,
)  # fmt: skip
from fewstep.guidance.factorized import frequency_bands  # noqa: E402
from fewstep.guidance.sag import blurred  # noqa: E402

STEPS = 10


def sheet(rows: list[Tensor], scale: int) -> Image.Image:
    """Rows of pictures in [−1, 1], each (n, channels, height, width), as one picture, enlarged, two pixels apart."""
    padded = torch.nn.functional.pad(torch.stack(rows), (1, 1, 1, 1), value=1.0)
    count, n, channels, height, width = padded.shape
    whole = padded.permute(0, 3, 1, 4, 2).reshape(count * height, n * width, channels)
    grey = ((whole.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy()
    picture = Image.fromarray(grey[..., 0] if channels == 1 else grey)
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)


def digits(guides: list[Any], label: Any, n: int = 20, **options: Any) -> Tensor:
    """Samples of the digits model unless another is given, 10 steps of ddim, seed 0."""
    options = {"denoiser": model(), "cond": {"label": label}, "seed": 0, **options}
    return fewstep.sample(n=n, steps=STEPS, solver="ddim", guides=guides, **options).x


def cads() -> Image.Image:
    """Rows: digits of the classes 3 and 8 with CFG of 5; then with CADS of 0.1; then of 1."""
    denoiser, table = embedded_labels(model())
    label = torch.tensor([3] * 10 + [8] * 10)
    sets = [digits([CFG(5.0), CADS("label", s)], table[label], denoiser=denoiser) for s in (0.0, 0.1, 1.0)]
    return sheet(sets, 2)


def diverse() -> Image.Image:
    """Rows: six horses, six cars and six ships of the CIFAR-10 model with CFG of 5; then with CADS of 0.25; of 1."""
    denoiser, table = embedded_labels(fewstep.load("cifar10"))
    label = torch.tensor([7] * 6 + [1] * 6 + [8] * 6)
    made = [digits([CFG(5.0), CADS("label", s)], table[label], len(label), denoiser=denoiser) for s in (0.0, 0.25, 1.0)]
    return sheet(made, 2)


def perturbed() -> Image.Image:
    """Rows: unconditional digits; with PAG of 1; of 3."""
    return sheet([digits(g, NONE) for g in ([], [PAG(1.0)], [PAG(3.0)])], 2)


def attended() -> Image.Image:
    """Rows: unconditional digits; with SAG of 0.3; of 0.8."""
    return sheet([digits(g, NONE) for g in ([], [SAG(0.3)], [SAG(0.8)])], 2)


def history() -> Image.Image:
    """Rows: unconditional digits; with HiGS."""
    return sheet([digits(g, NONE) for g in ([], [HiGS()])], 2)


def colour() -> Image.Image:
    """Rows: horses, ships, cars and frogs of the CIFAR-10 model with CFG of 2; with HiGS; with PAG of 1; with SAG."""
    den = fewstep.load("cifar10")
    label = [k for k in (7, 8, 1, 6) for _ in range(3)]
    rows = [
        fewstep.sample(den, 12, steps=STEPS, solver="ddim", guides=[CFG(2.0), *g], cond={"label": label}).x
        for g in ([], [HiGS()], [PAG(1.0)], [SAG(0.8)])
    ]
    return sheet(rows, 2)


def hybrid() -> Image.Image:
    """Rows: hybrids near; the same from afar, blurred by 1.5 pixels; averaged to 7×7 and enlarged; two bands added."""
    far, near = [0, 1, 3, 4, 6, 7] * 3, [1, 8, 7, 6, 2, 3] * 2 + [8, 5, 9, 1, 0, 4]
    low, high = frequency_bands(1.5)
    made = digits([CFG(4.0), Factorized([low, high], [{"label": near}], scale=4.0)], far, 18)
    small = torch.nn.functional.interpolate(torch.nn.functional.avg_pool2d(made, 4), scale_factor=4.0)
    added = low(digits([CFG(2.0)], far, 18)) + high(digits([CFG(2.0)], near, 18, seed=1))
    return sheet([made, blurred(made, 1.5), small, added], 2)


def minority() -> Image.Image:
    """Rows: the 20 of 60 unconditional digits of the lowest minority score; of the highest; self-guided by 0.4."""
    plain = digits([], NONE, 60)
    order = minority_score(model(), plain, 0.6, draws=2, label=torch.full((60,), NONE)).argsort()
    guided = digits([SelfGuidedMinority(0.4, t_noise=0.6, every=2)], NONE)
    return sheet([plain[order[:20]], plain[order[-20:]], guided], 2)


ROWS: dict[str, Callable[[], Image.Image]] = {
    "cads": cads, "cads-cifar10": diverse, "pag": perturbed, "sag": attended, "higs": history, "cifar10": colour,
    "hybrid": hybrid, "minority": minority,
}  # fmt: skip


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    for name in names or list(ROWS):
        ROWS[name]().save(Path(__file__).with_name(f"guides-{name}.png"), optimize=True)


if __name__ == "__main__":
    main(sys.argv[1:])
