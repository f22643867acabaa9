"""Denoising MCMC: a Langevin chain in state and noise level together, from whose cleanest states denoising is short.

In y = x/α, whose noise is ρ = σ/α, the chain's target is p(y, ρ) ∝ p_ρ(y) on levels ρ_1 … ρ_L (Kim & Ye 2023).  A move
(Langevin within Gibbs) is

    y ← y + (η/2)·(x̂₀ − y)/ρ² + √η·ξ,      ρ ← a draw of q(ρ | y), or its most likely level as the authors' code does.

Of every `moves` moves the visited state of the lowest level is denoised by a plan from its own time to 0; the chain
goes on from where it is.  It starts from a sample made in `start_steps` steps with noise of ρ = ½ on it, and `warm_up`
moves.

Sample number i is output i mod `outputs` of chain ⌊i/outputs⌋, so that any sample can be made again alone.  η is in
squared units of x₀ and must not exceed ρ² of the levels visited by much: the chain's own error grows with η²/ρ⁴.  The
state of the lowest of several levels is no draw of the target: in few dimensions, where levels change fast, it is
biased.
"""

import math
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.grids import grid_named
from fewstep.loops.base import Loop, Walk, refuse_ordered_guides
from fewstep.loops.noise_levels import ExactLevels, NoiseLevels
from fewstep.noise import KeyedNoise
from fewstep.paths import Path
from fewstep.plan import Plan
from fewstep.planning import make_plan
from fewstep.results import Stats
from fewstep.session import Session
from fewstep.solvers import solver_named
from fewstep.worlds import WorldDenoiser

START_RATIO = 0.5


@dataclass(frozen=True)
class ChainStats(Stats):
    """What chains and denoising cost; `evaluations` is all of it, shared out among the samples and rounded up.

    Args:
        start_up: evaluations of each chain before its first output's moves.
        each: evaluations of each further output: its moves and its denoising.
        ratios: the level ρ from which each sample was denoised.
    """

    start_up: int = 0
    each: int = 0
    ratios: tuple[float, ...] = ()


