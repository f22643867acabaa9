"""One thread a worker: two workers with two threads each on two cores wait for one another."""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded():
    """A network made without a seed is the same one in every order of the tests."""
    torch.manual_seed(0)
