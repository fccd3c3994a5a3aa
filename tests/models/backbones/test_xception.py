"""Xception: its strides, and its layer names by hand."""

import torch

from segtune.models.backbones.xception import XCEPTION


def test_padded_stem_gives_xception_exact_strides() -> None:
    with torch.device("meta"):
        network = XCEPTION.build().eval()
    sides: dict[str, int] = {}
    for path in ("act2", "block1", "block2", "block3", "block11", "block12", "act4"):
        network.get_submodule(path).register_forward_hook(
            lambda module, args, out, path=path: sides.update({path: out.shape[-1]})
        )
    network(torch.zeros(1, 3, 64, 64, device="meta"))
    assert sides == {"act2": 32, "block1": 16, "block2": 8, "block3": 4, "block11": 4, "block12": 2, "act4": 2}


def test_block_n_of_keras_is_block_n_minus_1_of_timm() -> None:
    assert XCEPTION.aliases["block1_conv1"] == "conv1"  # Keras counts the stem as block 1
    assert XCEPTION.aliases["block2_sepconv1"] == "block1.rep.0"  # the first block starts without an activation
    assert XCEPTION.aliases["block4_sepconv1_act"] == "block3.rep.0"
    assert XCEPTION.aliases["block13_pool"] == "block12.rep.6"
    assert XCEPTION.aliases["block14_sepconv2_act"] == "act4"


def test_layers_that_keras_only_numbers() -> None:
    """Twelve sums and four shortcuts: counted from 0 or from 1, only the first and the last name is unambiguous."""
    assert (XCEPTION.aliases["add"], XCEPTION.aliases["add_12"]) == ("block1.add", "block12.add")
    assert XCEPTION.ambiguous["add_3"] == ("block3.add", "block4.add")
    assert (XCEPTION.aliases["conv2d"], XCEPTION.aliases["conv2d_4"]) == ("block1.skip", "block12.skip")
    assert XCEPTION.ambiguous["conv2d_3"] == ("block3.skip", "block12.skip")
    assert len(XCEPTION.ambiguous) == 11 + 3 + 3
