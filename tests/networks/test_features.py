"""Features of the shipped classifiers: the penultimate layer's, in batches, for the right pictures only."""

import pytest
import torch

from fewstep.errors import ArgumentError, WeightsError
from fewstep.networks import features
from fewstep.networks.features import load_features


@pytest.fixture(scope="module")
def mnist():
    return load_features("mnist")


def pictures(n, *shape):
    return torch.rand((n, *shape), generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_the_linear_head_on_the_features_gives_the_logits(mnist):
    x = pictures(5, 1, 28, 28)
    seen, head = mnist(x), mnist.network.head
    assert seen.shape == (5, 48)
    logits = seen @ head.weight.T + head.bias
    assert torch.allclose(logits, mnist.network(x), atol=1e-5)
    assert torch.allclose(mnist.classify(x), logits.exp() / logits.exp().sum(1, keepdim=True), atol=1e-6)


def test_batches_are_the_whole_without_gradients(mnist, monkeypatch):
    x = pictures(7, 1, 28, 28).requires_grad_()
    whole, probabilities = mnist(x), mnist.classify(x)
    sizes, network = [], mnist.network
    hook = network.body.register_forward_hook(lambda module, inputs, output: sizes.append(len(inputs[0])))
    monkeypatch.setattr(features, "BATCH", 3)
    parts = mnist(x)
    hook.remove()
    assert sizes == [3, 3, 1]
    assert torch.allclose(parts, whole, atol=1e-5)
    assert torch.allclose(mnist.classify(x), probabilities, atol=1e-5)
    assert not whole.requires_grad
    assert not network.training


def test_cifar10_has_its_own_shape():
    seen = load_features("cifar10")(pictures(2, 3, 32, 32))
    assert seen.shape[0] == 2
    assert seen.ndim == 2


@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(2, 3, 28, 28), torch.zeros(2, 1, 32, 32), torch.zeros(1, 28, 28), torch.zeros(0, 1, 28, 28),
        torch.zeros(2, 1, 28, 28, dtype=torch.uint8), torch.tensor(1.0),
    ],
    ids=["channels", "side", "single", "none", "uint8", "scalar"],
)  # fmt: skip
def test_other_pictures_are_refused(mnist, x):
    for function in (mnist, mnist.classify):
        with pytest.raises(ArgumentError, match=r"of shape \(n, 1, 28, 28\)"):
            function(x)


def test_other_names_and_models_are_refused(tmp_path):
    with pytest.raises(ArgumentError, match="unknown classifier 'mnits'; did you mean 'mnist'"):
        load_features("mnits")
    with pytest.raises(WeightsError, match="no weight file"):
        load_features(tmp_path / "none.safetensors")
    with pytest.raises(WeightsError, match="no classifier"):
        load_features(features.ASSETS / "mnist.safetensors")
