"""The public calls with arguments that are good, bad and mad, drawn by hypothesis.

Whatever is drawn, a call may only give a finite result or raise one of `fewstep.errors`, and soon.  The tests draw a
few of each; run as a script it draws as many as it is told and writes what came out into fuzz.md.

    python benchmarks/fuzz.py [examples of each call] [seed]
"""

import io
import math
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import chdir, redirect_stderr, redirect_stdout
from datetime import date
from pathlib import Path
from typing import Any

import hypothesis
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import fewstep
from fewstep import generation, guidance, metrics, search
from fewstep.errors import FewstepError
from fewstep.paths import VE, VP, Cosine, Flow
from fewstep.restoration import Gaussian, Mask, Measurement
from fewstep.worlds import GaussianMixture

SHAPE = (1, 4, 4)
MAD: list[Any] = [
    None, True, False, 0, -1, 1, 2, 3, 7, 10**9, 10**30, -(2**63), 0.0, -0.0, 0.5, 1.0, 2.5, 1e-30, 1e300, -1e300,
    math.nan, math.inf, -math.inf, 1j, "", "x", "ddim", "mnist", "\0", "π" * 99, b"", [], [0], [1, 2], [math.nan], (),
    {}, {"label": 1}, object(), torch.tensor(1.0), torch.zeros(0), torch.full((2,), math.nan), torch.tensor([1, 0]),
    torch.randn, fewstep, int,
]  # fmt: skip
mad = st.sampled_from(MAD) | st.integers() | st.floats() | st.text(max_size=8)


@st.composite
def sane_or_mad(draw: Any, *sane: Any) -> Any:
    """Sane seven times of eight."""
    return draw(mad if draw(st.integers(0, 7)) == 5 else st.sampled_from(sane))


@st.composite
def often(draw: Any, sane: st.SearchStrategy[Any]) -> Any:
    """What is sane seven times of eight."""
    return draw(mad if draw(st.integers(0, 7)) == 5 else sane)


def _answer(x: torch.Tensor, time: torch.Tensor, label: Any = None) -> torch.Tensor:
    return 0.3 * x


PATHS = [VP(), VE(), Flow(), Cosine(), VP.from_betas("linear")]
WRAPPED = [fewstep.wrap(_answer, path, "x0", shape=SHAPE, null={"label": 0}) for path in PATHS]
MEANS = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0)).double()
WORLD = GaussianMixture([0.4, 0.6], MEANS, torch.full((2, 1), 0.1, dtype=torch.float64)).denoiser(VP())
SEEN = Measurement.simulate(Mask.half(4, 4), torch.zeros(1, *SHAPE), Gaussian(0.1))
NAMES = [m.name for m in fewstep.methods() if m.family in ("solvers", "loops", "bridges")]
GUIDES: list[Callable[..., Any]] = [
    guidance.CFG, guidance.CADS, guidance.HiGS, guidance.PAG, guidance.SAG, guidance.Thresholding,
    guidance.EpsilonScaling, guidance.Composition, guidance.FlowChef, guidance.Factorized, guidance.ClassifierGuidance,
]  # fmt: skip
SEARCHES: list[Callable[..., Any]] = [search.FKSteering, search.SVDD, search.RandomSearch, search.ZeroOrderSearch]
METRICS: list[Callable[..., Any]] = [
    metrics.frechet_distance, metrics.sliced_w2, metrics.w2, metrics.mmd, metrics.precision_recall, metrics.psnr,
]  # fmt: skip

PLAN = fewstep.make_plan(VP(), steps=2)

