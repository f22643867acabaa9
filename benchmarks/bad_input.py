"""What happens with bad input, in diffusers and here: every row tried on both, and written into docs/reliability.md.

Schedulers are walked through as pipelines do it, a network without weights in the model's place; weights are read from
a folder that was spoilt.  "Ours" is a plan as a diffusers scheduler, and `fewstep.load` of the folder.

    python benchmarks/bad_input.py
"""

import inspect
import io
import logging
import re
import tempfile
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import diffusers
import torch
from safetensors.torch import load_file, save_file

import fewstep
import fewstep.diffusers as ours
from fewstep.solvers import solver_named

DOCS = Path(__file__).parents[1] / "docs" / "reliability.md"
THEIRS: dict[str, Any] = {
    "DDIM": diffusers.DDIMScheduler, "DDPM": diffusers.DDPMScheduler, "PNDM": diffusers.PNDMScheduler,
    "LCM": diffusers.LCMScheduler, "Euler": diffusers.EulerDiscreteScheduler,
    "EulerA": diffusers.EulerAncestralDiscreteScheduler, "Heun": diffusers.HeunDiscreteScheduler,
    "DPM++": diffusers.DPMSolverMultistepScheduler, "UniPC": diffusers.UniPCMultistepScheduler,
    "DEIS": diffusers.DEISMultistepScheduler, "FlowEuler": diffusers.FlowMatchEulerDiscreteScheduler,
}  # fmt: skip
SOLVERS = ("ddim", "ddpm", "heun", "dpm-solver++", "sde-dpm-solver++", "unipc", "deis")
Make = Callable[..., Any]


def net(x: torch.Tensor, t: Any) -> torch.Tensor:
    return 0.7 * torch.tanh(x.roll(1, -1)) + 0.2 * x * torch.cos(torch.as_tensor(t, dtype=x.dtype) / 300)


