"""The golden figures of the original implementation; data/README.md says how they were made."""

import json
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path

import numpy as np

import nfspec

DATA = Path(__file__).parent / "data"
NETWORKS = ("nfnet_tiny", "nfnet_tiny_odd", "nf_regnet_tiny", "nf_resnet_tiny")


class Golden:
    """One network: spec, plan, parameters and figures, all by canonical name."""

    def __init__(self, network: str):
        with np.load(DATA / f"{network}.npz") as file:
            self.figures = {key: file[key] for key in file.files}
        self.spec = nfspec.load(DATA / f"{network}.toml")
        self.plan = nfspec.resolve(self.spec)
        self.params = self.named("param")

    @cached_property
    def meta(self) -> dict:
        """Facts about the run that made the figures."""
        return json.loads(str(self["meta"]))

    @cached_property
    def training_plan(self) -> nfspec.Plan:
        """The plan with the clipping and the optimiser of the ten training steps."""
        hyper = self.meta["hyper"]
        agc = {"enabled": True, "clipping": hyper["clipping"], "eps": hyper["eps"]}
        recipe = {
            "learning_rate": hyper["lr"],
            "learning_rate_images": 0,
            "momentum": hyper["momentum"],
            "nesterov": hyper["nesterov"],
            "weight_decay": hyper["weight_decay"],
            "label_smoothing": hyper["label_smoothing"],
        }
        return replace(
            self.plan,
            agc=self.plan.agc.model_copy(update=agc),
            recipe=self.plan.recipe.model_copy(update=recipe),
        )

    def __getitem__(self, key: str) -> np.ndarray:
        return self.figures[key]

    def named(self, prefix: str) -> dict[str, np.ndarray]:
        """The figures `<prefix>/<module>|<name>` by canonical name."""
        tree: dict[str, dict[str, np.ndarray]] = {}
        for key, value in self.figures.items():
            if key.startswith(f"{prefix}/"):
                module, name = key.removeprefix(f"{prefix}/").split("|")
                tree.setdefault(module, {})[name] = value
        names = nfspec.weights.deepmind.names(self.plan)
        return {canonical: tree[module][name] for canonical, (module, name) in names.items()}


golden = cache(Golden)


def relative(value: object, exact: np.ndarray) -> float:
    """Relative L2 norm of a difference."""
    gap = np.linalg.norm(np.asarray(value, np.float64) - exact)
    return float(gap / np.linalg.norm(exact))
