"""A model told embeddings in the place of labels is the same model, and takes CADS."""

import pytest
import torch

import fewstep
from fewstep import CFG, VP, wrap
from fewstep.errors import ArgumentError
from fewstep.guidance import CADS, embedded_labels


def test_an_embedding_stands_for_its_label_and_cads_moves_it():
    model = fewstep.load("mnist")
    told, table = embedded_labels(model)
    labels, options = torch.tensor([3, 8]), {"steps": 3, "seed": 1}
    want = fewstep.sample(model, 2, guides=[CFG(2.0)], cond={"label": labels}, **options)
    got = fewstep.sample(told, 2, guides=[CFG(2.0)], cond={"label": table[labels]}, **options)
    assert torch.equal(got.x, want.x)
    assert table.shape[0] == 11
    annealed = fewstep.sample(told, 2, guides=[CFG(2.0), CADS("label", 1.0)], cond={"label": table[labels]}, **options)
    assert (annealed.x - want.x).abs().max() > 0.1
    # The model that was given is as it was.
    assert torch.equal(fewstep.sample(model, 2, guides=[CFG(2.0)], cond={"label": labels}, **options).x, want.x)


def test_a_network_without_a_table_is_refused():
    with pytest.raises(ArgumentError, match="no table of labels"):
        embedded_labels(wrap(lambda x, t: x, VP(), "x0", shape=(3,)))
