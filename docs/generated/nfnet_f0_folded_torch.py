"""nfnet-f0 in plain PyTorch: a Normalizer-Free Network (Brock et al. 2021), for inference.

arXiv:2102.06171 table 1; deepmind-research/nfnets/{base,nfnet}.py
Written by nfspec from the spec with sha256 0989e2c25f67416b; needs PyTorch alone, yours to change.
Images are (N, 3, H, W); published: 192 px in training, 256 px in tests.

    model = NFNet().eval()
    load_weights(model, "nfnet-f0-folded.safetensors")
"""

import json
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def act(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def same(x: Tensor, kernel: int, stride: int, value: float = 0.0) -> Tensor:
    """Pad as TensorFlow does: an odd pixel goes after."""
    pads = []
    for side in (x.shape[3], x.shape[2]):
        total = kernel + stride * ((side - 1) // stride) - side
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads, value=value)


class Conv2d(nn.Conv2d):
    """A conv that pads by `same`; its weight is standardised, and has gamma and beta in it."""

    def __init__(self, in_chs: int, out_chs: int, kernel: int, stride: int = 1, groups: int = 1):
        pad = kernel // 2 if stride == 1 else 0
        super().__init__(in_chs, out_chs, kernel, stride, pad, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride[0] > 1:
            x = same(x, self.kernel_size[0], self.stride[0])
        return super().forward(x)


class SqueezeExcite(nn.Module):
    def __init__(self, chs: int, hidden: int):
        super().__init__()
        self.fc0, self.fc1 = nn.Linear(chs, hidden), nn.Linear(hidden, chs)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.fc0(x.mean((2, 3))))
        return 2.0 * torch.sigmoid(self.fc1(hidden))[:, :, None, None]


class Block(nn.Module):
    """`branch + shortcut`; the weights have alpha and beta in them."""

    def __init__(self, in_chs: int, mid_chs: int, out_chs: int, stride: int = 1):
        super().__init__()
        project = stride > 1 or in_chs != out_chs
        self.conv_shortcut = Conv2d(in_chs, out_chs, 1) if project else None
        self.pool = nn.AvgPool2d(2, ceil_mode=True) if stride > 1 else nn.Identity()
        self.conv0 = Conv2d(in_chs, mid_chs, 1)
        self.conv1 = Conv2d(mid_chs, mid_chs, 3, stride, groups=mid_chs // 128)
        self.conv1b = Conv2d(mid_chs, mid_chs, 3, groups=mid_chs // 128)
        self.conv2 = Conv2d(mid_chs, out_chs, 1)
        self.se = SqueezeExcite(out_chs, mid_chs)
        self.skip_gain = nn.Parameter(torch.tensor(0.0))

    def forward(self, x: Tensor) -> Tensor:
        out = act(x)
        shortcut = x if self.conv_shortcut is None else self.conv_shortcut(self.pool(out))
        out = self.conv1b(act(self.conv1(act(self.conv0(out)))))
        out = self.conv2(act(out))
        out = self.skip_gain * self.se(out) * out
        return out + shortcut


class Stage(nn.Module):
    def __init__(self, *blocks: Block):
        super().__init__()
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


class NFNet(nn.Module):
    feature_info = (
        {"module": "stem", "num_chs": 64, "reduction": 2},
        {"module": "stages.0", "num_chs": 256, "reduction": 4},
        {"module": "stages.1", "num_chs": 512, "reduction": 8},
        {"module": "stages.2", "num_chs": 1536, "reduction": 16},
        {"module": "final_conv", "num_chs": 3072, "reduction": 32},
    )

    def __init__(self, num_classes: int = 1000, in_chans: int = 3):
        super().__init__()
        self.num_features = 3072
        self.stem, self.head = nn.ModuleDict(), nn.ModuleDict()
        self.stem["conv0"] = Conv2d(in_chans, 16, 3, stride=2)
        self.stem["conv1"] = Conv2d(16, 32, 3)
        self.stem["conv2"] = Conv2d(32, 64, 3)
        self.stem["conv3"] = Conv2d(64, 128, 3, stride=2)
        self.stages = nn.Sequential(
            Stage(Block(128, 128, 256)),
            Stage(
                Block(256, 256, 512, stride=2),
                Block(512, 256, 512),
            ),
            Stage(
                Block(512, 768, 1536, stride=2),
                Block(1536, 768, 1536),
                Block(1536, 768, 1536),
                Block(1536, 768, 1536),
                Block(1536, 768, 1536),
                Block(1536, 768, 1536),
            ),
            Stage(
                Block(1536, 768, 1536, stride=2),
                Block(1536, 768, 1536),
                Block(1536, 768, 1536),
            ),
        )
        self.final_conv = Conv2d(1536, 3072, 1)
        self.reset_classifier(num_classes)

    def reset_classifier(self, num_classes: int) -> None:
        """Draw a new classifier; 0 classes for none, so that outputs are the pooled features."""
        self.num_classes = num_classes
        self.head["fc"] = nn.Identity()
        if num_classes:
            self.head["fc"] = fc = nn.Linear(self.num_features, num_classes)
            nn.init.normal_(fc.weight, std=0.01)
            nn.init.zeros_(fc.bias)

    def forward_intermediates(
        self, x: Tensor, indices: Sequence[int] | None = None, intermediates_only: bool = False
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The features, and those of the maps of `feature_info` that are asked for."""
        x = self.stem["conv0"](x)
        x = self.stem["conv1"](act(x))
        x = self.stem["conv2"](act(x))
        x = act(x)
        maps = [1.7015043497085571 * x]  # a factor that the weights of convs have
        x = self.stem["conv3"](x)
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        maps[-1] = x = self.final_conv(x)
        chosen = maps if indices is None else [maps[i] for i in indices]
        return chosen if intermediates_only else (1.7015043497085571 * act(x), chosen)

    def forward_features(self, x: Tensor) -> Tensor:
        return self.forward_intermediates(x)[0]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = x.mean((2, 3))
        return x if pre_logits else self.head["fc"](x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def load_weights(model: nn.Module, path: str) -> None:
    """Load a safetensors file with nfspec's names and layouts (HWIO, IO)."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        data = bytearray(file.read())
    header.pop("__metadata__", None)
    state = {}
    for name, entry in header.items():
        values = torch.frombuffer(data[slice(*entry["data_offsets"])], dtype=torch.float32)
        values = values.reshape(entry["shape"])
        if name.endswith(".kernel"):
            name = name.removesuffix("kernel") + "weight"
            values = values.movedim((-1, -2), (0, 1)) if values.ndim > 1 else values
        state[name] = values
    model.load_state_dict(state)
