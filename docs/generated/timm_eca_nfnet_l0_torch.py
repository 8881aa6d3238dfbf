"""timm/eca_nfnet_l0 in plain PyTorch: a Normalizer-Free Network (Brock et al. 2021).

timm 1.0.31: models/nfnet.py, eca_nfnet_l0
Written by nfspec from the spec with sha256 606c8f9a1324c2ca; needs PyTorch alone, yours to change.
Images are (N, 3, H, W); published: 224 px in training, 288 px in tests.

    model = NFNet()
    load_weights(model, "timm-eca_nfnet_l0.safetensors")
    loss.backward(), clip_gradients_(model), optimizer.step()  # a step of training
"""

import json
import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


def act(x: Tensor) -> Tensor:
    return F.silu(x)


class WSConv2d(nn.Conv2d):
    """A conv whose weight has mean 0 and norm `gain * gamma` over the inputs of each output."""

    def __init__(
        self,
        in_chs: int,
        out_chs: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        gain: float = 1.0,
    ):
        pad = (stride + kernel - 2) // 2
        super().__init__(in_chs, out_chs, kernel, stride, pad, groups=groups)
        self.gain = nn.Parameter(torch.full((out_chs,), gain))
        nn.init.normal_(self.weight, std=self.weight[0].numel() ** -0.5)
        self.bias = nn.Parameter(torch.zeros(out_chs))

    def standardised(self) -> Tensor:
        w = self.weight.float()
        fan_in = w[0].numel()
        w = w - w.mean((1, 2, 3), keepdim=True)
        variance = w.square().sum((1, 2, 3), keepdim=True)  # times fan-in
        scale = torch.rsqrt(variance + fan_in * 1e-05) * self.gain[:, None, None, None]
        return (1.7881293296813965 * w * scale).to(self.weight.dtype)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.standardised()
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, groups=self.groups)


class ChannelAttention(nn.Module):
    """Efficient channel attention (Wang et al. 2020): a conv over the channels' means."""

    def __init__(self, taps: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(taps).uniform_(-(taps**-0.5), taps**-0.5))

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean((2, 3))[:, None]
        gate = F.conv1d(means, self.weight[None, None], padding=self.weight.numel() // 2)
        return 2.0 * torch.sigmoid(gate)[:, 0, :, None, None] * x


class Block(nn.Module):
    """`alpha * branch + shortcut`; beta makes the branch's input of unit variance."""

    def __init__(self, in_chs: int, mid_chs: int, out_chs: int, beta: float, stride: int = 1):
        super().__init__()
        self.beta = beta
        project = stride > 1 or in_chs != out_chs
        self.conv_shortcut = WSConv2d(in_chs, out_chs, 1) if project else None
        self.pool = nn.AvgPool2d(2, ceil_mode=True) if stride > 1 else nn.Identity()
        self.conv0 = WSConv2d(in_chs, mid_chs, 1)
        self.conv1 = WSConv2d(mid_chs, mid_chs, 3, stride, groups=mid_chs // 64)
        self.conv1b = WSConv2d(mid_chs, mid_chs, 3, groups=mid_chs // 64)
        self.conv2 = WSConv2d(mid_chs, out_chs, 1, gain=0.0)
        self.eca = ChannelAttention(5)

    def forward(self, x: Tensor) -> Tensor:
        out = self.beta * act(x)
        shortcut = x if self.conv_shortcut is None else self.conv_shortcut(self.pool(out))
        out = self.conv1b(act(self.conv1(act(self.conv0(out)))))
        out = self.conv2(act(out))
        out = self.eca(out)
        return 0.2 * out + shortcut


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
        {"module": "final_conv", "num_chs": 2304, "reduction": 32},
    )

    def __init__(self, num_classes: int = 1000, in_chans: int = 3):
        super().__init__()
        self.num_features = 2304
        self.grad_checkpointing = False
        self.stem, self.head = nn.ModuleDict(), nn.ModuleDict()
        self.stem["conv0"] = WSConv2d(in_chans, 16, 3, stride=2)
        self.stem["conv1"] = WSConv2d(16, 32, 3)
        self.stem["conv2"] = WSConv2d(32, 64, 3)
        self.stem["conv3"] = WSConv2d(64, 128, 3, stride=2)
        self.stages = nn.Sequential(
            Stage(Block(128, 64, 256, beta=1.0)),
            Stage(
                Block(256, 128, 512, beta=0.9805806756909201, stride=2),
                Block(512, 128, 512, beta=0.9805806756909201),
            ),
            Stage(
                Block(512, 384, 1536, beta=0.9622504486493761, stride=2),
                Block(1536, 384, 1536, beta=0.9805806756909201),
                Block(1536, 384, 1536, beta=0.9622504486493761),
                Block(1536, 384, 1536, beta=0.9449111825230679),
                Block(1536, 384, 1536, beta=0.9284766908852592),
                Block(1536, 384, 1536, beta=0.9128709291752768),
            ),
            Stage(
                Block(1536, 384, 1536, beta=0.8980265101338745, stride=2),
                Block(1536, 384, 1536, beta=0.9805806756909201),
                Block(1536, 384, 1536, beta=0.9622504486493761),
            ),
        )
        self.final_conv = WSConv2d(1536, 2304, 1)
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
    """Load a safetensors file with nfspec's names and layouts (HWIO, IO), or with timm's."""
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
    model.load_state_dict(from_timm(model, state))


def from_timm(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of timm's model under the names of this file; one of this file as it is."""
    if not any(re.match(r"stages\.\d+\.\d+\.", name) for name in state):
        return state
    own, renamed = model.state_dict(), {}
    for name, values in state.items():
        name = re.sub(r"^stages\.(\d+)\.(\d+)\.", r"stages.\1.blocks.\2.", name)
        name = re.sub(r"\b(conv|fc)(\d)", lambda at: f"{at[1]}{int(at[2]) - 1}", name)
        name = name.replace("downsample.conv", "conv_shortcut")
        name = re.sub(r"attn(_last)?\.conv", "eca", name)
        renamed[name] = values.reshape(own[name].shape)
    return renamed


@torch.no_grad()
def clip_gradients_(model: nn.Module, clipping: float = 0.01, eps: float = 0.001) -> None:
    """Adaptive gradient clipping (Brock et al. 2021, section 4.1), in place."""
    for name, p in model.named_parameters():
        if p.grad is None or name in ("head.fc.weight", "head.fc.bias"):
            continue
        dims = tuple(range(1, p.ndim)) if p.ndim > 1 else None  # by output, or whole
        norm, grad = (torch.linalg.vector_norm(t, dim=dims, keepdim=True) for t in (p, p.grad))
        if name.endswith(".gain"):
            norm, grad = p.abs(), p.grad.abs()  # each element by itself
        limit = clipping * norm.clamp(min=eps)
        p.grad.mul_(torch.where(grad > limit, limit / grad.clamp(min=1e-6), 1.0))
