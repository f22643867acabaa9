"""The names that ComfyUI, Forge and k-diffusion use, as solvers and grids of ours.

A name is a sampler's, with a schedule's after it or none: "DPM++ 2M", "DPM++ 2M Karras", "dpmpp_2m".
"""

from fewstep.errors import unknown

SAMPLERS = {
    "Euler": "euler",
    "Euler a": "ddpm",
    "Heun": "heun",
    "DPM2": "dpm-solver-2",
    "DPM++ 2M": "dpm-solver++",
    "DPM++ 2M SDE": "sde-dpm-solver++",
    "DDIM": "ddim",
    "DDPM": "ddpm",
    "UniPC": "unipc",
    "IPNDM": "ipndm",
}  # fmt: skip
CODES = {
    "euler": "Euler",
    "euler_ancestral": "Euler a",
    "heun": "Heun",
    "dpm_2": "DPM2",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "ddim": "DDIM",
    "ddpm": "DDPM",
    "uni_pc": "UniPC",
    "ipndm": "IPNDM",
}  # fmt: skip
SCHEDULES = {
    "Karras": "karras",
    "Exponential": "logsnr",
    "SGM Uniform": "trailing",
    "Simple": "trailing",
    "Beta": "beta",
}


def from_alias(name: str) -> tuple[str, str | None]:
    """The solver and the grid (None where the name says none) that a tool's name means.

    Args:
        name: such as "DPM++ 2M Karras", "Euler a" or "dpmpp_2m"; capitals do not matter.

    Raises:
        ArgumentError: no solver of ours computes that; the nearest names are offered.
    """
    known = {key.lower(): solver for key, solver in SAMPLERS.items()}
    known |= {code: SAMPLERS[key] for code, key in CODES.items()}
    plain = " ".join(name.lower().split())
    if plain in known:
        return known[plain], None
    for schedule, grid in SCHEDULES.items():
        sampler = plain.removesuffix(" " + schedule.lower())
        if sampler != plain and sampler in known:
            return known[sampler], grid
    raise unknown("sampler", name, [*SAMPLERS, *CODES, *(f"{key} Karras" for key in SAMPLERS)])