@method(
    name="dmcmc", papers=["Denoising MCMC for Accelerating Diffusion-Based Generative Models"], arxiv="2209.14593",
    family="loops", summary="A Langevin chain through noise levels; its cleanest states are denoised in few steps.",
)  # fmt: skip
@dataclass(frozen=True)
class DenoisingMCMC(Loop):
    """Denoising Langevin–Gibbs.

    Args:
        levels: tells the noise level of a state; a world's denoiser needs none, as its own is exact.
        eta: η > 0, the step of the Langevin moves.
        moves: between outputs, at least 1.
        outputs: how many samples a chain gives, at least 1.
        warm_up: moves before the first output, at least 0.
        start_steps: steps of the sample that a chain starts from, at least 1.
        solver, grid, steps: what denoises, by the names of the catalogue.
        likeliest: take the most likely level, as the authors' code does, instead of a draw.

    Raises:
        ArgumentError: a parameter out of its range.
    """

    levels: NoiseLevels | None = None
    eta: float = 1.0
    moves: int = 10
    outputs: int = 1
    warm_up: int = 20
    start_steps: int = 20
    solver: str = "heun"
    grid: str = "karras"
    steps: int = 5
    likeliest: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.eta < math.inf:
            raise ArgumentError(f"eta must be more than 0, got {self.eta!r}")
        for name, least in (("moves", 1), ("outputs", 1), ("warm_up", 0), ("start_steps", 1), ("steps", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ArgumentError(f"{name} must be an integer of at least {least}, got {value!r}")

    def opening(self, path: Path) -> Plan:
        """The plan of the sample that a chain starts from."""
        return make_plan(path, self.solver, self.grid, self.start_steps)

    def run(self, session: Session) -> tuple[Tensor, Plan, Stats]:
        """Chains, and the denoising of their outputs; the plan is that of the denoising, each sample from its level."""
        refuse_ordered_guides(session, "dmcmc")
        numbers = torch.tensor(session.noise.samples)
        chains, of = (numbers // self.outputs).unique(return_inverse=True)
        chain = _Chain(self, _chain_session(session, chains, of))
        chain.start()
        start_up = chain.walk.evaluations
        y, ratio = torch.empty_like(session.start), torch.empty(len(numbers), dtype=torch.float64)
        for output in range(int((numbers % self.outputs).max()) + 1):
            lowest = chain.lowest_of(self.moves)
            mine = (numbers % self.outputs == output).nonzero()[:, 0]
            y[mine], ratio[mine] = lowest[0][of[mine]], lowest[1][of[mine]]
        x, plan, denoising = self._denoise(session, y, ratio, chain.most_draws)
        total = chain.walk.evaluations * len(chains) + denoising * len(numbers)
        moving = (chain.walk.evaluations - start_up) // (output + 1)
        stats = ChainStats(-(-total // len(numbers)), 0.0, start_up, moving + denoising, tuple(ratio.tolist()))
        return x, plan, stats

    def _denoise(self, session: Session, y: Tensor, ratio: Tensor, draws: int) -> tuple[Tensor, Plan, int]:
        """(samples, the plan, evaluations a sample) from each sample's own level."""
        walk, grid = Walk(session), grid_named(self.grid)
        walk.rows = draws  # noise that its chain has not drawn
        t = walk.path.t_of_lam(-ratio.log())
        times = torch.stack([grid(walk.path, self.steps, float(one)) for one in t], 1)
        parameters = {**asdict(replace(self, levels=None)), "solver": "dmcmc", "by": self.solver}
        plan = solver_named(self.solver)(walk.path, walk.place(times), parameters)
        x = walk.take(plan, walk.place(walk.path.alpha(t)).to(y.device, y.dtype) * y)[0]
        assert x is not None
        return x, plan, walk.evaluations


def _chain_session(session: Session, chains: Tensor, of: Tensor) -> Session:
    """The session of the chains: each has the noise of its own number, and the conditions of its samples."""
    rows = torch.stack([(of == c).nonzero()[0, 0] for c in range(len(chains))])
    for name, value in session.cond.items():
        if isinstance(value, Tensor) and not torch.equal(value, value[rows.to(value.device)][of.to(value.device)]):
            raise ArgumentError(f"samples of one chain share the condition {name!r}; give it so, or set outputs=1")
    old, sigma = session.noise, session.program.plan.path.sigma(1.0).to(session.start)
    noise = KeyedNoise(old.seed, chains.tolist(), old.shape, old.dtype, old.device)
    cond = {k: v[rows.to(v.device)] if isinstance(v, Tensor) else v for k, v in session.cond.items()}
    start = session.start
    if len(chains) < len(of) or chains.tolist() != old.samples:
        if not torch.equal(start, old.start() * sigma):
            raise ArgumentError("samples of one chain have one start; leave start out, or set outputs=1")
        start = noise.start() * sigma
    return replace(session, noise=noise, cond=cond, start=start)


def _slots(plan: Plan) -> int:
    return int(plan.N.index[:, 2].max()) + 1 if len(plan.N) else 0


class _Chain:
    """All chains side by side: y (chains, *shape), the index k of each one's level, and the draws taken so far."""

    def __init__(self, loop: DenoisingMCMC, session: Session) -> None:
        denoiser = session.program.denoiser
        levels = loop.levels
        if levels is None:
            if not isinstance(denoiser, WorldDenoiser):
                raise ArgumentError("dmcmc needs levels=…, such as train_levels makes, for a denoiser that is no world")
            levels = ExactLevels(denoiser.world)
        self.loop, self.session, self.walk, self.levels = loop, session, Walk(session), levels
        self.y, self.k, self.draws = session.start, torch.zeros(len(session.start), dtype=torch.int64), 0

    def _draw(self) -> Tensor:
        self.draws += 1
        return self.session.noise.step(self.draws - 1, 0.0, 0.0)

    @property
    def most_draws(self) -> int:
        """A bound on the draws of a chain with all its outputs, whatever part of them is run."""
        loop, plan = self.loop, self.session.program.plan
        return plan.steps * _slots(plan) + 2 * (1 + loop.warm_up + loop.outputs * loop.moves)

    @property
    def ratio(self) -> Tensor:
        """ρ of every chain, float64 on the host."""
        return self.levels.ratios[self.k]

    def start(self) -> None:
        """A sample, noise, and the moves before the first output."""
        plan = self.session.program.plan
        x = self.walk.take(plan, self.session.start)[0]
        assert x is not None
        self.draws = plan.steps * _slots(plan)  # what a plan with noise has drawn already
        self.y = x + START_RATIO * self._draw()
        self._find_level()
        for _ in range(self.loop.warm_up):
            self.move()

    def move(self) -> None:
        """One Langevin step at the level of each chain, then another level."""
        path = self.walk.path
        t = path.t_of_lam(-self.ratio.log())
        alpha, ratio = (self.walk.place(v).to(self.y.device, self.y.dtype) for v in (path.alpha(t), self.ratio))
        x0, x = self.walk.ask(alpha * self.y, t)
        y = x / alpha
        self.y = y + 0.5 * self.loop.eta * (x0 - y) / ratio**2 + math.sqrt(self.loop.eta) * self._draw()
        self._find_level()

    def _find_level(self) -> None:
        logits = self.levels(self.y, **self.session.cond).double().cpu()
        if self.loop.likeliest:
            self.k = logits.argmax(1)
            return
        shares = logits.softmax(1).cumsum(1)
        # A number that no batch changes: the first of a keyed draw, carried to (0, 1).
        uniform = torch.special.ndtr(self._draw().flatten(1)[:, :1].double().cpu())
        self.k = torch.searchsorted(shares, uniform).squeeze(1).clamp_max(len(self.levels.ratios) - 1)

    def lowest_of(self, moves: int) -> tuple[Tensor, Tensor]:
        """The state of the lowest level among the one at hand and those after each of `moves` moves; (y, ρ)."""
        y, k = self.y, self.k
        for _ in range(moves):
            self.move()
            lower = self.k < k
            y = torch.where(self.walk.place(lower).to(y.device), self.y, y)
            k = torch.where(lower, self.k, k)
        return y, self.levels.ratios[k]