# Python's own words for too many or too few arguments, before anything of ours runs.
ARITY = ("positional argument", "required positional", "unexpected keyword", "multiple values")
numbers = sane_or_mad(1, 2, 3, 5)
times = sane_or_mad([1.0, 0.5, 0.0], [0.9, 0.2], torch.linspace(1, 0, 4, dtype=torch.float64))
grids = st.one_of(sane_or_mad(None, "logsnr", "uniform", "karras", "beta", "trailing"), times)
tensors = sane_or_mad(
    torch.zeros(2, *SHAPE), torch.randn(1, *SHAPE), torch.zeros(2, *SHAPE).double(), torch.zeros(2, *SHAPE).half(),
    torch.full((2, *SHAPE), math.nan), torch.zeros(2, 3), torch.zeros(0, *SHAPE),
    torch.zeros(2, *SHAPE, dtype=torch.int64),
)  # fmt: skip


@st.composite
def some(draw: Any, **options: st.SearchStrategy[Any]) -> dict[str, Any]:
    """A few of these options."""
    chosen = draw(st.lists(st.sampled_from(sorted(options)), unique=True, max_size=4))
    return {name: draw(options[name]) for name in chosen}


guides = st.lists(
    st.tuples(st.sampled_from(GUIDES), st.lists(sane_or_mad(0.5, 1.0, 2.0), max_size=3)), max_size=2
)  # fmt: skip
run = some(
    n=numbers, solver=sane_or_mad(*NAMES), grid=grids, steps=numbers, evaluations=numbers, seed=numbers, first=numbers,
    start=tensors, dtype=sane_or_mad(torch.float32, torch.float64, torch.bfloat16, torch.int64),
    device=sane_or_mad("cpu", "cuda", "tpu"), noise=sane_or_mad("keyed", "brownian"), grad=sane_or_mad(False, True),
    debug=sane_or_mad(True, False), cond=sane_or_mad({}, {"label": 1}, {"label": [1, 2]}, {"other": 1}),
    keep=sane_or_mad("final", "trajectory", "answers"), cuda_graph=sane_or_mad(False, True),
    deterministic=sane_or_mad(False, True),
)  # fmt: skip
denoisers = sane_or_mad(*WRAPPED, WORLD)


def _sample(denoiser: Any, options: dict[str, Any], wanted: list[Any]) -> Any:
    made = [kind(*arguments) for kind, arguments in wanted]
    return fewstep.sample(denoiser, **options, **({"guides": made} if made else {}))


def _generate(denoiser: Any, count: Any, out: Any, options: dict[str, Any]) -> None:
    """A run of at most some samples, and its folder read again."""
    with tempfile.TemporaryDirectory() as folder:
        where = f"{folder}/run" if out == "a new one" else out
        fewstep.generate(denoiser, min(count, 9) if isinstance(count, int) else count, where, **options)
        assert generation.verify(where).whole


def _verify(out: Any) -> None:
    """A folder read again."""
    with tempfile.TemporaryDirectory() as folder:
        if out == "a run":
            fewstep.generate(WORLD, 1, folder, steps=1, batch=1)
        generation.verify(folder if out == "a run" else out)


def _search(kind: Callable[..., Any], arguments: list[Any], options: dict[str, Any]) -> Any:
    return fewstep.sample(WORLD, 2, search=kind(*arguments), **{**options, "steps": 3})


def _paths(kind: Any, arguments: list[Any], at: Any) -> Any:
    path = kind(*arguments)
    return fewstep.make_plan(path, "ddim", "uniform", 3)


def command(words: list[str]) -> Any:
    """The command line, in this process; it may end with its own errors only."""
    from fewstep.cli import main

    before, sys.argv = sys.argv, ["fewstep", *words]
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            main()
    except SystemExit as stop:
        if stop.code not in (0, 1, 2, None):
            raise AssertionError(f"fewstep {words} ended with {stop.code!r}") from stop
    finally:
        sys.argv = before


WORDS = [
    "sample",
    "plan",
    "show",
    "catalog",
    "compare",
    "restore",
    "generate",
    "--help",
    "--steps",
    "--solver",
    "--model",
    "--seed",
    "--n",
    "-n",
    "vp",
    "ve",
    "flow",
    "ddim",
    "0",
    "1",
    "-1",
    "2",
    "nan",
    "1e9",
    "x",
    "mnits",
    "--grid",
    "--evaluations",
    "--label",
    "--guidance",
    "--verify",
    "--out",
    "/dev/null/x",
    "--degrade",
]

