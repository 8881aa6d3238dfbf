"""The commands by what they are for: their functions, groups of options, and examples.

No command is imported here, so that `nfspec --help` and each command start at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True)
class Command:
    """A command that is not imported yet.

    Attributes:
        function: Module and name of its function.
        summary: The first sentence of its help, which `nfspec --help` prints.
        groups: Names of options by the title that its help prints them under. Those in no group
            are printed last.
        examples: Command lines by what they do, printed at the end of its help.
    """

    function: str
    summary: str
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    examples: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


USE = {
    "list": Command(
        "nfspec.cli.listing:list_specs",
        "List the built-in networks and base specs.",
        examples={
            "The NFNets of DeepMind, with their sizes": "nfspec list 'nfnet-f?'",
            "Weights that can be had by name": "nfspec list --pretrained",
        },
    ),
    "show": Command(
        "nfspec.cli.show:show",
        "Show a spec's computed numbers, block by block.",
        examples={
            "A built-in network": "nfspec show nfnet-f0",
            "A change, without a file": "nfspec show nfnet-f0 --set stages.alpha=0.3",
        },
    ),
    "predict": Command(
        "nfspec.cli.predict:predict",
        "Name the classes of images, with probabilities.",
        examples={
            "A training of yours, on a folder": "nfspec predict runs/nfnet-nano-photos-jax new",
            "Published weights, on one photograph": "nfspec predict timm/dm_nfnet_f0 cat.jpg "
            "--weights timm/dm_nfnet_f0.dm_in1k",
        },
    ),
    "embed": Command(
        "nfspec.cli.embed:embed",
        "Write the vector that a network has of each image before its classifier.",
        examples={
            "Vectors of all images of a folder": "nfspec embed runs/nfnet-nano-photos-jax photos "
            "--out photos.npz",
        },
    ),
    "evaluate": Command(
        "nfspec.cli.evaluate:evaluate",
        "Evaluate a network on labelled images.",
        groups={
            "Network": ("--weights", "--backend", "--runtime", "--unfolded", "--set"),
            "Images": ("--size", "--batch", "--original"),
            "Results": ("--per-class", "--confusion", "--predictions", "--force", "--json"),
        },
        examples={
            "A training, on the images that it held out": "nfspec evaluate "
            "runs/nfnet-nano-photos-jax",
            "The same, class by class, with a picture": "nfspec evaluate "
            "runs/nfnet-nano-photos-jax --per-class --confusion cm.png",
            "A file of weights, on images of yours": "nfspec evaluate nfnet-f0 photos "
            "--weights f0.safetensors",
        },
    ),
    "convert": Command(
        "nfspec.cli.convert:convert",
        "Convert weights between the formats of nfspec, DeepMind and timm.",
        examples={
            "DeepMind's file to nfspec's": "nfspec convert F0.npz f0.safetensors "
            "--variant nfnet-f0",
            "nfspec's file to timm's": "nfspec convert f0.safetensors f0.pth --variant nfnet-f0",
        },
    ),
}
TRAIN = {
    "train": Command(
        "nfspec.cli.train:train",
        "Train a network by its spec's recipe, or by nfspec's own.",
        groups={
            "Network": ("--init", "--new-head", "--freeze", "--set"),
            "Images": ("--val", "--held-out", "--classes", "--class-weights", "--workers"),
            "Recipe": (
                "--recipe",
                "--epochs",
                "--batch",
                "--lr",
                "--warmup",
                "--clipping",
                "--size",
                "--precision",
                "--accumulation",
                "--seed",
            ),
            "Devices": ("--backend", "--devices", "--shard"),
            "Folder": ("--out", "--resume", "--force", "--checkpoint-minutes", "--stop-at",
                       "--tensorboard", "--json"),
        },
        examples={
            "A small network, on a folder of class folders": "nfspec train nfnet-nano photos",
            "Published weights, with a new classifier": "nfspec train timm/dm_nfnet_f0 photos "
            "--init timm/dm_nfnet_f0.dm_in1k",
            "To go on after an interruption": "nfspec train nfnet-nano photos --resume",
        },
    ),
    "plot": Command(
        "nfspec.cli.plot:plot",
        "Draw the loss, accuracy and clip fraction of trainings.",
        examples={"All trainings in one picture": "nfspec plot runs/* --out runs.png"},
    ),
    "cost": Command(
        "nfspec.cli.cost:cost",
        "Estimate the memory and the time of a training.",
        examples={
            "On this machine": "nfspec cost nfnet-f0 --accelerator cpu",
            "On other devices": "nfspec cost nfnet-f3 --accelerator a100-80gb --devices 8",
        },
    ),
    "lower": Command(
        "nfspec.cli.lower:lower",
        "Compile a network for another device, and print what it costs there.",
    ),
}  # fmt: skip
DESIGN = {
    "new": Command(
        "nfspec.cli.new:new",
        "Write a commented spec to start from.",
        examples={
            "A variant of NFNet-F0": "nfspec new mine.toml --from nfnet-f0 --set stages.alpha=0.3"
        },
    ),
    "check": Command("nfspec.cli.check:check", "Check that specs load and resolve."),
    "explain": Command(
        "nfspec.cli.explain:explain",
        "Explain an error of a spec by its code: when it occurs, and how to fix it.",
        examples={"After an error that ends in [SPEC-GROUPS]": "nfspec explain SPEC-GROUPS"},
    ),
    "diff": Command(
        "nfspec.cli.diff:diff", "Show where two specs differ; exit status 1 if they do."
    ),
    "table": Command(
        "nfspec.cli.candidates:table",
        "Compare candidates: parameters, costs, and top-1 where it is known.",
    ),
    "explore": Command(
        "nfspec.cli.explore:explore",
        "Write a page of HTML to look at networks, and to compare them.",
    ),
    "sweep": Command(
        "nfspec.cli.sweep:sweep",
        "Train candidates from several seeds, and say what the seeds allow.",
        examples={
            "A plan, two trainings at a time": "nfspec sweep plan.toml --processes 2",
        },
    ),
    "scale": Command(
        "nfspec.cli.scale:scale",
        "Write a spec of the same kind at a budget.",
        examples={
            "NFNet-F0 at two billion multiply-accumulates": "nfspec scale nfnet-f0 --macs 2G "
            "--out small.toml"
        },
    ),
    "signal": Command(
        "nfspec.cli.signal:signal",
        "Show the variance that each block sees beside the one that it should see.",
        groups={
            "Network": ("--weights", "--framework", "--skip-gain", "--seed", "--folded", "--set"),
            "Images": ("--images", "--count", "--size"),
            "Results": ("--gradients", "--plot", "--force", "--json"),
        },
        examples={
            "A spec of yours, with fresh weights": "nfspec signal mine.toml",
            "Two of them in one picture": "nfspec signal nfnet-f0 mine.toml --plot signal.png",
        },
    ),
    "agc": Command("nfspec.cli.agc:agc", "Show what clipping and weight decay do to each tensor."),
}
WRITE = {
    "generate": Command(
        "nfspec.cli.generate:generate",
        "Write a network as plain source in a framework.",
        examples={
            "One file of PyTorch": "nfspec generate nfnet-f0 --to torch --out f0.py",
            "For inference, with weights": "nfspec generate nfnet-f0 --to numpy --folded "
            "--weights f0.safetensors",
        },
    ),
    "export": Command(
        "nfspec.cli.export:export",
        "Write a network as a file for another runtime, and prove the file.",
        groups={
            "File": ("--to", "--out", "--license", "--force", "--keep"),
            "Network": ("--weights", "--outputs", "--set"),
            "Images": ("--size", "--batch", "--layout", "--preprocess"),
            "Numbers": ("--dtype", "--int8"),
        },
        examples={
            "A training of yours, as ONNX": "nfspec export runs/nfnet-nano-photos-jax --to onnx",
            "A file of weights, and a network that takes pixels": "nfspec export nfnet-f0 "
            "--weights f0.npz --to openvino --preprocess",
            "int8, calibrated on photographs": "nfspec export nfnet-f0 --weights f0.npz "
            "--to litert --int8 photos",
        },
    ),
}
VERIFY = {
    "compare": Command(
        "nfspec.cli.compare:compare",
        "Compare the frameworks with the reference.",
        examples={"On a photograph of yours": "nfspec compare nfnet-f0 --image cat.jpg"},
    ),
    "conform": Command(
        "nfspec.cli.conform:conform",
        "Test implementations against the float64 reference.",
        groups={
            "What is tested": (
                "--backends", "--subject", "--against", "--device", "--mode", "--set",
            ),
            "Cases": ("--properties", "--examples", "--seed", "--faults", "--timeout"),
            "Verdict": ("--require", "--must-offer", "--deviations", "--no-explain"),
            "Reports": ("--out", "--resume", "--force", "--json"),
        },
        examples={
            "nfspec on PyTorch, in the shapes of a spec": "nfspec conform nfnet-f0 "
            "--backends torch",
            "A file of yours": "nfspec conform nfnet-f0 --subject mine.py:Mine",
            "Two implementations, beside each other": "nfspec conform nfnet-f0 --against timm "
            "torch",
        },
    ),
    "replay": Command("nfspec.cli.replay:replay", "Run one case and print the bound term by term."),
    "verify": Command(
        "nfspec.cli.verify:verify",
        "Prove an exported file again, from what is in it alone.",
        examples={"A file of nfspec export": "nfspec verify nfnet-f0.onnx"},
    ),
    "bench": Command(
        "nfspec.cli.bench:bench",
        "Measure a network next to its peers.",
        examples={
            "A forward pass of each framework": "nfspec bench nfnet-f0 --work forward",
        },
    ),
}  # fmt: skip

GROUPS = {
    "Use a network": USE,
    "Train": TRAIN,
    "Design": DESIGN,
    "Write for elsewhere": WRITE,
    "Verify and measure": VERIFY,
}
COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}
