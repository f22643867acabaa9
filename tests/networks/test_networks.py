"""Networks: shapes, the null label, the round trip of their configs, and what they do before training."""

import json

import pytest
import torch

from fewstep.errors import ArgumentError, WeightsError
from fewstep.networks import NETWORKS, Classifier, DiT, SelfAttention, UNet, build

DENOISERS = {
    "unet": lambda: UNet(3, 10, width=8, multipliers=(1, 2), depth=1, attention=(0, 2)),
    "unet-folded": lambda: UNet(1, 10, width=8, multipliers=(1, 2, 2), depth=2, attention=(0, 0, 2), patch=2),
    "dit": lambda: DiT(3, 10, side=16, patch=4, width=16, depth=2, heads=2),
}


@pytest.fixture(params=DENOISERS)
def net(request):
    """A denoiser none of whose weights are zero, in place of a trained one."""
    torch.manual_seed(0)
    network = DENOISERS[request.param]()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network.eval()


def inputs(net, count=3):
    return torch.randn(count, net.config["channels"], 16, 16), torch.linspace(-5.0, 6.0, count)


def test_output_has_the_shape_of_the_input(net):
    x, time = inputs(net)
    assert net(x, time, torch.tensor([0, 4, 9])).shape == x.shape


def test_no_label_is_the_null_label_and_differs_from_every_class(net):
    x, time = inputs(net, 1)
    null = net(x, time)
    torch.testing.assert_close(null, net(x, time, torch.tensor([10])), rtol=0, atol=0)
    for label in range(10):
        assert (net(x, time, torch.tensor([label])) - null).abs().max() > 1e-4


def test_output_depends_on_time(net):
    x, _ = inputs(net, 1)
    answers = [net(x, torch.tensor([lam])) for lam in (-5.0, -1.0, 2.0, 6.0)]
    assert all((a - b).abs().max() > 1e-3 for i, a in enumerate(answers) for b in answers[:i])


def test_a_row_is_a_row(net):
    x, time = inputs(net)
    label = torch.tensor([1, 10, 7])
    for i in range(3):
        alone = net(x[i : i + 1], time[i : i + 1], label[i : i + 1])
        torch.testing.assert_close(net(x, time, label)[i : i + 1], alone, rtol=1e-3, atol=1e-3)


def test_self_attention_can_be_found_and_replaced(net):
    x, time = inputs(net)
    before = net(x, time)
    names = [name for name, module in net.named_modules() if isinstance(module, SelfAttention)]
    assert names
    net.set_submodule(names[0], torch.nn.Identity())
    assert (net(x, time) - before).abs().max() > 1e-4


@pytest.mark.parametrize("name", DENOISERS)
def test_an_untrained_denoiser_answers_zero(name):
    net = DENOISERS[name]()
    assert net(*inputs(net)).count_nonzero() == 0


@pytest.mark.parametrize("make", [*DENOISERS.values(), lambda: Classifier(3, 10, width=8)])
def test_config_is_json_and_rebuilds_the_network(make):
    net = make()
    again = build(json.loads(json.dumps(net.config)))
    assert again.config == net.config
    again.load_state_dict(net.state_dict())
    assert type(again) is NETWORKS[net.config["kind"]]


def test_self_attention_is_softmax_attention():
    torch.manual_seed(0)
    attention = SelfAttention(6, 2)
    tokens = torch.randn(2, 5, 6)
    q, k, v = (part.view(2, 5, 2, 3) for part in attention.qkv(tokens).chunk(3, -1))
    weights = (torch.einsum("bihd,bjhd->bhij", q, k) / 3**0.5).softmax(-1)
    expected = attention.out(torch.einsum("bhij,bjhd->bihd", weights, v).reshape(2, 5, 6))
    torch.testing.assert_close(attention(tokens), expected)


def test_classifier_head_reads_its_features():
    net = Classifier(1, 7, width=8).eval()
    x = torch.randn(4, 1, 28, 28)
    features = net.features(x)
    assert features.shape == (4, 32)
    torch.testing.assert_close(net(x), features @ net.head.weight.T + net.head.bias)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"kind": "resnet"}, "unknown network 'resnet'"),
        ({}, "unknown network None"),
        ({"kind": "unet", "channels": 3, "classes": 10, "colour": 1}, "colour"),
        ({"kind": "unet", "channels": 3, "classes": 10, "width": 12}, "cannot be built"),
        ({"kind": "dit", "channels": 3, "classes": 10, "side": 30, "patch": 4}, "multiple of patch"),
    ],
)
def test_a_bad_config_is_refused(config, message):
    with pytest.raises(WeightsError, match=message):
        build(config)


def test_a_class_that_is_not_there_is_refused_by_name(net):
    x, time = inputs(net)
    with pytest.raises(ArgumentError, match=r"labels must be 0 … 9, or 10 for none, got \[3, 99\]"):
        net(x, time, torch.tensor([3, 99, 3]))
