"""One thread a worker: two workers with two threads each on two cores wait for one another."""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import torch

torch.set_num_threads(1)
