"""ResShift: fifteen steps, and four."""

from claims import Measured, claim
from claims.bridges.restored import restored
from fewstep import VP, make_plan
from fewstep.paths import ResShift

FIFTEEN, FOUR = ResShift(15, 0.04), ResShift(4, 0.2)


@claim(
    paper="ResShift: Efficient Diffusion Model for Image Super-resolution by Residual Shifting",
    method="resshift",
    says="15 steps from the degraded picture do as well as 100 of a diffusion that begins at noise.",
    figure="ImageNet ×4: LPIPS .23 and CLIPIQA .59 at 15 steps, on a par with or better than LDM at 100",
)
def fifteen_steps() -> Measured:
    vp = VP.from_betas("scaled_linear")
    ours = restored(make_plan(FIFTEEN, "random-walk", "uniform", 15), FIFTEEN)
    flow = restored(make_plan(FIFTEEN, "dpm-solver++", "uniform", 15), FIFTEEN)
    noise = {n: restored(make_plan(vp, "ddim", "leading", n), vp) for n in (15, 100)}
    rows = {"ResShift's 15 steps": ours, "15 of DDIM from noise": noise[15], "100 of DDIM from noise": noise[100]}
    rows["15 of dpm-solver++ on ResShift's levels"] = flow
    figure = "; ".join(f"{name} {distance:.3f} ({error:.3f})" for name, (distance, error) in rows.items())
    why = (
        "By the distance to x₀ it holds. As samples of the posterior its 15 steps are a little better than 15 of DDIM "
        "and not as good as 100. With an exact denoiser paths differ only in which λ their steps visit and in how they "
        "begin, and a second order on the same 15 levels does better than DDIM's 100."
    )
    holds = ours[0] < 1.1 * noise[100][0]
    return Measured(f"sliced W2 to the exact posterior (RMSE to x₀): {figure}", holds, why)


@claim(
    paper="Efficient Diffusion Model for Image Restoration by Residual Shifting",
    method="resshift-4",
    says="Four steps are as good as fifteen.",
    figure="on a par with or better than the 15 steps of the earlier model in perceptual measures",
)
def four_steps() -> Measured:
    four = restored(make_plan(FOUR, "random-walk", "uniform", 4), FOUR)
    more = restored(make_plan(FIFTEEN, "random-walk", "uniform", 15), FIFTEEN)
    flow = restored(make_plan(FOUR, "dpm-solver++", "uniform", 4), FOUR)
    rows = {"4 steps": four, "15 steps": more, "dpm-solver++ on the 4 levels": flow}
    figure = "; ".join(f"{name} {distance:.3f} ({error:.3f})" for name, (distance, error) in rows.items())
    why = (
        "Four steps are nearer to x₀ and narrower than the posterior. The paper makes up for the narrowness with LPIPS "
        "in the loss, so that its network does not answer with the mean; an exact denoiser has no such term."
    )
    holds = four[0] < 1.1 * more[0]
    return Measured(f"sliced W2 to the exact posterior (RMSE to x₀): {figure}", holds, why)
