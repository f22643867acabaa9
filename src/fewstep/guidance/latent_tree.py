"""A latent-tree probabilistic circuit: a distribution of quantised pixels whose conditionals are all exact.

    p(x) = Σ_z p(z_root)·Π_i p(z_i | z_parent(i))·p(x_i | z_i),      z_i ∈ {1 … H}, x_i ∈ {1 … V}

The tree is that of Chow and Liu, the spanning tree with the most mutual information of neighbouring pixels.  Evidence
is soft, e_i(x_i) ≥ 0 for every pixel: one pass from the leaves to the root gives log Z = log Σ_x p(x)·Π_i e_i(x_i), and

    p(x_i = v | evidence) = ∂ log Z/∂ log e_i(v),

as the derivative in a parameter's logarithm is the expected count that a step of EM needs.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fewstep.errors import ArgumentError

# The log of what cannot be: finite, so that derivatives are, and far below what float64 tells from 0.
IMPOSSIBLE = -1e4


@dataclass(frozen=True, eq=False)
class LatentTree:
    """The circuit of D pixels, one latent each.

    Args:
        parents: the parent of each pixel, −1 at the root alone; parents may stand after their children.
        root: log p(z_root), (H,).
        edges: log p(z_i = h | z_parent = g) at [i, g, h], (D, H, H); the root's is not looked at.
        leaves: log p(x_i = v | z_i = h) at [i, h, v], (D, H, V).

    Raises:
        ArgumentError: shapes that do not fit, or parents that are no tree.
    """

    parents: tuple[int, ...]
    root: Tensor
    edges: Tensor
    leaves: Tensor

    def __post_init__(self) -> None:
        count, states = len(self.parents), len(self.root)
        if self.edges.shape != (count, states, states) or self.leaves.shape[:2] != (count, states):
            raise ArgumentError(
                f"{count} parents and {states} states need edges ({count}, {states}, {states}) and leaves ({count}, "
                f"{states}, levels), got {tuple(self.edges.shape)} and {tuple(self.leaves.shape)}"
            )
        floors = [(nodes.to(self.root.device), above.to(self.root.device)) for nodes, above in _floors(self.parents)]
        object.__setattr__(self, "_floors", floors)

    @property
    def levels(self) -> int:
        """V."""
        return self.leaves.shape[2]

    def to(self, device: torch.device | str) -> "LatentTree":
        """The circuit on another device; itself where it is there."""
        if self.root.device == torch.device(device):
            return self
        return LatentTree(self.parents, self.root.to(device), self.edges.to(device), self.leaves.to(device))

    def log_evidence(self, evidence: Tensor) -> Tensor:
        """log Z, (batch,): the log-probability of the evidence.

        Args:
            evidence: log e_i(v), (batch, D, V), `IMPOSSIBLE` for what is not; zeros where nothing is known.

        Raises:
            ArgumentError: evidence of another shape.
        """
        if evidence.ndim != 3 or evidence.shape[1:] != (len(self.parents), self.levels):
            raise ArgumentError(
                f"evidence must be (batch, {len(self.parents)}, {self.levels}), got {tuple(evidence.shape)}"
            )
        seen = _summed(self.leaves.mT, evidence.movedim(1, 0))  # (D, batch, H)
        below = seen
        for nodes, above in self._floors[:-1]:  # type: ignore[attr-defined]
            told = _summed(self.edges[nodes].mT, below[nodes])
            below = below.index_add(0, above, told)
        top = below[self._floors[-1][0][0]]  # type: ignore[attr-defined]
        return (top + self.root).logsumexp(-1)

    def marginals(self, evidence: Tensor) -> Tensor:
        """p(x_i = v | evidence), (batch, D, V), exact; part of the graph where the evidence is.

        Args:
            evidence: as for `log_evidence`.
        """
        through = evidence.requires_grad
        with torch.enable_grad():
            at = evidence if through else evidence.detach().requires_grad_()
            total = self.log_evidence(at).sum()
            return torch.autograd.grad(total, at, create_graph=through)[0]

    def improved(self, pixels: Tensor, pseudocount: float = 0.1, chunk: int = 250) -> tuple["LatentTree", float]:
        """(The circuit after one step of EM, the mean log-likelihood before it); with no pseudocount it never falls.

        Args:
            pixels: (n, D), whole numbers 0 … V − 1.
            pseudocount: how many further samples of every state are thought to have been seen, spread evenly.
            chunk: how many samples are looked at together.
        """
        parts = [p.detach().clone().requires_grad_() for p in (self.root, self.edges, self.leaves)]
        tree, total = replace(self, root=parts[0], edges=parts[1], leaves=parts[2]), 0.0
        for some in pixels.split(chunk):
            log = tree.log_evidence(certain(some, self.levels, self.leaves.dtype)).sum()
            log.backward()
            total += float(log.detach())
        counts = [p.grad + pseudocount / p.shape[-1] for p in parts if p.grad is not None]
        tiny = torch.finfo(self.leaves.dtype).tiny
        logs = [(c / c.sum(-1, keepdim=True).clamp_min(tiny)).clamp_min(tiny).log() for c in counts]
        # A root has no edge to count; its row stays what it was.
        logs[1][list(self.parents).index(-1)] = self.edges[list(self.parents).index(-1)]
        return replace(self, root=logs[0], edges=logs[1], leaves=logs[2]), total / len(pixels)


def certain(pixels: Tensor, levels: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """The evidence (n, D, V) of pixels (n, D) that are known: 0 at the level seen, `IMPOSSIBLE` elsewhere."""
    return torch.where(torch.nn.functional.one_hot(pixels.long(), levels).bool(), 0.0, IMPOSSIBLE).to(dtype)


def fit_latent_tree(
    pixels: Tensor, levels: int, states: int = 8, rounds: int = 20, pseudocount: float = 0.1, seed: int = 0
) -> LatentTree:
    """The circuit on the Chow–Liu tree of pixels, trained by EM from the clusters around random samples.

    Args:
        pixels: (n, D), whole numbers 0 … levels − 1.
        levels: V, at least 2.
        states: H, from 2 to n.
        rounds: steps of EM, at least 0.
        pseudocount: see `LatentTree.improved`.
        seed: which samples the clusters begin around.

    Raises:
        ArgumentError: pixels out of their range, or too few of them for the states.
    """
    if pixels.ndim != 2 or pixels.min() < 0 or pixels.max() >= levels or not 2 <= states <= len(pixels):
        raise ArgumentError(
            f"pixels must be (n, D) in 0 … {levels - 1} and states 2 … n, got {tuple(pixels.shape)} in "
            f"{int(pixels.min())} … {int(pixels.max())} and {states}"
        )
    known = torch.nn.functional.one_hot(pixels.long(), levels).float()
    flat, parents = pixels.float(), chow_liu(pixels, levels)
    generator = torch.Generator().manual_seed(seed)
    centres = flat[torch.randperm(len(flat), generator=generator)[:states]]
    for _ in range(5):
        member = torch.nn.functional.one_hot(torch.cdist(flat, centres).argmin(1), states).float()
        centres = (member.T @ flat + centres) / (member.sum(0)[:, None] + 1)
    share = (member.sum(0) + 1) / (len(flat) + states)
    seen = torch.einsum("nh,ndv->dhv", member, known) + 0.5 * known.mean(0)[:, None] + 0.5 / levels
    step = 0.7 * torch.eye(states) + 0.3 * share
    edges = step.expand(len(parents), states, states)
    tree = LatentTree(parents, share.log(), edges.log().clone(), (seen / seen.sum(-1, keepdim=True)).log())
    for _ in range(rounds):
        tree, _ = tree.improved(pixels, pseudocount)
    return tree


def chow_liu(pixels: Tensor, levels: int) -> tuple[int, ...]:
    """The parents of the spanning tree of most mutual information, rooted at pixel 0.

    Args:
        pixels: (n, D), whole numbers 0 … levels − 1.
        levels: V.
    """
    from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

    known = torch.nn.functional.one_hot(pixels.long(), levels).float()
    alone = known.mean(0)
    information = torch.zeros(pixels.shape[1], pixels.shape[1])
    for v in range(levels):
        for w in range(levels):
            both = known[..., v].T @ known[..., w] / len(pixels)
            apart = alone[:, v, None] * alone[None, :, w]
            information += torch.where(both > 0, both * (both / apart.clamp_min(1e-30)).clamp_min(1e-30).log(), 0.0)
    # All lengths are positive, since to scipy an edge of length 0 is none.
    length = (information.max() + 1 - information).fill_diagonal_(0)
    tree = minimum_spanning_tree(length.double().numpy())
    _, before = breadth_first_order(tree, 0, directed=False)
    return tuple(int(p) if p >= 0 else -1 for p in before)


def _floors(parents: tuple[int, ...]) -> list[tuple[Tensor, Tensor]]:
    """(Pixels, their parents) of one depth each, the deepest first and the root last."""
    children: dict[int, list[int]] = {}
    for node, parent in enumerate(parents):
        children.setdefault(parent, []).append(node)
    floors, floor = [], children.get(-1, [])
    while floor:
        floors.append((torch.tensor(floor), torch.tensor([parents[i] for i in floor])))
        floor = [c for node in floor for c in children.get(node, [])]
    if len(children.get(-1, [])) != 1 or sum(len(nodes) for nodes, _ in floors) != len(parents):
        raise ArgumentError("parents must be one tree: a single −1, and every pixel below it")
    return floors[::-1]


def _summed(table: Tensor, logs: Tensor) -> Tensor:
    """log Σ_a e^{logs[d, n, a]}·e^{table[d, a, b]}, (D, n, b), without underflow."""
    most = logs.detach().amax(-1, keepdim=True)
    return ((logs - most).exp() @ table.exp()).log() + most