def start(batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def walk(
    scheduler: Any, network: Any = net, x: torch.Tensor | None = None, timesteps: Any = None, **extra: Any
) -> torch.Tensor:
    x = start() if x is None else x
    for t in scheduler.timesteps if timesteps is None else timesteps:
        shown = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        x = scheduler.step(network(shown, t), t, x, **extra, return_dict=False)[0]
    return x


def begun(make: Make, steps: Any = 10, **asked: Any) -> Any:
    scheduler = make()
    scheduler.set_timesteps(steps, **asked) if steps is not None else scheduler.set_timesteps(**asked)
    return scheduler


def spoilt(value: float) -> Callable[..., torch.Tensor]:
    """A network with a bad number in one entry of its third answer."""
    calls: list[int] = []

    def bad(x: torch.Tensor, t: Any) -> torch.Tensor:
        calls.append(0)
        out = net(x, t).clone()
        if len(calls) == 3:
            out[0, 0, 0, 0] = value
        return out

    return bad


def said(x: Any) -> str:
    if isinstance(x, str):
        return x
    if not x.isfinite().all():
        return "NaN or Inf, no error"
    return "the noise unchanged, no error" if x.shape == start().shape and torch.equal(x, start()) else "runs, no error"


def threads(make: Make) -> str:
    scheduler = make()

    def run(seed: int) -> torch.Tensor:
        scheduler.set_timesteps(10)
        generator = torch.Generator().manual_seed(seed)
        extra = {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
        return walk(scheduler, x=torch.randn(2, 3, 8, 8, generator=generator), **extra)

    alone = [run(seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        for got, want in zip(pool.map(run, range(8)), alone, strict=True):
            if not torch.allclose(got, want, atol=1e-5):
                return "another result than alone, no error"
    return "the same results as alone"


def too_many(make: Make) -> torch.Tensor:
    scheduler = begun(make)
    x = walk(scheduler)
    return scheduler.step(net(x, 1), scheduler.timesteps[-1], x, return_dict=False)[0]


def twice(make: Make) -> torch.Tensor:
    scheduler = begun(make)
    walk(scheduler)
    return walk(scheduler)


def every_second(make: Make) -> torch.Tensor:
    scheduler = begun(make)
    return walk(scheduler, timesteps=scheduler.timesteps[::2])


def stranger(make: Make) -> torch.Tensor:
    return walk(begun(make), timesteps=[777])


def early(make: Make) -> torch.Tensor:
    return make().step(start(), 999, start(), return_dict=False)[0]


def answers(channels: int, batch: int = 2) -> Callable[[Make], torch.Tensor]:
    return lambda make: walk(begun(make), lambda x, t: torch.ones(batch, channels, 8, 8))


def with_steps(steps: Any) -> Callable[[Make], torch.Tensor]:
    return lambda make: walk(begun(make, steps))


def with_times(*timesteps: float) -> Callable[[Make], torch.Tensor]:
    return lambda make: walk(begun(make, None, timesteps=list(timesteps)))


def with_levels(*sigmas: float) -> Callable[[Make], torch.Tensor]:
    return lambda make: walk(begun(make, None, sigmas=list(sigmas)))


def with_config(**config: Any) -> Callable[[Make], torch.Tensor]:
    return lambda make: walk(begun(lambda: make(**config)))


def another_batch(make: Make) -> torch.Tensor:
    scheduler = begun(make)
    x = walk(scheduler, x=start(4), timesteps=scheduler.timesteps[:3])
    return walk(scheduler, x=x[:2], timesteps=scheduler.timesteps[3:])


def two_generators(make: Make) -> torch.Tensor:
    generators = [torch.Generator().manual_seed(i) for i in range(2)]
    return walk(begun(make), x=start(4), generator=generators)


def batches(make: Make) -> str:
    """How far the first of four pictures is from the same alone, one seed for both."""
    pictures = [walk(begun(make), x=start(4)[:batch], generator=torch.Generator().manual_seed(0)) for batch in (1, 4)]
    far = float((pictures[0][0] - pictures[1][0]).abs().max())
    return "the same picture" if far < 1e-4 else f"another picture, {far:.1f} away, no error"


def pipeline(make: Make) -> torch.Tensor:
    """A pipeline whose network answers NaN."""
    unet = diffusers.UNet2DModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
    )  # fmt: skip
    with torch.no_grad():
        unet.conv_in.bias[0] = float("nan")
    pipe = diffusers.DDPMPipeline(unet, make())
    pipe.set_progress_bar_config(disable=True)
    return "a black picture, no error" if not any(pipe(1, num_inference_steps=3).images[0].getdata()[0]) else "runs"


SCHEDULERS: dict[str, Callable[[Make], Any]] = {
    "NaN in one entry of the third answer": lambda make: walk(begun(make), spoilt(float("nan"))),
    "Inf in one entry of the third answer": lambda make: walk(begun(make), spoilt(float("inf"))),
    "NaN through `DDPMPipeline`, as a picture": pipeline,
    "an answer (2, 1, 8, 8) to (2, 3, 8, 8)": answers(1),
    "an answer (1, 3, 8, 8)": answers(3, 1),
    "an answer (2, 6, 8, 8)": answers(6),
    "0 steps": with_steps(0), "−3 steps": with_steps(-3), "2.5 steps": with_steps(2.5), "1,001 steps": with_steps(1001),
    "`timesteps` that rise": with_times(10, 500, 999), "unsorted `timesteps`": with_times(999, 10, 500),
    "the same timestep twice": with_times(999, 500, 500, 10), "timestep 1500": with_times(1500, 10),
    "timestep −10": with_times(500, -10), "no `timesteps`, an empty list": with_times(),
    "`sigmas` that rise": with_levels(0.1, 0.9), "a negative level": with_levels(0.9, -0.1),
    "a level that is NaN": with_levels(0.9, float("nan")), "a level above the model's largest": with_levels(1e6, 1.0),
    "`sigmas` as a list, as documented": with_levels(0.9, 0.5, 0.1),
    '`prediction_type="bogus"`': with_config(prediction_type="bogus"),
    "order 7": with_config(order=7), "order 0": with_config(order=0),
    "`num_train_timesteps=-5`": with_config(num_train_timesteps=-5),
    "every second timestep left out": every_second, "a timestep that is not in the run": stranger,
    "one step too many": too_many, "a second run without `set_timesteps`": twice,
    "`step` before `set_timesteps`": early, "another batch in the middle of a run": another_batch,
    "four threads, one scheduler": threads, "two generators for four images": two_generators,
    "one seed, the first picture of four and the same alone": batches,
}  # fmt: skip


def outcome(trial: Callable[[Make], torch.Tensor], make: Make) -> str:
    try:
        return said(trial(make))
    except Exception as error:  # which kind it is, is what is asked
        words = re.sub(r"\s+", " ", re.sub(r"/tmp/tmp\w+", "…", str(error))).replace("|", "∣").replace("<", "‹")
        short = words if len(words) <= 110 else f"{words[:109].rsplit(' ', 1)[0]} …"
        return f"`{type(error).__name__}`{': ' if words else ' without a word'}{short}"


def knows(trial: str, make: Make) -> bool:
    """Whether a scheduler takes the argument at all."""
    names = ("timesteps", "sigmas")
    asked = next((n for n in names if f"`{n}`" in trial or (n == "timesteps" and trial[:8] in ("timestep", "the same"))
                  or (n == "sigmas" and "level" in trial)), None)  # fmt: skip
    if "generators" in trial or "seed" in trial:
        return "generator" in inspect.signature(make().step).parameters
    if "DDPMPipeline" in trial:
        return not isinstance(make(), diffusers.FlowMatchEulerDiscreteScheduler)
    if trial == "a timestep that is not in the run" or asked is None or "set_timesteps" in trial:
        return True
    return asked in inspect.signature(make().set_timesteps).parameters


def column(trial: str, run: Callable[[Make], torch.Tensor], makes: dict[str, Make]) -> str:
    """What happened, the schedulers with the same outcome together."""
    found: dict[str, list[str]] = {}
    ordered = {"DPM++", "UniPC", "DEIS", *ANSWERS}
    for name, make in makes.items():
        if knows(trial, make) and (not trial.startswith("order") or name in ordered):
            found.setdefault(outcome(run, make), []).append(name)
    count = sum(map(len, found.values()))
    if len(found) == 1:
        return f"all {count}: {next(iter(found))}"
    kinds: dict[str, tuple[list[str], str]] = {}
    for what, names in found.items():
        kinds.setdefault(what.split(":")[0], ([], what))[0].extend(names)
    if len(kinds) == 1:
        return f"all {count}: {next(iter(kinds.values()))[1]}"
    return "; ".join(f"{', '.join(names)}: {what}" for what, (names, _) in kinds.items())


def theirs(kind: Any) -> Make:
    def make(**config: Any) -> Any:
        if kind is diffusers.FlowMatchEulerDiscreteScheduler:
            config = {k: v for k, v in config.items() if k != "prediction_type"}
        config = {("solver_order" if k == "order" else k): v for k, v in config.items()}
        return kind(**({"clip_sample": False} if kind is diffusers.DDIMScheduler else {}), **config)

    return make


# How many answers a step looks at is what the field calls its order.
ANSWERS = {"dpm-solver++": "answers", "sde-dpm-solver++": "answers", "deis": "answers", "unipc": "predictor"}


def mine(name: str, base: Any) -> Make:
    def make(order: int | None = None, **config: Any) -> Any:
        if order is None:
            return ours.scheduler({**base.config, **config}, name)
        return ours.scheduler(base, solver_named(name, **{ANSWERS[name]: order}), steps=10)

    return make


def folder() -> Path:
    """A tiny pipeline as diffusers saves it."""
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
    )  # fmt: skip
    made = Path(tempfile.mkdtemp())
    diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler(clip_sample=False)).save_pretrained(made)
    return made


def bytes_of(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda file: file.write_bytes(change(file.read_bytes())) and None


def tensors_of(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def spoil(file: Path) -> None:
        tensors = load_file(file)
        change(tensors)
        save_file(tensors, file)

    return spoil


def flipped(whole: bytes) -> bytes:
    return whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:]


def pickled(file: Path) -> None:
    buffer = io.BytesIO()
    torch.save(load_file(file), buffer)
    file.write_bytes(buffer.getvalue())


def beside(file: Path) -> None:
    torch.save(load_file(file), file.with_suffix(".bin"))
    file.unlink()


WEIGHTS: dict[str, Callable[[Path], None]] = {
    "truncated": bytes_of(lambda whole: whole[:-100]), "empty": bytes_of(lambda whole: b""),
    "a web page": bytes_of(lambda whole: b"<html>404</html>"),
    "a header of 2⁶³ bytes": bytes_of(lambda whole: b"\xff" * 7 + b"\x7f" + whole[8:]),
    "bytes after the end": bytes_of(lambda whole: whole + b"more"),
    "a pickle named `.safetensors`": pickled, "a pickle, `.bin`, and no safetensors": beside,
    "one tensor missing": tensors_of(lambda t: t.pop("conv_in.weight")),
    "one tensor too many": tensors_of(lambda t: t.update(extra=torch.ones(2))),
    "NaN in a tensor": tensors_of(lambda t: t["conv_in.bias"].fill_(float("nan"))),
    "a tensor of another shape": tensors_of(lambda t: t.update({"conv_in.bias": torch.ones(3)})),
    "one byte of the data flipped": bytes_of(flipped),
    "`scheduler_config.json` cut": lambda file: (
        (file.parents[1] / "scheduler" / "scheduler_config.json").write_text("{") and None
    ),
}  # fmt: skip


def loaded(read: Callable[[Path], Any], spoil: Callable[[Path], None]) -> str:
    made = folder()
    spoil(made / "unet" / "diffusion_pytorch_model.safetensors")
    result = outcome(lambda make: (read(made), "loads, no error")[1], lambda: None)
    return result.replace(str(made), "…")


def main() -> None:
    warnings.simplefilter("ignore")
    diffusers.utils.logging.set_verbosity(logging.CRITICAL)
    torch.set_num_threads(1)
    base, flow = diffusers.DDIMScheduler(clip_sample=False), diffusers.FlowMatchEulerDiscreteScheduler()
    peers = {name: theirs(kind) for name, kind in THEIRS.items()}
    own = {**{name: mine(name, base) for name in SOLVERS}, "euler on a flow": mine("euler", flow)}
    lines = [f"{date.today()}, diffusers {diffusers.__version__}, torch {torch.__version__}; "
             f"{len(peers)} schedulers of diffusers, {len(own)} of ours.", "",
             "| input | diffusers | ours |", "|---|---|---|"]  # fmt: skip
    for name, trial in SCHEDULERS.items():
        lines.append(f"| {name} | {column(name, trial, peers)} | {column(name, trial, own)} |")
    lines += ["", "| the weights of a folder | diffusers | ours |", "|---|---|---|"]
    for name, spoil in WEIGHTS.items():
        both = [loaded(read, spoil) for read in (lambda f: diffusers.DDPMPipeline.from_pretrained(f), fewstep.load)]
        lines.append(f"| {name} | {both[0]} | {both[1]} |")
    text = "\n".join(lines)
    print(text)
    before, _, rest = DOCS.read_text(encoding="utf8").partition("<!-- bad input -->")
    after = rest.partition("<!-- end of bad input -->")[2]
    DOCS.write_text(f"{before}<!-- bad input -->\n\n{text}\n\n<!-- end of bad input -->{after}", encoding="utf8")


if __name__ == "__main__":
    main()
