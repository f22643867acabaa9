"""A model that reports its questions: the same answers, and the model itself stays as it was."""

import pytest
import torch

from fewstep import VP, sample, wrap
from fewstep.denoisers.reported import reported


def test_every_question_is_reported_and_the_model_is_left_alone():
    den, rows = wrap(lambda x, time: 0.5 * x, VP(), "x0", shape=(2,)), []
    same = sample(reported(den, rows.append), 3, steps=4).x
    assert rows == [3] * 4
    assert torch.equal(same, sample(den, 3, steps=4).x)
    assert rows == [3] * 4


def test_what_is_raised_ends_the_run():
    def stop(rows):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample(reported(wrap(lambda x, time: x, VP(), "x0", shape=(2,)), stop), 1, steps=2)
