"""PAHI: start noises made for a preference, for each prompt and for all."""

import torch
from torch import Tensor

from claims import Measured, claim
from claims.search.digits import classifier, model
from fewstep import VE, sample
from fewstep.search import PAHI, OneHot, Reward
from fewstep.worlds import GaussianMixture

PAPER = "Model-Agnostic Human Preference Inversion in Diffusion Models"


@claim(
    paper=PAPER,
    method="pahi",
    says="A tailored noise distribution improves preference at hardly any cost at use, and one for each prompt more.",
    figure="none that we could verify",
)
def tailored_noise_is_preferred() -> Measured:
    world = GaussianMixture([0.5, 0.5], torch.tensor([[-1.0], [1.0]]), torch.full((2, 1), 0.5), component_labels=[0, 1])
    den, cond = world.denoiser(VE(2.0)), {"label": [0, 1] * 100}
    reward = Reward(lambda x, label: -(x[:, 0] - 2 * (2.0 * label - 1)).square(), ("label",))
    means, spreads = {}, {}
    for name, features, pull in (
        ("each prompt", OneHot(2), 0.05),
        ("all", None, 0.05),
        ("each, β = 0", OneHot(2), 0.0),
    ):
        fitted = PAHI(reward, features, pull, 200).fit(den, 2, steps=1, cond={"label": [0, 1]})
        out = sample(den, 200, search=fitted, steps=1, cond=cond)
        means[name], spreads[name] = float(out.rewards.mean()), float(out.x[1::2].std())
    plain = sample(den, 200, solver="ddim", steps=1, cond=cond).x
    means["none"] = float(-(plain[:, 0] - 2 * torch.tensor([-1.0, 1.0]).repeat(100)).square().mean())
    figure = (
        "one-step sampler of two classes, reward −(x ∓ 2)² by class, mean reward: "
        + "; ".join(f"{k} {v:.3f}" for k, v in means.items())
        + f". Deviation within a class with β = .05 {spreads['each prompt']:.3f}, without {spreads['each, β = 0']:.3f}"
    )
    good = means["each prompt"] > means["all"] and means["each prompt"] > means["none"]
    return Measured(figure, good, "Without a pull to N(0, I) every prompt collapses to one sample.")


@claim(
    paper=PAPER,
    method="pahi",
    says="Samples of very few steps become better without touching the model.",
    figure="one-step text-to-image models, PickScore and ImageReward; no figures that we could verify",
)
def few_steps_become_better() -> Measured:
    def legible(x: Tensor, label: Tensor) -> Tensor:
        return classifier().network(x).log_softmax(1).gather(1, label[:, None])[:, 0]

    den, cond = model(), {"label": list(range(10))}
    fitted = PAHI(Reward(legible, ("label",)), OneHot(11), 0.002, 40, 20, 0.03).fit(den, 10, steps=2, cond=cond)
    many = {"label": list(range(10)) * 6}
    tailored = sample(den, 60, search=fitted, steps=2, cond=many, seed=9)
    plain = sample(den, 60, solver="ddim", steps=2, cond=many, seed=9).x
    with torch.no_grad():
        before = legible(plain, torch.tensor(many["label"]))
    figure = (
        f"shipped digits model, two steps, S = log p(label|x), 800 noises to fit: mean S {float(before.mean()):.3f} → "
        f"{float(tailored.rewards.mean()):.3f}, read as their label "
        f"{float((before.exp() > 0.5).double().mean()):.0%} → "
        f"{float((tailored.rewards.exp() > 0.5).double().mean()):.0%}"
    )
    return Measured(figure, float(tailored.rewards.mean()) > float(before.mean()))
