"""The names that ComfyUI, Forge, A1111 and k-diffusion use, as solvers and grids of ours.

A name is a sampler's, with a schedule's after it or none: "DPM++ 2M", "DPM++ 2M Karras", "dpmpp_2m", "dpmpp_2m karras".
It is taken wherever a solver's name is.  A sampler is in `SAMPLERS` only where a solver of ours computes the same on
the same levels; the others that these tools have are in `OTHERS`, each with why and with what comes nearest.
"""

from collections.abc import Mapping
from typing import Any

from fewstep.errors import ArgumentError, unknown

# The tools' name → a solver of the catalogue, and the parameters in which it differs from that row.
SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "Euler": ("euler", {}),
    "Euler a": ("ddpm", {}),
    "Heun": ("heun", {}),
    "LMS": ("deis-rho", {"answers": 4, "amend": False, "to_zero": True}),
    "DPM2": ("dpm-solver-2", {}),
    "DPM2 a": ("ddpm", {"base": "dpm-solver-2"}),
    "DPM++ 2S a": ("ddpm", {"base": "dpm-solver++2s"}),
    "DPM++ SDE": ("dpm-solver++2s", {"eta": 1.0, "clock": "rho"}),
    "SEEDS 2": ("dpm-solver++2s", {"eta": 1.0}),
    "DPM++ 2M": ("dpm-solver++", {}),
    "DPM++ 2M SDE": ("sde-dpm-solver++", {}),
    "DPM++ 2M SDE Heun": ("sde-dpm-solver++", {"rule": "exact"}),
    "DPM++ 3M SDE": ("sde-dpm-solver++", {"answers": 3, "rule": "printed"}),
    "Res Multistep": ("dpm-solver++", {"rule": "exact"}),
    "LCM": ("cps", {"eta": 1.0}),
    "DDIM": ("ddim", {}),
    "DDPM": ("ddpm", {}),
    "UniPC": ("unipc", {"predictor": 3, "corrector": 3, "variant": "bh1", "lower_order_final": True}),
    "UniPC bh2": ("unipc", {"predictor": 3, "corrector": 3, "variant": "bh2", "lower_order_final": True}),
    "IPNDM": ("ipndm", {}),
}
CODES = {
    "euler": "Euler",
    "euler_ancestral": "Euler a",
    "heun": "Heun",
    "lms": "LMS",
    "dpm_2": "DPM2",
    "dpm_2_ancestral": "DPM2 a",
    "dpmpp_2s_ancestral": "DPM++ 2S a",
    "dpmpp_sde": "DPM++ SDE",
    "dpmpp_sde_gpu": "DPM++ SDE",
    "seeds_2": "SEEDS 2",
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
    "uni_pc_bh2": "UniPC bh2",
    "ipndm": "IPNDM",
}
CFG_PP = "it moves by the unconditional noise (CFG++), which no solver of ours is told"
# Samplers of theirs that no solver of ours computes: why, and which of ours comes nearest.
OTHERS: dict[str, tuple[str, str]] = {
    "PLMS": ("its first step asks twice", "ipndm"),
    "DPM fast": ("it spaces its own steps between the first and the last level", "dpm-solver-fast"),
    "DPM adaptive": ("its step lengths are those of the whole batch", "dpm-solver-adaptive"),
    "DEIS": ("its polynomial is in the time of one fixed noise schedule, whatever the model's", "deis"),
    "IPNDM V": ("its weights are those of uneven steps in a rule of its own", "deis-rho"),
    "ER SDE": ("its integrals are crude sums, ours are exact; there it has three answers, as printed", "er-sde"),
    "SA Solver": ("it draws between two of the model's own levels, ours in a window of λ", "sa-solver"),
    "SA Solver PECE": ("it asks again after its corrector", "sa-solver"),
    "HeunPP2": ("it mixes the slopes of three levels", "heun"),
    "Exp Heun 2 x0": ("it asks at the step's end in exponential form", "dpm-solver++2s"),
    "Exp Heun 2 x0 SDE": ("it asks at the step's end in exponential form", "SEEDS 2"),
    "SEEDS 3": ("it draws noise in three stages", "SEEDS 2"),
    "Gradient Estimation": ("it weighs the last two slopes by 2 and −1", "ipndm"),
    "Res Multistep a": ("it remembers answers across steps down and noise up", "sde-dpm-solver++"),
    "Restart": ("its intervals and steps are a fixed list for its grid", "restart"),
    "DDIM CFG++": (CFG_PP, "ddim"), "Euler CFG++": (CFG_PP, "euler"), "Euler a CFG++": (CFG_PP, "Euler a"),
    "DPM++ 2S a CFG++": (CFG_PP, "DPM++ 2S a"), "DPM++ 2M CFG++": (CFG_PP, "DPM++ 2M"),
    "Res Multistep CFG++": (CFG_PP, "Res Multistep"), "Res Multistep a CFG++": (CFG_PP, "sde-dpm-solver++"),
}  # fmt: skip
OTHER_CODES = {
    "plms": "PLMS",
    "dpm_fast": "DPM fast",
    "dpm_adaptive": "DPM adaptive",
    "ipndm_v": "IPNDM V",
    "er_sde": "ER SDE",
    "sa_solver": "SA Solver",
    "sa_solver_pece": "SA Solver PECE",
    "heunpp2": "HeunPP2",
    "exp_heun_2_x0": "Exp Heun 2 x0",
    "exp_heun_2_x0_sde": "Exp Heun 2 x0 SDE",
    "seeds_3": "SEEDS 3",
    "gradient_estimation": "Gradient Estimation",
    "res_multistep_ancestral": "Res Multistep a",
    "euler_cfg_pp": "Euler CFG++",
    "euler_ancestral_cfg_pp": "Euler a CFG++",
    "dpmpp_2s_ancestral_cfg_pp": "DPM++ 2S a CFG++",
    "dpmpp_2m_cfg_pp": "DPM++ 2M CFG++",
    "res_multistep_cfg_pp": "Res Multistep CFG++",
    "res_multistep_ancestral_cfg_pp": "Res Multistep a CFG++",
}
# On a discretely trained model "Karras", "Exponential" and "Simple" are the same, the others to one training level.
SCHEDULES = {
    "Karras": "karras-trained",
    "Exponential": "logsnr-trained",
    "Simple": "trailing",
    "SGM Uniform": "trailing",
    "Normal": "linspace",
    "DDIM Uniform": "leading",
    "Beta": "beta",
}


