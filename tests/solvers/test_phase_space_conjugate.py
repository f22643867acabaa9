"""The conjugate integrator of phase space: exact while the answer stands still, and on its path at every step."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from fewstep import VE, VP, Cosine, Flow, make_plan
from fewstep.analysis import gaussian_w2
from fewstep.paths.phase_space import PhaseSpace
from fewstep.solvers.phase_space_integrators import PhaseSpaceIntegrator


@pytest.mark.parametrize("space", [PhaseSpace(), PhaseSpace(0.4, 1.9, 0.3)])
@pytest.mark.parametrize("lams", [(-4.0, -0.5), (-0.5, 2.0), (2.0, 3.0)])
def test_a_step_is_the_flow_with_the_answer_held(space, lams):
    """dz/db = Fz − ½GGᵀs with s = −Σ⁻¹(z − μ·x̂₀), solved numerically for fixed x̂₀."""
    path, g, n, m = VP(), space.friction, space.momentum_friction, space.mass
    drift, noise = np.array([[-g, 1 / m], [-1, -n]]) / 2, np.diag([g, m * n])
    x0, z = 0.7, np.array([0.9, -0.4])

    def rate(b, state):
        kernel = space.kernel(float(b))
        return drift @ state + 0.5 * noise @ kernel.inverse.numpy() @ (state - kernel.mean.numpy() * x0)

    b = space.b_of_lam(torch.tensor(lams)).numpy()
    want = solve_ivp(rate, b, z, rtol=1e-9, atol=1e-11, method="LSODA").y[:, -1]
    solver = PhaseSpaceIntegrator("conjugate", 1.0, space.friction, space.momentum_friction, space.start)
    # A third time, so that what is unseen after the step is read.
    times = path.t_of_lam(torch.tensor([*lams, lams[1] + 1], dtype=torch.float64))
    step = list(solver(path, times))[1]
    frames = [space.kernel(float(v)).frame for v in b]
    for frame, sigma in zip(frames, path.sigma(times), strict=False):
        frame[:, 0] /= sigma
    held = torch.linalg.solve(frames[0], torch.from_numpy(z))
    known = {("M", 0): held[0], ("M", 1): held[1], ("B", 0): x0}
    after = [sum(v * known[kind, source] for kind, source, v in step.writes[register]) for register in (0, 1)]
    got = (frames[1] @ torch.stack(after)).tolist()
    assert got == pytest.approx(want.tolist(), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("path", [VP(), VE()], ids=lambda p: p.kind)
def test_it_lands_on_its_path_at_every_step(path):
    """The plan passes its own check, opening included; only a start of nothing but noise has to be said."""
    assert make_plan(path, "phase-space-conjugate", "logsnr", 7).deviates == ""
    for other in (Flow(), Cosine()):
        assert "pure noise" in make_plan(other, "phase-space-conjugate", "logsnr", 3).deviates
        assert make_plan(other, "phase-space-conjugate", [0.9, 0.5, 0.0]).deviates == ""


def test_in_few_steps_it_holds_where_splittings_break():
    c = torch.tensor([0.1, 1.0], dtype=torch.float64)

    def error(solver):
        return float(gaussian_w2(make_plan(VP(), solver, "logsnr", evaluations=10), c))

    splittings = [PhaseSpaceIntegrator(s) for s in ("symplectic-euler", "velocity-verlet")]
    assert error("phase-space-conjugate") < 0.5 * min(map(error, splittings))
    assert make_plan(VP(), "phase-space-conjugate", steps=10).evaluations == 10
