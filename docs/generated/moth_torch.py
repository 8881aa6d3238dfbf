"""moth in plain PyTorch: a Normalizer-Free Network (Brock et al. 2021).

Written by nfspec from the spec with sha256 51de3ef17cd462de; needs PyTorch alone, yours to change.
Images are (N, 3, H, W); published: 192 px in training, 256 px in tests.

    model = NFNet()
    load_weights(model, "moth.safetensors")
    loss.backward(), clip_gradients_(model), optimizer.step()  # a step of training
"""

import json
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


def act(x: Tensor) -> Tensor:
    return 1.7881293296813965 * F.silu(x)  # variance 1 for x ~ N(0, 1)


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
        if self.stride[0] > 1:
            x = same(x, self.kernel_size[0], self.stride[0])
        weight = self.standardised()
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, groups=self.groups)


class SqueezeExcite(nn.Module):
    def __init__(self, chs: int, hidden: int):
        super().__init__()
        self.fc0, self.fc1 = nn.Linear(chs, hidden), nn.Linear(hidden, chs)
        for fc in (self.fc0, self.fc1):
            std = fc.in_features**-0.5
            nn.init.trunc_normal_(fc.weight, std=std, a=-2 * std, b=2 * std)
            nn.init.zeros_(fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.fc0(x.mean((2, 3))))
        return 2.0 * torch.sigmoid(self.fc1(hidden))[:, :, None, None] * x


