"""The peers that benchmarks and tests stand beside."""

import importlib
import importlib.util
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

STUBS = ("k_diffusion", "k_diffusion.utils", "torchdiffeq", "torchsde")


@contextmanager
def k_diffusion() -> Iterator[Any]:
    """k-diffusion's module of samplers, or None where it is not installed.

    What else its package imports (training, other networks) is not needed for them, and is stood in for.
    """
    found = importlib.util.find_spec("k_diffusion")
    if found is None:
        yield None
        return
    kept = {name: sys.modules.get(name) for name in STUBS}
    for name in STUBS:
        sys.modules[name] = types.ModuleType(name)
    stub: dict[str, Any] = dict(sys.modules)
    stub["torchdiffeq"].odeint = None
    stub["k_diffusion"].__path__ = found.submodule_search_locations
    stub["k_diffusion"].utils = stub["k_diffusion.utils"]
    stub["k_diffusion.utils"].append_dims = lambda x, n: x.reshape(x.shape + (1,) * (n - x.ndim))
    try:
        yield importlib.import_module("k_diffusion.sampling")
    finally:
        for name, module in kept.items():
            sys.modules.pop(name) if module is None else sys.modules.update({name: module})
        sys.modules.pop("k_diffusion.sampling", None)
