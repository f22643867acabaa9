"""What a newcomer gets wrong first is refused by name: what it was and what is allowed."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

import fewstep
from fewstep.errors import ArgumentError, PlanError
from fewstep.grids import grid_named
from fewstep.kdiffusion import sample_fewstep
from fewstep.loops import loop_named
from fewstep.pictures import read_recipe
from fewstep.restoration import Gaussian, Mask, Measurement, restore
from fewstep.restoration.from_picture import Job
from fewstep.restoration.from_picture import read as read_picture
from fewstep.search import FKSteering
from fewstep.solvers import solver_named

MNIST = fewstep.load("mnist")


def _plain(net=lambda x, time: x, shape=(1, 4, 4)):
    return fewstep.wrap(net, fewstep.VP(), shape=shape)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"num_inference_steps": 8}, "'num_inference_steps'; here it is steps=8"),
        ({"guidance_scale": 2.0}, r"here it is guides=\[fewstep.CFG\(2.0\)\]"),
        ({"label": 3}, "here it is cond={'label': 3}"),
        ({"generator": None}, "here it is seed=0"),
        ({"step": 8}, "unknown argument 'step'; did you mean 'steps'"),
        ({"start": np.zeros((1, 4, 4))}, "must be a floating-point tensor .* got ndarray"),
        (
            {"guides": [fewstep.CFG(2.0)], "cond": {}},
            "needs a null .* cond= gives none; the model has none: give null=",
        ),
        ({"guides": [fewstep.CFG(2.0)], "evaluations": 1}, "evaluations=1 is fewer than one step .* 2"),
        ({"cond": {"label": 3}}, "takes no conditions, got 'label'"),
        ({"grid": "sgm_uniform"}, "'sgm_uniform'; what ComfyUI and A1111 call so is 'trailing' here"),
    ],
)
def test_arguments_of_other_tools_are_told_their_names_here(given, says):
    with pytest.raises(ArgumentError, match=says):
        fewstep.sample(_plain(), 1, **given)


def test_conditions_that_the_network_does_not_take():
    with pytest.raises(ArgumentError, match="unknown condition 'class'; did you mean 'label'"):
        fewstep.sample(MNIST, 1, steps=1, cond={"class": 3})
    for label, got in (("three", "'three'"), (torch.tensor([1.5]), "a tensor of torch.float32")):
        with pytest.raises(ArgumentError, match=f"labels must be 0 … 9, or 10 for none, as whole numbers, got {got}"):
            fewstep.sample(MNIST, 1, steps=1, cond={"label": label})
    told = _plain(lambda x, time, **cond: x * len(cond))
    assert fewstep.sample(told, 1, steps=1, cond={"anything": 3}).x.isfinite().all()


def test_an_answer_that_is_no_tensor_and_a_picture_that_does_not_fold():
    for answer in ((torch.zeros(1),), None):
        with pytest.raises(ArgumentError, match=f"must answer with a tensor, got {type(answer).__name__}"):
            fewstep.sample(_plain(lambda x, time, answer=answer: answer), 1, steps=1)
    with pytest.raises(ArgumentError, match=r"multiples of \d+ here, got \(14, 14\)"):
        MNIST(torch.zeros(1, 1, 14, 14), 0.5)


def test_models_that_are_not_there(tmp_path):
    with pytest.raises(ArgumentError, match="no file or folder lies at '/no/such/model'"):
        fewstep.load("/no/such/model")
    with pytest.raises(ArgumentError, match=r"lies at 'owner/name', so it is taken for a hub id: .* 40 hexadecimal"):
        fewstep.load("owner/name")
    with pytest.raises(ArgumentError, match=r"is a classifier and no denoiser: .*load_features\('mnist'\)"):
        fewstep.load("mnist-classifier")
    with pytest.raises(FileNotFoundError, match=r"no such folder: '.*/none'"):
        fewstep.make_plan(fewstep.VP(), steps=2).save(str(tmp_path / "none" / "plan.json"))
    bridge, y = fewstep.load("mnist-diffusion-bridge"), torch.zeros(1, 1, 28, 28)
    with pytest.raises(PlanError, match="begins without noise: take solver='dbim'"):
        fewstep.sample(bridge, start=bridge.start(y), cond={"y": y}, solver="ddim", steps=2)


def test_parameters_that_a_method_does_not_have():
    with pytest.raises(ArgumentError, match="'etaa'; its parameters are answers, rule, eta, lower_order_final"):
        solver_named("ddim", etaa=1.0)
    with pytest.raises(ArgumentError, match="its parameters are solver, grid, steps, tolerance, window"):
        loop_named("paradigms", windows=3)
    seen = Measurement.simulate(Mask.half(4, 4), torch.zeros(1, 1, 4, 4), Gaussian(0.1))
    with pytest.raises(ArgumentError, match=r"neither restore nor method 'pgdm' takes 'n'; .* scale, data_variance"):
        restore(_plain(), seen, "pgdm", n=4)
    with pytest.raises(ArgumentError, match="weighings=10 do not fit into 4 steps"):
        fewstep.sample(_plain(), 1, steps=4, search=FKSteering(lambda x: x.mean((1, 2, 3))))
    assert "tensor" not in repr(seen)


def test_measurements_simulated_from_the_wrong_things():
    x = torch.zeros(1, 1, 4, 4)
    for operator, data, noise, says in (
        (Mask.half(4, 4), x, 0.05, "noise must be Gaussian"),
        (Mask.half(4, 4), x.numpy(), None, "x must be a tensor .* got ndarray"),
        (None, x, None, r"operator must have A\(x\)"),
    ):
        with pytest.raises(ArgumentError, match=says):
            Measurement.simulate(operator, data, noise)
    with pytest.raises(ArgumentError, match="mask must be a tensor of zeros and ones, got None"):
        Mask(None)


def test_a_picture_alone_has_its_own_size_and_a_name_that_fits(tmp_path):
    out = fewstep.sample(MNIST, 2, steps=1)
    out.save(tmp_path / "two.png")
    one = dataclasses.replace(out, x=out.x[:1])
    one.save(tmp_path / "one.png")
    with Image.open(tmp_path / "two.png") as two, Image.open(tmp_path / "one.png") as alone:
        assert (two.size, alone.size) == ((59, 30), (28, 28))
        assert np.array_equal(np.asarray(alone), np.asarray(two)[1:29, 1:29])
    with pytest.raises(ArgumentError, match=r"must end in \.png, got .*x\.jpg"):
        out.save(tmp_path / "x.jpg")
    with pytest.raises(ArgumentError, match="decoded first"):
        dataclasses.replace(out, x=torch.zeros(1, 8, 4, 4)).save(tmp_path / "x.png")
    Image.new("L", (4, 4)).save(tmp_path / "plain.png")
    with pytest.raises(ArgumentError, match="the file holds none"):
        read_recipe(str(tmp_path / "plain.png"))
    assert repr(out).startswith("<Output x (2, 1, 28, 28), 1 evaluations a sample")
    assert len(repr(out)) < 200


def test_a_name_with_a_grid_runs_on_its_own_in_a_comparison():
    result = fewstep.compare(_plain(), ["ddim", "dpmpp_2m_karras"], [4], grids=["logsnr", "uniform"], n=2)
    assert [(row.solver, row.grid) for row in result.rows] == [
        ("ddim", "logsnr"), ("ddim", "uniform"), ("dpmpp_2m_karras", "karras-trained"),
    ]  # fmt: skip
    assert "tensor" not in repr(result)
    width = result._figure().axes[-1].images[0].get_array().shape[1]
    assert width == 2 * 5 + 1  # two pictures, no empty places


def test_sigmas_are_the_grid():
    levels = torch.tensor([10.0, 1.0, 0.0])
    with pytest.raises(ArgumentError, match="names the grid itself"):
        sample_fewstep(lambda x, sigma: x, torch.zeros(1, 1, 2, 2), levels, solver="dpmpp_2m_karras")
    with pytest.raises(ArgumentError, match=r"sigmas must fall, got \[0.0, 1.0, 10.0\]"):
        sample_fewstep(lambda x, sigma: x, torch.zeros(1, 1, 2, 2), levels.flip(0))
    with pytest.raises(ArgumentError, match="did you mean 'linspace'"):
        grid_named("linspce")


@pytest.mark.parametrize("kind", ["grey", "rgb", "alpha", "sixteen", "one bit"])
def test_a_mask_hides_the_same_pixels_in_every_kind_of_picture(tmp_path, kind):
    known = np.full((28, 28), 255, np.uint8)
    known[8:20, 8:20] = 0
    painted = {
        "grey": Image.fromarray(known), "rgb": Image.fromarray(np.stack([known] * 3, -1)),
        "alpha": Image.fromarray(np.dstack([np.full((28, 28, 3), 255, np.uint8), known])),
        "sixteen": Image.fromarray(known.astype(np.uint16) * 257), "one bit": Image.fromarray(known).convert("1"),
    }[kind]  # fmt: skip
    painted.save(tmp_path / "known.png")
    Image.fromarray(np.full((28, 28), 255, np.uint8)).save(tmp_path / "p.png")
    seen = Job(tmp_path / "p.png", mask=tmp_path / "known.png").measurement(MNIST)[0]
    assert torch.equal(seen.y[0, 0] > 0, torch.from_numpy(known > 0))
    Image.fromarray(0 * known).save(tmp_path / "black.png")
    with pytest.raises(ArgumentError, match="white nowhere"):
        Job(tmp_path / "p.png", mask=tmp_path / "black.png").measurement(MNIST)


def test_sixteen_bits_are_scaled_and_not_cut(tmp_path):
    Image.fromarray(np.array([[0, 257 * 100], [257 * 200, 65535]], np.uint16)).save(tmp_path / "deep.png")
    assert read_picture(tmp_path / "deep.png", 1, (0.0, 255.0)).flatten().tolist() == [0.0, 100.0, 200.0, 255.0]


def test_parts_that_the_manual_names_are_there_without_an_import_of_their_own():
    for name in (
        "tuning.tune_each",
        "kdiffusion.sample_fewstep",
        "aliases.OTHERS",
        "denoisers.Distributed",
        "__version__",
    ):
        home = fewstep
        for part in name.split("."):
            home = getattr(home, part)
