"""References: what ships of real pictures, and files of them, whole or refused."""

import pytest
import torch

from fewstep.errors import ArgumentError, WeightsError
from fewstep.loading import shipped
from fewstep.metrics import frechet_distance, gaussian_frechet
from fewstep.networks import weights
from fewstep.networks.features import load_features
from fewstep.networks.reference import FORMAT, load_reference, read_reference, write_reference


@pytest.mark.parametrize(("name", "size"), [("mnist", 48), ("cifar10", 128)])
def test_what_ships_agrees_with_itself_and_with_its_classifier(name, size):
    reference, head = load_reference(name), load_features(name).network.head
    assert reference.mean.shape == (size,)
    assert reference.labels.bincount().tolist() == [100] * 10
    # 1,000 of the 10,000 pictures: their moments are the whole's but for the draw.
    rows = reference.features.double()
    own = gaussian_frechet(rows.mean(0), torch.cov(rows.T), reference.mean, reference.covariance)
    assert own < 0.02 * reference.covariance.trace()
    right = (head(reference.features).argmax(1) == reference.labels).float().mean()
    assert right > {"mnist": 0.98, "cifar10": 0.8}[name]
    assert f"{name}-reference" not in shipped()


def test_a_file_holds_the_moments_of_all_and_the_first_of_each_class(tmp_path):
    features = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)) @ torch.tensor(
        [[1.0, 0, 0], [2, 1, 0], [0, 0, 3]]
    )
    labels = torch.arange(40) % 2
    written = write_reference(tmp_path / "two.safetensors", features, labels, kept=5)
    assert torch.allclose(written.mean, features.double().mean(0), atol=1e-6)
    assert torch.allclose(written.covariance, torch.cov(features.double().T), rtol=1e-5, atol=1e-6)
    assert written.labels.tolist() == [0] * 5 + [1] * 5
    assert torch.allclose(written.features, torch.cat([features[:10:2], features[1:10:2]]), rtol=1e-3)
    far = frechet_distance(features + 1, features)
    mean, covariance = (features + 1).double().mean(0), torch.cov(features.double().T)
    assert torch.allclose(gaussian_frechet(mean, covariance, written.mean, written.covariance), far, rtol=1e-3)


def test_what_is_no_reference_is_refused(tmp_path):
    with pytest.raises(ArgumentError, match="unknown reference"):
        load_reference("cifar100")
    bad = tmp_path / "bad.safetensors"
    about = {"format": FORMAT, "version": weights.VERSION}
    weights.write_tensors(bad, {"mean": torch.ones(2)}, about)
    with pytest.raises(WeightsError, match="must hold mean"):
        read_reference(bad)
    tensors = {"mean": torch.ones(2), "covariance": torch.eye(3), "features": torch.ones(1, 2), "labels": torch.ones(1)}
    weights.write_tensors(bad, tensors, about)
    with pytest.raises(WeightsError, match="do not fit together"):
        read_reference(bad)
