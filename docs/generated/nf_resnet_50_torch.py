"""nf-resnet-50 in plain PyTorch: a Normalizer-Free Network (Brock et al. 2021).

arXiv:2101.08692 §4; deepmind-research/nfnets/{nf_resnet,experiment}.py
Written by nfspec from the spec with sha256 b16d4bd3d01d71b7; needs PyTorch alone, yours to change.
Images are (N, 3, H, W); published: 224 px in training, 224 px in tests.

    model = NFResNet()
    load_weights(model, "nf-resnet-50.safetensors")
"""

import json
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


def act(x: Tensor) -> Tensor:
    return 1.7139588594436646 * F.relu(x)  # variance 1 for x ~ N(0, 1)


def same(x: Tensor, kernel: int, stride: int, value: float = 0.0) -> Tensor:
    """Pad as TensorFlow does: an odd pixel goes after."""
    pads = []
    for side in (x.shape[3], x.shape[2]):
        total = kernel + stride * ((side - 1) // stride) - side
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads, value=value)


class WSConv2d(nn.Conv2d):
    """A conv whose weight has mean 0 and norm `gain` over the inputs of each output."""

    def __init__(self, in_chs: int, out_chs: int, kernel: int, stride: int = 1, groups: int = 1):
        pad = kernel // 2 if stride == 1 else 0
        super().__init__(in_chs, out_chs, kernel, stride, pad, groups=groups)
        self.gain = nn.Parameter(torch.ones(out_chs))
        nn.init.normal_(self.weight, std=self.weight[0].numel() ** -0.5)
        self.bias = nn.Parameter(torch.zeros(out_chs))

    def standardised(self) -> Tensor:
        w = self.weight.float()
        w = w - w.mean((1, 2, 3), keepdim=True)
        variance = w.square().sum((1, 2, 3), keepdim=True)  # times fan-in
        scale = torch.rsqrt(variance.clamp(min=0.0001)) * self.gain[:, None, None, None]
        return (w * scale).to(self.weight.dtype)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride[0] > 1 and self.kernel_size[0] > 1:
            x = same(x, self.kernel_size[0], self.stride[0])
        weight = self.standardised()
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, groups=self.groups)


def stochastic_depth(x: Tensor, rate: float) -> Tensor:
    """Zero whole images with probability `rate`; the others are not rescaled."""
    return x * (torch.rand((x.shape[0], 1, 1, 1), device=x.device) >= rate)


class Block(nn.Module):
    """`alpha * skip_gain * branch + shortcut`; beta makes the branch's input of unit variance."""

    def __init__(self, in_chs: int, mid_chs: int, out_chs: int, beta: float, stride: int = 1):
        super().__init__()
        self.beta = beta
        self.drop_rate = 0.0
        project = in_chs != out_chs
        self.conv_shortcut = WSConv2d(in_chs, out_chs, 1, stride) if project else None
        self.conv0 = WSConv2d(in_chs, mid_chs, 1)
        self.conv1 = WSConv2d(mid_chs, mid_chs, 3, stride)
        self.conv2 = WSConv2d(mid_chs, out_chs, 1)
        self.skip_gain = nn.Parameter(torch.tensor(0.0))

    def forward(self, x: Tensor) -> Tensor:
        out = self.beta * act(x)
        shortcut = x if self.conv_shortcut is None else self.conv_shortcut(out)
        out = self.conv1(act(self.conv0(out)))
        out = self.conv2(act(out))
        if self.training and self.drop_rate > 0:
            out = stochastic_depth(out, self.drop_rate)
        return (0.2 * self.skip_gain) * out + shortcut


class Stage(nn.Module):
    def __init__(self, *blocks: Block):
        super().__init__()
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


