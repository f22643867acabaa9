"""Training from masked data: what may enter the loss, and that what no picture showed whole is learnt."""

import pytest
import torch

import fewstep
from fewstep.denoisers import Masked
from fewstep.errors import ArgumentError, WeightsError
from fewstep.networks import build
from fewstep.training.ambient import AmbientDenoising, masked, masks
from fewstep.training.config import TrainingConfig
from fewstep.training.trainer import train

UNET = {"kind": "unet", "channels": 2, "classes": 2, "width": 8, "multipliers": [1], "attention": [0], "patch": 2}
NET = {"kind": "masked", "channels": 1, "classes": 2, "network": UNET}
FIELDS = {
    "network": NET, "path": {"kind": "flow"}, "predicts": "x0", "images": 16 * 250, "batch": 16, "hidden": 0.4,
    "further": 0.25, "rate": 1e-2, "ema": 0.95,
}  # fmt: skip
CONFIG = TrainingConfig(**FIELDS)
# Each picture is of one grey.
IMAGES = torch.randint(1, 256, (300, 1, 1, 1), generator=torch.Generator().manual_seed(0)).byte().repeat(1, 1, 8, 8)
LABELS = torch.arange(300) % 2


def task(images=IMAGES, **changes):
    return masked(TrainingConfig(**{**FIELDS, **changes}), images, LABELS)


class Recorder:
    """A network that notes what it is shown and answers with a constant or what it is given."""

    def __init__(self, reply=None):
        self.reply, self.told = reply, None

    def __call__(self, x, lam, label, mask):
        self.told = (x, mask)
        return torch.zeros_like(x) if self.reply is None else self.reply


def test_a_mask_belongs_to_a_picture_and_hides_its_share():
    seen = masks(CONFIG, IMAGES)
    assert torch.equal(seen, masks(CONFIG, IMAGES))
    assert float(seen.float().mean()) == pytest.approx(0.6, abs=0.02)
    assert not torch.equal(seen[0], seen[1])


def test_the_network_is_shown_less_than_was_seen_and_judged_by_all_that_was():
    one, net = task(), Recorder()
    loss = float(one.loss(net, 3, "cpu"))
    x, shown = net.told
    pick = torch.randint(300, (16,), generator=torch.Generator().manual_seed(3))
    seen = one.seen[pick].float()
    assert (shown <= seen).all()
    assert float(shown.sum() / seen.sum()) == pytest.approx(0.75, abs=0.05)
    assert (x[shown == 0] == 0).all()
    assert (x[shown == 1] != 0).all()
    truth = IMAGES[pick].float() / 127.5 - 1
    assert loss == pytest.approx(float((seen * truth).square().sum() / seen.sum()), rel=1e-5)
    # An answer that is right where the picture was seen is perfect, whatever it says elsewhere.
    assert float(one.loss(Recorder(torch.where(seen.bool(), truth, 99.0)), 3, "cpu")) < 1e-12
    # Right only where the network was shown something it is not.
    assert float(one.loss(Recorder(torch.where(shown.bool(), truth, 99.0)), 3, "cpu")) > 100
    other = AmbientDenoising(one.config, one.images, LABELS, one.seen)
    other.loss(net, 4, "cpu")
    assert not torch.equal(net.told[1], shown)


def test_hidden_numbers_are_gone_before_the_first_step():
    task = masked(CONFIG, IMAGES, LABELS)
    assert (task.images[~task.seen] == 0).all()
    assert torch.equal(task.images[task.seen], IMAGES[task.seen])


def test_it_learns_what_no_picture_showed_whole_and_loads(tmp_path):
    """All pixels of a picture are one grey: the hidden ones are told by the others."""
    config = TrainingConfig(**{**FIELDS, "batch": 8, "images": 8 * 260})
    file = train(masked(config, IMAGES, LABELS), tmp_path, ["a", "b"], every=125)
    den = fewstep.load(file)
    assert isinstance(den, Masked)
    x0 = torch.tensor([-0.6, 0.0, 0.5]).reshape(3, 1, 1, 1).expand(3, 1, 8, 8)
    mask = (torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1)) < 0.5).float()
    noisy = 0.8 * x0 + 0.2 * torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        answer = den(noisy, 0.2, mask=mask)
        assert torch.equal(answer, den(torch.where(mask > 0, noisy, 9.0), 0.2, mask=mask))
        hidden = (answer - x0)[mask == 0]
        assert float(hidden.square().mean()) < 0.05  # the pictures' variance is 0.33
        assert den(noisy, 0.2).shape == noisy.shape


def test_what_cannot_be_learnt_from_masked_data_is_refused():
    for changes in ({"predicts": "v"}, {"flip": True}, {"hidden": 0.0}, {"further": 1.0}):
        with pytest.raises(ArgumentError, match="a masked network predicts x0"):
            masked(TrainingConfig(**{**FIELDS, **changes}), IMAGES, LABELS)
    with pytest.raises(WeightsError, match="needs 2 channels and 2 classes"):
        build({**NET, "network": {**UNET, "channels": 1}})