def _plain(name: str) -> str:
    return " ".join(name.lower().split())


KNOWN = {_plain(name): name for name in SAMPLERS} | CODES
UNKNOWN = {_plain(name): name for name in OTHERS} | OTHER_CODES
GRIDS = {_plain(name): grid for name, grid in SCHEDULES.items()}
GRIDS |= {name.replace(" ", "_"): grid for name, grid in GRIDS.items()}


def _split(name: str, among: Mapping[str, str]) -> tuple[str, str | None] | None:
    plain = _plain(name)
    if plain in among:
        return among[plain], None
    for schedule, grid in GRIDS.items():
        for between in (" ", "_"):
            sampler = plain.removesuffix(between + schedule)
            if sampler != plain and sampler in among:
                return among[sampler], grid
    return None


def split(name: str) -> tuple[str, str | None] | None:
    """The sampler's name as in `SAMPLERS` and the grid that a tool's name means; None where no tool's name is known.

    Args:
        name: such as "DPM++ 2M Karras", "Euler a" or "dpmpp_2m"; capitals do not matter.
    """
    return _split(name, KNOWN)


def refusal(name: str) -> ArgumentError | None:
    """Why a sampler of these tools is not here and what comes nearest; None where the name is none of theirs."""
    found = _split(name, UNKNOWN)
    if found is None:
        return None
    why, nearest = OTHERS[found[0]]
    return ArgumentError(f"no solver of fewstep computes {found[0]!r}: {why}; the nearest is {nearest!r}")


def from_alias(name: str) -> tuple[str, str | None]:
    """The solver of the catalogue and the grid (None where the name says none) that a tool's name means.

    Args:
        name: such as "DPM++ 2M Karras", "Euler a" or "dpmpp_2m"; capitals do not matter.

    Returns:
        Their names; parameters that differ from the catalogue's row stand in `SAMPLERS`.

    Raises:
        ArgumentError: no solver of ours computes that, and why; or the name is not known, and the nearest are offered.
    """
    found = split(name)
    if found is None:
        raise refusal(name) or unknown("sampler", name, [*SAMPLERS, *CODES, *(f"{key} Karras" for key in SAMPLERS)])
    return SAMPLERS[found[0]][0], found[1]


def called(solver: str, rows_own: bool = False) -> list[str]:
    """What these tools call a solver of the catalogue.

    Args:
        solver: its name in the catalogue, or theirs.
        rows_own: whether only the catalogue's own row is meant, and no other choice of its parameters.
    """
    rows = SAMPLERS.items()
    return [name for name, (own, its) in rows if name == solver or (own == solver and not (its and rows_own))]


def in_tools(solver: str, grid: str) -> tuple[str, str]:
    """The sampler and the schedule as these tools name them; our own names where they have none.

    Args:
        solver, grid: names of the catalogue, as a plan's source has them.
    """
    schedule = next((name for name, own in SCHEDULES.items() if own == grid), grid)
    return next(iter(called(solver, True)), solver), schedule