class NFResNet(nn.Module):
    feature_info = (
        {"module": "stem", "num_chs": 64, "reduction": 2},
        {"module": "stages.0", "num_chs": 256, "reduction": 4},
        {"module": "stages.1", "num_chs": 512, "reduction": 8},
        {"module": "stages.2", "num_chs": 1024, "reduction": 16},
        {"module": "stages.3", "num_chs": 2048, "reduction": 32},
    )

    def __init__(self, num_classes: int = 1000, in_chans: int = 3, drop_path_rate: float = 0.1):
        super().__init__()
        self.num_features = 2048
        self.grad_checkpointing = False
        self.stem, self.head = nn.ModuleDict(), nn.ModuleDict()
        self.stem["conv0"] = WSConv2d(in_chans, 64, 7, stride=2)
        self.stages = nn.Sequential(
            Stage(
                Block(64, 64, 256, beta=1.0),
                Block(256, 64, 256, beta=0.9805806756909201),
                Block(256, 64, 256, beta=0.9622504486493761),
            ),
            Stage(
                Block(256, 128, 512, beta=0.9449111825230679, stride=2),
                Block(512, 128, 512, beta=0.9805806756909201),
                Block(512, 128, 512, beta=0.9622504486493761),
                Block(512, 128, 512, beta=0.9449111825230679),
            ),
            Stage(
                Block(512, 256, 1024, beta=0.9284766908852592, stride=2),
                Block(1024, 256, 1024, beta=0.9805806756909201),
                Block(1024, 256, 1024, beta=0.9622504486493761),
                Block(1024, 256, 1024, beta=0.9449111825230679),
                Block(1024, 256, 1024, beta=0.9284766908852592),
                Block(1024, 256, 1024, beta=0.9128709291752768),
            ),
            Stage(
                Block(1024, 512, 2048, beta=0.8980265101338745, stride=2),
                Block(2048, 512, 2048, beta=0.9805806756909201),
                Block(2048, 512, 2048, beta=0.9622504486493761),
            ),
        )
        for i, block in enumerate(m for m in self.modules() if isinstance(m, Block)):
            block.drop_rate = drop_path_rate * i / 16
        self.reset_classifier(num_classes)

    def reset_classifier(self, num_classes: int) -> None:
        """Draw a new classifier; 0 classes for none, so that outputs are the pooled features."""
        self.num_classes = num_classes
        self.head["fc"] = nn.Identity()
        if num_classes:
            self.head["fc"] = fc = nn.Linear(self.num_features, num_classes)
            nn.init.normal_(fc.weight, std=0.01)
            nn.init.zeros_(fc.bias)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.grad_checkpointing = enable

    def forward_intermediates(
        self, x: Tensor, indices: Sequence[int] | None = None, intermediates_only: bool = False
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The features, and those of the maps of `feature_info` that are asked for."""
        x = self.stem["conv0"](x)
        maps = [x]
        x = F.max_pool2d(same(x, 3, 2, -torch.inf), 3, 2)
        for stage in self.stages:
            x = checkpoint(stage, x, use_reentrant=False) if self.grad_checkpointing else stage(x)
            maps.append(x)
        chosen = maps if indices is None else [maps[i] for i in indices]
        return chosen if intermediates_only else (act(x), chosen)

    def forward_features(self, x: Tensor) -> Tensor:
        return self.forward_intermediates(x)[0]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = x.mean((2, 3))
        return x if pre_logits else self.head["fc"](x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def parameter_groups(self, weight_decay: float, layer_decay: float = 1.0) -> list[dict]:
        """Kernels alone decay; `lr_scale` falls by `layer_decay` a stage, from head to stem."""
        groups: dict = {}
        for name, parameter in self.named_parameters():
            part, stage = name.split(".")[:2]
            depth = int(stage) + 1 if part == "stages" else 0 if part == "stem" else 5
            decay = weight_decay if name.endswith("weight") else 0.0
            new = {"params": [], "weight_decay": decay, "lr_scale": layer_decay ** (5 - depth)}
            groups.setdefault((depth, decay), new)["params"].append(parameter)
        return list(groups.values())


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