CALLS: dict[str, tuple[Callable[..., Any], tuple[st.SearchStrategy[Any], ...]]] = {
    "sample": (_sample, (denoisers, run, guides)),
    "make_plan": (
        lambda path, options: fewstep.make_plan(path, **options),
        (sane_or_mad(*PATHS), some(solver=sane_or_mad(*NAMES), grid=grids, steps=numbers, evaluations=numbers,
                                   start=sane_or_mad(1.0, 0.5))),
    ),
    "paths": (_paths, (st.sampled_from([VP, VE, Flow, Cosine, VP.from_betas]), st.lists(mad, max_size=2), mad)),
    "wrap": (
        lambda net, path, kind, shape, options: fewstep.sample(
            fewstep.wrap(net, path, kind, shape=shape, **options), 1, steps=2
        ),
        (sane_or_mad(_answer), sane_or_mad(*PATHS), sane_or_mad("x0", "eps", "v", "flow", "score"),
         sane_or_mad(SHAPE, (3,)), some(time=sane_or_mad("t", "lambda"), limits=sane_or_mad((-1, 1)), null=mad)),
    ),
    "compare": (
        lambda denoiser, solvers, counts, options: fewstep.compare(denoiser, solvers, counts, **options),
        (st.sampled_from([WORLD]), often(st.lists(sane_or_mad("ddim", "ddpm"), min_size=1, max_size=2)),
         often(st.lists(sane_or_mad(2, 3), min_size=1, max_size=2)),
         some(n=sane_or_mad(2), seed=numbers, cond=sane_or_mad({}), device=sane_or_mad("cpu"), grids=mad, tell=mad,
              plans=sane_or_mad({"mine": PLAN}), guides=mad, engine=sane_or_mad("local"), address=mad)),
    ),
    "restore": (
        # What the papers spend is a thousand evaluations for some.
        lambda denoiser, seen, method, count, options: fewstep.restore(
            denoiser, seen, method, evaluations=count, **options
        ),
        (sane_or_mad(WORLD), sane_or_mad(SEEN),
         sane_or_mad(*[m.name for m in fewstep.methods() if m.family == "restoration"]), sane_or_mad(4, 6, 12),
         some(samples=sane_or_mad(1, 2), seed=numbers, steps=numbers, grid=grids)),
    ),
    "measure": (
        lambda y, noise, hidden: Measurement(Mask.box(4, 4, *hidden), y, Gaussian(noise)),
        (tensors, sane_or_mad(0.0, 0.1),
         st.just([1, 1, 2]) | st.lists(sane_or_mad(0, 1, 2), min_size=3, max_size=3)),
    ),
    "tune": (
        lambda denoiser, count, method, options: fewstep.tune(denoiser, count, method=method, samples=2, **options),
        (sane_or_mad(WORLD), sane_or_mad(3, [3, 2]), sane_or_mad("gits", "beta"),
         some(seed=numbers, budget=numbers, data=tensors)),
    ),
    "generate": (_generate, (
        sane_or_mad(WRAPPED[0], WORLD), numbers, often(st.just("a new one")),
        some(solver=sane_or_mad("ddim", "heun"), grid=grids, steps=numbers, evaluations=numbers, seed=numbers,
             cond=sane_or_mad({}, {"label": 1}, {"label": [1, 2]}), files=sane_or_mad("safetensors", "png"),
             shard=numbers, batch=numbers, dtype=sane_or_mad(torch.float32, torch.float64, torch.int64),
             device=sane_or_mad("cpu"), plan=sane_or_mad(None, PLAN), guides=sane_or_mad([], [guidance.CFG(2.0)]),
             engine=sane_or_mad("local"), address=mad, workers=mad, revision=mad, progress=sane_or_mad(False)),
    )),
    "verify": (_verify, (sane_or_mad("a run"),)),
    "encode": (
        lambda denoiser, x, options: fewstep.encode(denoiser, x, **options),
        (denoisers, tensors, some(steps=numbers, grid=grids, solver=sane_or_mad("ddim", "heun"))),
    ),
    "slerp": (fewstep.slerp, (tensors, tensors, sane_or_mad(0.0, 0.5, 1.0))),
    "load": (lambda name, options: fewstep.load(name, **options),
             (sane_or_mad("mnits", "mnist-resshift"), some(device=sane_or_mad("cpu"), revision=mad))),
    "search": (_search, (
        st.sampled_from(SEARCHES), st.lists(sane_or_mad(lambda x: x.mean((1, 2, 3)), 2, 1.0), max_size=4),
        some(seed=numbers, cond=sane_or_mad({})),
    )),
    "metrics": (lambda metric, a, b, rest: metric(a, b, *rest),
                (st.sampled_from(METRICS), tensors, tensors, st.lists(numbers, max_size=2))),
    "command": (command, (st.lists(st.sampled_from(WORDS), max_size=5),)),
}  # fmt: skip


