"""Two processes that share each batch's rows give what one gives, in every process."""

import os

import pytest
import torch
from torch import distributed as dist
from torch.multiprocessing.spawn import start_processes

from fewstep import CFG, VP, sample, wrap
from fewstep.denoisers import Distributed
from fewstep.errors import ArgumentError
from fewstep.guidance import PAG
from fewstep.loops.picard import Picard

LABELS = {"label": [0, 1, 1]}


def model(asked):
    """Its rows are independent to the last bit: arithmetic entry by entry."""

    def net(x, time, label):
        asked.append(len(x))
        return torch.sin(3 * x) * (1 + time[:, None]) + 0.1 * label[:, None]

    return wrap(net, VP(), "eps", shape=(4,), null={"label": 2}, time="t")


def runs(denoiser):
    """What a denoiser gives in several kinds of runs."""
    found = {
        "three rows": sample(denoiser, 3, steps=4, cond=LABELS).x,
        "one row": sample(denoiser, 1, steps=4, cond={"label": 1}).x,
        "guided": sample(denoiser, 3, steps=3, cond=LABELS, guides=[CFG(2.0)], solver="ddpm", grid="uniform").x,
        "a window": Picard("ddpm", "uniform", 12, 0.05, 6)(denoiser, 3, cond=LABELS).x,
    }
    for count in (1, 3):
        x = torch.linspace(-1, 1, 4 * count).reshape(count, 4).requires_grad_()
        answer = denoiser(x, 0.5, label=torch.tensor(LABELS["label"][:count]))
        found[f"gradient of {count}"] = torch.autograd.grad((answer * x).square().sum(), x)[0]
    return found


def work(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    asked = []
    denoiser = Distributed(model(asked))
    torch.save({"found": runs(denoiser), "asked": asked}, f"{folder}/{rank}.pt")
    with pytest.raises(ArgumentError, match="Distributed"):  # the guide reads the network's inside
        sample(denoiser, 1, steps=2, cond={"label": 0}, guides=[PAG(1.0)])
    dist.destroy_process_group()


@pytest.mark.skipif(not hasattr(os, "fork") or not dist.is_gloo_available(), reason="needs fork and gloo")
def test_two_processes_give_what_one_gives(tmp_path, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    asked = []
    want = runs(model(asked))
    start_processes(work, (str(tmp_path),), nprocs=2, start_method="fork")
    both = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    for name, value in want.items():
        for rank in (0, 1):
            assert torch.equal(both[rank]["found"][name], value), name
    # The rows were shared: one process alone answers less than two thirds of what one without peers does.
    assert sum(both[0]["asked"]) + sum(both[1]["asked"]) == sum(asked)
    assert sum(both[0]["asked"]) < 0.67 * sum(asked)
    assert 0.33 * sum(asked) < sum(both[1]["asked"])


def test_without_a_group_it_is_refused():
    with pytest.raises(ArgumentError, match="has not begun"):
        Distributed(model([]))
    with pytest.raises(ArgumentError, match="fewstep denoiser"):
        Distributed(torch.nn.Linear(2, 2))
