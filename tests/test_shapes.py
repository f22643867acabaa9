"""Shapes broadcast as torch's own do."""

import pytest
import torch

from fewstep.shapes import broadcast_shapes


@pytest.mark.parametrize("shapes", [[()], [(), (3, 1)], [(2,), (3, 1), (1, 1, 1)], [(4, 1, 5), (1, 6, 1)], []])
def test_as_torch_does(shapes):
    found = broadcast_shapes(*map(torch.Size, shapes))
    assert isinstance(found, torch.Size)
    assert found == torch.broadcast_shapes(*shapes)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="mismatch"):
        broadcast_shapes((2,), (3,))
