"""The names that ComfyUI, Forge, A1111 and k-diffusion use, as solvers and grids of ours.

A name is a sampler's, with a schedule's after it or none: "DPM++ 2M", "DPM++ 2M Karras", "dpmpp_2m", "dpmpp_2m karras".
It is taken wherever a solver's name is.  A sampler is here only where a solver of ours computes the same.
"""

from typing import Any

from fewstep.errors import unknown

# The tools' name → a solver of the catalogue, and the parameters in which it differs from that row.
SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "Euler": ("euler", {}),
    "Euler a": ("ddpm", {}),
    "Heun": ("heun", {}),
    "DPM2": ("dpm-solver-2", {}),
    "DPM++ 2M": ("dpm-solver++", {}),
    "DPM++ 2M SDE": ("sde-dpm-solver++", {}),
    "DPM++ 2M SDE Heun": ("sde-dpm-solver++", {"rule": "exact"}),
    "DPM++ 3M SDE": ("sde-dpm-solver++", {"answers": 3, "rule": "printed"}),
    "Res Multistep": ("dpm-solver++", {"rule": "exact"}),
    "LCM": ("cps", {"eta": 1.0}),
    "DDIM": ("ddim", {}),
    "DDPM": ("ddpm", {}),
    "UniPC": ("unipc", {}),
    "IPNDM": ("ipndm", {}),
}
CODES = {
    "euler": "Euler",
    "euler_ancestral": "Euler a",
    "heun": "Heun",
    "dpm_2": "DPM2",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "dpmpp_2m_sde_gpu": "DPM++ 2M SDE",
    "dpmpp_2m_sde_heun": "DPM++ 2M SDE Heun",
    "dpmpp_2m_sde_heun_gpu": "DPM++ 2M SDE Heun",
    "dpmpp_3m_sde": "DPM++ 3M SDE",
    "dpmpp_3m_sde_gpu": "DPM++ 3M SDE",
    "res_multistep": "Res Multistep",
    "lcm": "LCM",
    "ddim": "DDIM",
    "ddpm": "DDPM",
    "uni_pc": "UniPC",
    "uni_pc_bh2": "UniPC",
    "ipndm": "IPNDM",
}
SCHEDULES = {
    "Karras": "karras",
    "Exponential": "logsnr",
    "SGM Uniform": "trailing",
    "Simple": "trailing",
    "Normal": "linspace",
    "DDIM Uniform": "leading",
    "Beta": "beta",
}


def _plain(name: str) -> str:
    return " ".join(name.lower().split())


KNOWN = {_plain(name): name for name in SAMPLERS} | CODES
GRIDS = {_plain(name): grid for name, grid in SCHEDULES.items()}
GRIDS |= {name.replace(" ", "_"): grid for name, grid in GRIDS.items()}


def split(name: str) -> tuple[str, str | None] | None:
    """The sampler's name as in `SAMPLERS` and the grid that a tool's name means; None where no tool's name is known.

    Args:
        name: such as "DPM++ 2M Karras", "Euler a" or "dpmpp_2m"; capitals do not matter.
    """
    plain = _plain(name)
    if plain in KNOWN:
        return KNOWN[plain], None
    for schedule, grid in GRIDS.items():
        sampler = plain.removesuffix(f" {schedule}")
        if sampler != plain and sampler in KNOWN:
            return KNOWN[sampler], grid
    return None


def from_alias(name: str) -> tuple[str, str | None]:
    """The solver of the catalogue and the grid (None where the name says none) that a tool's name means.

    Args:
        name: such as "DPM++ 2M Karras", "Euler a" or "dpmpp_2m"; capitals do not matter.

    Returns:
        Their names; parameters that differ from the catalogue's row stand in `SAMPLERS`.

    Raises:
        ArgumentError: no solver of ours computes that; the nearest names are offered.
    """
    found = split(name)
    if found is None:
        raise unknown("sampler", name, [*SAMPLERS, *CODES, *(f"{key} Karras" for key in SAMPLERS)])
    return SAMPLERS[found[0]][0], found[1]