def tensors_in(found: Any) -> list[torch.Tensor]:
    """What of a result must be finite."""
    if isinstance(found, torch.Tensor):
        return [found] if found.is_floating_point() else []
    if isinstance(found, tuple):
        return [one for part in found for one in tensors_in(part)]
    return [found.x] if isinstance(found, fewstep.Output) else []


def tried(call: Callable[..., Any], arguments: tuple[Any, ...]) -> bool:
    """Whether a call gave a result; it may fail with one of our errors only, and a result is finite."""
    try:
        found = call(*arguments)
    except FewstepError:
        return False
    except TypeError as error:
        if any(words in str(error) for words in ARITY):
            return False
        raise
    assert not any(bool(part.isnan().any()) for part in tensors_in(found)), "a result that is NaN, in silence"
    return True


def fuzzed(name: str, examples: int, deadline: float = 20.0, seed: int | None = None) -> tuple[int, int, float]:
    """(results, refusals, the longest call's processor seconds) of so many drawn calls, of a seed or always the same.

    Raises:
        AssertionError: a result is not finite, or a call took longer than `deadline` seconds of a processor.
    """
    call, strategies = CALLS[name]
    results, refusals, longest = 0, 0, 0.0

    @settings(max_examples=examples, deadline=None, derandomize=seed is None, database=None,
              suppress_health_check=list(HealthCheck), phases=[Phase.generate])  # fmt: skip
    @given(st.tuples(*strategies))
    def run(arguments: tuple[Any, ...]) -> None:
        nonlocal results, refusals, longest
        began = time.process_time()  # another process's load is no fault of a call
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gave = tried(call, arguments)
        seconds = time.process_time() - began
        assert seconds < deadline, f"{name}{arguments!r} took {seconds:.0f} s"
        results, refusals, longest = results + gave, refusals + (not gave), max(longest, seconds)

    (run if seed is None else hypothesis.seed(seed)(run))()
    return results, refusals, longest


def main(examples: int, seed: int | None) -> None:
    """Draw so many of each call, and write the counts."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    lines = [
        "# Drawn arguments", "",
        f"{date.today().isoformat()}, commit {commit}, {platform.machine()} CPU, torch {torch.__version__}. Every call "
        "gave a finite result or one of our own errors.", "",
        "| call | calls | results | refusals | longest, processor s |", "|---|---|---|---|---|",
    ]  # fmt: skip
    total = 0
    for name in CALLS:
        with tempfile.TemporaryDirectory() as folder, chdir(folder):  # "x" is a good name of a folder
            results, refusals, longest = fuzzed(name, examples, 120.0, seed)
        total += results + refusals
        lines.append(f"| {name} | {results + refusals} | {results} | {refusals} | {longest:.2f} |")
        print(lines[-1], flush=True)
    lines += ["", f"{total} calls in all, of seed {seed}." if seed is not None else f"{total} calls in all."]
    Path(__file__).with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000, int(sys.argv[2]) if len(sys.argv) > 2 else None)
