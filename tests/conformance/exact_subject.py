"""A subject of NumPy that computes in float64 and rounds once, at the end: no bound may refuse it.

Tests copy this file, as a user would write one: `exact_subject:Exact` is the subject.
"""

import numpy as np

from nfspec import plan as p
from nfspec import reference
from nfspec.conformance.cases.precision import narrow
from nfspec.conformance.cases.reduction import RATE_STEPS
from nfspec.plan.clipping import clip_rules
from nfspec.plan.initialise import init
from nfspec.reference import TrainingState, derivatives, training
from nfspec.reference import operations as ops
from nfspec.rewrites.folding import fold


def layer(op, *arrays):
    """One operation, or a `Clip`, on its inputs and parameters."""
    x, *values = arrays
    match op:
        case p.WSConv():
            kernel = ops.standardise(op, *values[:2])
            return ops.conv(x, kernel, *op.sliding) + values[2]
        case p.Activation():
            return ops.activation(op, x)
        case p.Pool():
            return ops.pool(op, x)
        case p.SqueezeExcite():
            return ops.squeeze_excite(op, x, *values)
        case p.ECA():
            return ops.eca(op, x, *values)
        case p.Residual():
            shortcut, *gain = values
            return op.alpha * (gain[0] if gain else 1.0) * x + shortcut
        case p.GlobalPool():
            return x.mean(axis=(1, 2))
        case p.Dense():
            return x @ values[0] + values[1]
    return training.clip(x, values[0], op.rule)[0]


def prefixed(prefix, values):
    return {f"{prefix}/{name}": value for name, value in values.items()}


class Exact:
    framework = "numpy"

    def __init__(self, mode):
        self.mode = mode

    def _entering(self, arrays, count):
        """float64, the first `count` rounded to what the mode stores."""
        return [
            (narrow(a, self.mode) if i < count else a).astype(np.float64)
            for i, a in enumerate(arrays)
        ]

    def _layer(self, op, entering=99, mode=None):
        """A layer that rounds the first arguments on their way in, and the result."""
        mode = mode or self.mode

        def function(*arrays):
            return narrow(layer(op, *self._entering(arrays, entering)), mode)

        def vjp(*arrays):
            dy, x, *values = self._entering(arrays, entering + 1)
            by_inputs, by_values = derivatives.vjp(op, dy, [x], values)
            return tuple(narrow(gradient, mode) for gradient in (*by_inputs, *by_values))

        function.vjp = vjp
        return function

    activation = pool = squeeze_excite = eca = residual = _layer

    def ws_conv(self, op):
        return self._layer(op, 1)  # weights are standardised in float32

    def agc(self, clip):
        return self._layer(clip, 0)

    def global_pool(self, op):
        return self._layer(op, 0, "f32")  # the head is in float32 in every mode

    dense = global_pool

    def forward(self, plan):
        def function(x, params):
            taps = reference.forward(plan, params, narrow(x, self.mode))
            return {tap: narrow(value, self.mode) for tap, value in taps.items()}

        return function

    def block(self, plan):
        function = self.forward(plan)
        return lambda x, params: function(x, params)["block"]

    def _drop(self, op, seed, replica, mode):
        rng = np.random.default_rng((seed, replica))

        def function(x, training):
            whole = isinstance(op, p.StochasticDepth)
            shape = (len(x), *(1 for _ in x.shape[1:])) if whole else x.shape
            factor = 1.0 / (1.0 - op.rate) if getattr(op, "rescale", True) else 1.0
            y = np.where(rng.random(shape) < op.rate, 0.0, factor * x) if training else x
            return narrow(y, mode)

        return function

    def stochastic_depth(self, op, seed, replica):
        return self._drop(op, seed, replica, self.mode)

    def dropout(self, op, seed, replica):
        return self._drop(op, seed, replica, "f32")

    def folded(self, plan, params):
        folded = fold(plan, params)
        weights = dict(folded.params)

        def forward(x):
            return np.float32(reference.forward(folded.plan, weights, x)["logits"])

        return forward, {"assign": weights.update}

    def train(self, plan, params, x, labels, steps):
        recipe, losses, after = plan.recipe, [], []
        targets = training.smoothed(labels, labels.shape[1], recipe.label_smoothing)
        state = TrainingState.start(plan, params)
        for i in range(steps):
            state, report = reference.train_step(plan, state, x, targets, self._rate(recipe, i))
            losses.append(report.loss)
            after.append(state.params)
        return {
            "losses": np.array(losses),
            **prefixed("first", after[0]),
            **prefixed("last", after[-1]),
        }

    def _rate(self, recipe, step):
        return training.learning_rate(
            step, recipe.learning_rate, RATE_STEPS, 0.0, recipe.final_learning_rate
        )

    def step(self, plan, params, momentum, gradients, done):
        recipe, state = plan.recipe, {}
        for name, rule in clip_rules(plan).items():
            wide = [np.float64(a[name]) for a in (params, gradients, momentum)]
            clipped, _ = training.clip(wide[1], wide[0], rule)
            decay = recipe.decay_of(plan.parameters[name].role)
            rate = self._rate(recipe, done)
            after, buffer = training.descend(wide[0], clipped, wide[2], rate, decay, recipe)
            state |= {
                f"parameter/{name}": np.float32(after),
                f"momentum/{name}": np.float32(buffer),
            }
        return state

    def through(self, plan, params):
        return init(plan) if params is None else params