class ChannelAttention(nn.Module):
    """Efficient channel attention (Wang et al. 2020): a conv over the channels' means."""

    def __init__(self, taps: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(taps).uniform_(-(taps**-0.5), taps**-0.5))

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean((2, 3))[:, None]
        gate = F.conv1d(means, self.weight[None, None], padding=self.weight.numel() // 2)
        return 2.0 * torch.sigmoid(gate)[:, 0, :, None, None] * x


def stochastic_depth(x: Tensor, rate: float) -> Tensor:
    """Zero whole images with probability `rate`; the others are not rescaled."""
    return x * (torch.rand((x.shape[0], 1, 1, 1), device=x.device) >= rate)


class Block(nn.Module):
    """`alpha * skip_gain * branch + shortcut`; beta makes the branch's input of unit variance."""

    def __init__(
        self,
        in_chs: int,
        mid_chs: int,
        out_chs: int,
        groups: int,
        alpha: float,
        beta: float,
        stride: int = 1,
        se: int = 0,
        eca: int = 0,
    ):
        super().__init__()
        self.alpha = alpha
        self.beta = beta
        self.drop_rate = 0.0
        project = in_chs != out_chs
        self.conv_shortcut = WSConv2d(in_chs, out_chs, 1) if project else None
        self.pool = nn.AvgPool2d(2, ceil_mode=True) if stride > 1 else nn.Identity()
        self.conv0 = WSConv2d(in_chs, mid_chs, 1)
        self.conv1 = WSConv2d(mid_chs, mid_chs, 3, stride, groups=groups)
        self.conv1b = WSConv2d(mid_chs, mid_chs, 3, groups=groups)
        self.conv2 = WSConv2d(mid_chs, out_chs, 1)
        self.se = SqueezeExcite(out_chs, se) if se else None
        self.eca = ChannelAttention(eca) if eca else None
        self.skip_gain = nn.Parameter(torch.tensor(0.0))

    def forward(self, x: Tensor) -> Tensor:
        out = self.beta * act(x)
        shortcut = x if self.conv_shortcut is None else self.conv_shortcut(self.pool(out))
        out = self.conv1b(act(self.conv1(act(self.conv0(out)))))
        out = self.conv2(act(out))
        if self.se is not None:
            out = self.se(out)
        if self.eca is not None:
            out = self.eca(out)
        if self.training and self.drop_rate > 0:
            out = stochastic_depth(out, self.drop_rate)
        return (self.alpha * self.skip_gain) * out + shortcut


class Stage(nn.Module):
    def __init__(self, *blocks: Block):
        super().__init__()
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


class NFNet(nn.Module):
    feature_info = (
        {"module": "stem", "num_chs": 64, "reduction": 2},
        {"module": "stages.0", "num_chs": 63, "reduction": 4},
        {"module": "stages.1", "num_chs": 135, "reduction": 8},
        {"module": "stages.2", "num_chs": 255, "reduction": 16},
        {"module": "final_conv", "num_chs": 774, "reduction": 32},
    )

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_rate: float = 0.2,
        drop_path_rate: float = 0.25,
    ):
        super().__init__()
        self.num_features = 774
        self.drop_rate = drop_rate
        self.grad_checkpointing = False
        self.stem, self.head = nn.ModuleDict(), nn.ModuleDict()
        self.stem["conv0"] = WSConv2d(in_chans, 16, 3, stride=2)
        self.stem["conv1"] = WSConv2d(16, 32, 3)
        self.stem["conv2"] = WSConv2d(32, 64, 3)
        self.stem["conv3"] = WSConv2d(64, 128, 3, stride=2)
        self.stages = nn.Sequential(
            Stage(Block(128, 28, 63, groups=4, alpha=0.2, beta=1.0, eca=3)),
            Stage(
                Block(63, 63, 135, groups=7, alpha=0.25, beta=0.9805806756909201, stride=2, se=67),
                Block(135, 63, 135, groups=7, alpha=0.25, beta=0.9701425001453319, se=67),
            ),
            Stage(
                Block(
                    135, 126, 255, groups=6, alpha=0.3, beta=0.9428090415820635, stride=2, se=127
                ),
                Block(255, 126, 255, groups=6, alpha=0.3, beta=0.9578262852211513, se=127),
                Block(255, 126, 255, groups=6, alpha=0.3, beta=0.9205746178983233, se=127),
                Block(255, 126, 255, groups=6, alpha=0.3, beta=0.8873565094161137, se=127),
            ),
            Stage(
                Block(255, 189, 387, groups=7, alpha=0.2, beta=0.8574929257125441, stride=2),
                Block(387, 189, 387, groups=7, alpha=0.2, beta=0.9805806756909201),
            ),
        )
        for i, block in enumerate(m for m in self.modules() if isinstance(m, Block)):
            block.drop_rate = drop_path_rate * i / 9
        self.final_conv = WSConv2d(387, 774, 1)
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
        x = self.stem["conv1"](act(x))
        x = self.stem["conv2"](act(x))
        maps = [act(x)]
        x = self.stem["conv3"](maps[0])
        for stage in self.stages:
            x = checkpoint(stage, x, use_reentrant=False) if self.grad_checkpointing else stage(x)
            maps.append(x)
        maps[-1] = x = self.final_conv(x)
        chosen = maps if indices is None else [maps[i] for i in indices]
        return chosen if intermediates_only else (act(x), chosen)

    def forward_features(self, x: Tensor) -> Tensor:
        return self.forward_intermediates(x)[0]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = F.dropout(x.mean((2, 3)), self.drop_rate, self.training)
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


@torch.no_grad()
def clip_gradients_(model: nn.Module, clipping: float = 0.01, eps: float = 0.001) -> None:
    """Adaptive gradient clipping (Brock et al. 2021, section 4.1), in place."""
    for name, p in model.named_parameters():
        if p.grad is None or name == "head.fc.weight":
            continue
        dims = tuple(range(1, p.ndim)) if p.squeeze().ndim > 1 else None  # by output, or whole
        norm, grad = (torch.linalg.vector_norm(t, dim=dims, keepdim=True) for t in (p, p.grad))
        limit = clipping * norm.clamp(min=eps)
        p.grad.mul_(torch.where(grad > limit, limit / grad.clamp(min=1e-6), 1.0))
