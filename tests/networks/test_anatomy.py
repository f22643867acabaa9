"""Parts by name in every family of network: what is read is right, what is replaced is replaced, and nothing stays."""

import threading

import pytest
import torch
from torch import nn

from fewstep.errors import ArgumentError
from fewstep.networks import DiT, UNet
from fewstep.networks.anatomy import Anatomy, Edit, anatomy_of


def _shaken(network):
    """Random weights everywhere: layers that start at zero would hide every change."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(0.3 * torch.randn(p.shape, generator=generator))
    return network.eval()


def _ours_unet():
    net = UNet(1, 3, width=8, multipliers=(1, 2), attention=(0, 2))
    return net, lambda b=2: net(torch.randn(b, 1, 8, 8, generator=torch.Generator().manual_seed(1)), torch.zeros(b))


def _ours_dit():
    net = DiT(1, 3, side=8, patch=4, width=16, depth=3, heads=2)
    return net, lambda b=2: net(torch.randn(b, 1, 8, 8, generator=torch.Generator().manual_seed(1)), torch.zeros(b))


def _inputs(*shapes, b):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(b, *s, generator=generator) for s in shapes]


def _unet2d():
    from diffusers import UNet2DModel

    net = UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8,
    )  # fmt: skip
    return net, lambda b=2: net(*_inputs((1, 8, 8), b=b), 3).sample


def _unet2d_condition():
    from diffusers import UNet2DConditionModel

    net = UNet2DConditionModel(
        sample_size=8, in_channels=2, out_channels=2, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=6, attention_head_dim=2,
    )  # fmt: skip

    def call(b=2):
        x, text = _inputs((2, 8, 8), (5, 6), b=b)
        return net(x, 3, encoder_hidden_states=text).sample

    return net, call


def _dit():
    from diffusers import DiTTransformer2DModel

    net = DiTTransformer2DModel(
        sample_size=4, in_channels=2, out_channels=2, num_layers=3, num_attention_heads=2, attention_head_dim=4,
        num_embeds_ada_norm=5, norm_num_groups=1, patch_size=2,
    )  # fmt: skip

    def call(b=2):
        labels = torch.zeros(b, dtype=torch.long)
        return net(*_inputs((2, 4, 4), b=b), torch.full((b,), 3), class_labels=labels).sample

    return net, call


def _sd3():
    from diffusers import SD3Transformer2DModel

    net = SD3Transformer2DModel(
        sample_size=4, patch_size=2, in_channels=2, out_channels=2, num_layers=3, attention_head_dim=4,
        num_attention_heads=2, joint_attention_dim=6, caption_projection_dim=8, pooled_projection_dim=6,
        pos_embed_max_size=4,
    )  # fmt: skip

    def call(b=2):
        x, text, pooled = _inputs((2, 4, 4), (5, 6), (6,), b=b)
        return net(x, encoder_hidden_states=text, pooled_projections=pooled, timestep=torch.full((b,), 3.0)).sample

    return net, call


def _flux():
    from diffusers import FluxTransformer2DModel

    net = FluxTransformer2DModel(
        patch_size=1, in_channels=4, num_layers=1, num_single_layers=2, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=6, pooled_projection_dim=6, axes_dims_rope=(2, 2, 4), guidance_embeds=False,
    )  # fmt: skip

    def call(b=2):
        x, text, pooled = _inputs((4, 4), (5, 6), (6,), b=b)
        return net(
            x, encoder_hidden_states=text, pooled_projections=pooled, timestep=torch.full((b,), 0.5),
            img_ids=torch.zeros(4, 3), txt_ids=torch.zeros(5, 3),
        ).sample  # fmt: skip

    return net, call


# maker, self-attentions by place, tokens of the picture where all have as many, tokens of a text, skips
NETWORKS = {
    "unet": (_ours_unet, {"encoder": 1, "middle": 1, "decoder": 2}, 16, 0, 4),
    "dit": (_ours_dit, {"encoder": 1, "middle": 1, "decoder": 1}, 4, 0, 0),
    "UNet2D": (_unet2d, {"encoder": 1, "middle": 1, "decoder": 2}, 16, 0, 4),
    "UNet2DCondition": (_unet2d_condition, {"encoder": 1, "middle": 1, "decoder": 2}, None, 0, 4),
    "DiT": (_dit, {"encoder": 1, "middle": 1, "decoder": 1}, 4, 0, 0),
    "SD3": (_sd3, {"encoder": 1, "middle": 1, "decoder": 1}, 4, 5, 0),
    "Flux": (_flux, {"encoder": 1, "middle": 1, "decoder": 1}, 4, 5, 0),
}


@pytest.fixture(params=NETWORKS, scope="module")
def case(request):
    maker, *rest = NETWORKS[request.param]
    network, call = maker()
    _shaken(network)
    with torch.no_grad():
        yield network, call, Anatomy(network), *rest


def _state(network):
    return [(n, "forward" in m.__dict__, len(m._forward_hooks)) for n, m in network.named_modules()]


def test_self_attentions_by_place(case):
    _, _, anatomy, places, *_ = case
    found = [p.place for p in anatomy.parts if p.kind == "attention"]
    assert {place: found.count(place) for place in places} == places


def test_what_is_read_is_the_attention(case):
    network, call, anatomy, _, tokens, text, _ = case
    seen, before = [], _state(network)
    plain = call()
    with anatomy.edit([Edit(p, seen.append) for p in anatomy.select("attention")]):
        assert torch.equal(call(), plain)
    assert _state(network) == before
    assert len(seen) == len(anatomy.select("attention"))
    for attended in seen:
        assert torch.allclose(attended.weights @ attended.value, attended.plain, atol=1e-4, rtol=1e-4)
        count = attended.value.shape[2]
        if tokens:
            assert count == tokens + text
            assert len(range(count)[attended.picture]) == tokens
    if text:
        first = seen[0].picture.start
        assert first in (0, text)


def test_only_the_rows_asked_for_change_and_nothing_stays(case):
    network, call, anatomy, *_ = case
    plain, before = call(), _state(network)
    parts = anatomy.select("attention", "middle")
    with anatomy.edit([Edit(p, lambda a: a.value, slice(1, 2)) for p in parts]):
        changed = call()
    assert torch.allclose(changed[0], plain[0], rtol=1e-5, atol=1e-6)
    assert (changed[1] - plain[1]).abs().max() > 1e-3 * plain.abs().max()
    assert torch.equal(call(), plain)
    assert _state(network) == before


def test_identity_attention_is_the_value(case):
    """Replaced by the value in every row, the answer is that of a network whose attention is that function."""
    _, call, anatomy, *_ = case
    part = anatomy.select("attention")[0]
    with anatomy.edit([Edit(part, lambda a: a.value)]):
        replaced = call()
    eye = lambda a: torch.eye(a.value.shape[2]) @ a.value  # noqa: E731
    with anatomy.edit([Edit(part, eye)]):
        assert torch.allclose(call(), replaced, rtol=1e-5, atol=1e-6)


def test_after_an_exception_all_is_as_before(case):
    network, call, anatomy, *_ = case
    plain, before = call(), _state(network)

    def fail(seen):
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"), anatomy.edit([Edit(anatomy.parts[0], fail)]):
        call()
    assert _state(network) == before
    assert torch.equal(call(), plain)


def test_blocks_and_skips_are_read_and_replaced(case):
    _, call, anatomy, _, _, _, skips = case
    plain, seen = call(), []
    assert len([p for p in anatomy.parts if p.kind == "skip"]) == skips
    chosen = [p for p in anatomy.parts if p.kind != "attention"]
    with anatomy.edit([Edit(p, seen.append) for p in chosen]):
        assert torch.equal(call(), plain)
    assert len(seen) == len(chosen)
    for part in chosen:
        with anatomy.edit([Edit(part, torch.zeros_like, slice(0, 1))]):
            changed = call()
        assert not torch.allclose(changed[0], plain[0], atol=1e-5)
        assert torch.allclose(changed[1], plain[1], rtol=1e-5, atol=1e-6)


def test_the_skips_are_what_the_encoder_gave():
    """The last skip of our UNet is the first convolution's output, and those of a level are its stages'."""
    network, call = _ours_unet()
    _shaken(network)
    anatomy, skips, blocks = Anatomy(network), [], []
    edits = [Edit(p, skips.append) for p in anatomy.select("skip")]
    edits += [Edit(p, blocks.append) for p in anatomy.select("block", "encoder")]
    with torch.no_grad(), anatomy.edit(edits):
        call()
    assert torch.equal(skips[0], blocks[1])
    assert torch.equal(skips[2], blocks[0])
    assert skips[3].shape == (2, 8, 8, 8)


def test_other_threads_see_the_network_as_it_is():
    network, call = _ours_unet()
    _shaken(network)
    anatomy, results = Anatomy(network), {}
    with torch.no_grad():
        plain = call()
        with anatomy.edit([Edit(p, lambda a: a.value) for p in anatomy.select("attention")]):
            edited = call()
    barrier = threading.Barrier(8)

    def work(i):
        barrier.wait()
        for _ in range(20):
            with torch.no_grad():
                if i % 2:
                    with anatomy.edit([Edit(p, lambda a: a.value) for p in anatomy.select("attention")]):
                        results.setdefault(i, []).append(torch.equal(call(), edited))
                else:
                    results.setdefault(i, []).append(torch.equal(call(), plain))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert all(all(r) for r in results.values())
    assert not any("forward" in m.__dict__ for m in network.modules())


def test_bad_input():
    network, call = _ours_unet()
    anatomy = Anatomy(network)
    with pytest.raises(ArgumentError, match="unknown kind"):
        anatomy.select("attentions")
    with pytest.raises(ArgumentError, match="unknown place"):
        anatomy.select("attention", "centre")
    with pytest.raises(ArgumentError, match="unknown attention of the network"):
        anatomy.select("attention", names=["middle.attend"])
    with pytest.raises(ArgumentError, match="no self-attention in the middle; it has none anywhere"):
        Anatomy(nn.Sequential(nn.Linear(2, 2))).select("attention", "middle")
    with pytest.raises(ArgumentError, match="PAG needs a network"):
        anatomy_of(object(), "PAG")
    edit = Edit(anatomy.select("attention")[0], lambda a: a.value[:, :1])
    with pytest.raises(ArgumentError, match="must keep the shape"), anatomy.edit([edit]):
        call()


def test_an_attention_that_is_not_seen_says_so():
    from diffusers.models.attention_processor import AttnProcessor

    network, call = _unet2d()
    for module in network.modules():
        if hasattr(module, "set_processor"):
            module.set_processor(AttnProcessor())
    anatomy = Anatomy(network)
    edit = Edit(anatomy.select("attention", "middle")[0], lambda a: a.value)
    with pytest.raises(ArgumentError, match="did not call scaled_dot_product_attention"), anatomy.edit([edit]):
        call()
