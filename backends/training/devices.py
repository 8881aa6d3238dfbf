"""One device or several, on each framework's own engine, behind one small interface.

JAX through `keras.distribution`, TensorFlow through `tf.distribute.MirroredStrategy`, PyTorch
through DistributedDataParallel, in processes with torchrun's environment. A batch is that of all
devices together; each takes an equal part, and gradients are averaged before they are clipped.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from nfspec.backends.layers.drop import Drop
from nfspec.errors import BackendError
from nfspec.plan.free_memory import free_memory

Logs = dict[str, float]
JAX_HOSTS = "KERAS_DISTRIBUTION_JOB_ADDRESSES"  # of keras.distribution.initialize
JAX_PROCESSES = "KERAS_DISTRIBUTION_NUM_PROCESSES"
JAX_PROCESS = "KERAS_DISTRIBUTION_PROCESS_ID"
PAGE = "see docs/several-devices.md"


class Devices:
    """A single device; the subclasses change what several devices need.

    Attributes:
        count: Devices in all.
        rank, world: Which process this is, of how many.
        together: All processes have to evaluate, not the first alone.
        in_parts: All processes have to read the parameters, not the first alone.
    """

    count = 1
    rank = 0
    world = 1
    together = False
    in_parts = False

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """The scope in which models and optimizers are made."""
        return contextlib.nullcontext()

    def prepare(self, trainer: keras.Model, network: keras.Model) -> None:
        """Make a compiled model ready to train; `network` is what it trains."""

    def train(self, trainer: keras.Model, x: NDArray[Any], y: NDArray[Any]) -> Logs:
        """One batch, of which x and y are this process's part: its loss and metrics."""
        trainer.reset_metrics()  # Keras does so itself since 3.15
        return trainer.train_on_batch(x, y, return_dict=True)

    def agree(self, stop: bool) -> bool:
        """True if any process received a signal to stop, so that all stop after the same step."""
        return stop

    def close(self) -> None:
        """Let go of other processes."""


def memory(count: int) -> int:
    """Bytes that each of so many devices may use: an accelerator's, or its part of what is free."""
    free = free_memory() // count
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        stats = jax.local_devices()[0].memory_stats() or {}
        return int(stats.get("bytes_limit", free))
    if backend == "torch":
        import torch

        return int(torch.cuda.mem_get_info()[0]) if torch.cuda.is_available() else free
    return free  # TensorFlow does not say what a device has


def devices(count: int, shard: bool = False) -> Devices:
    """The first devices of this machine, on the framework Keras runs on.

    Args:
        count: Number of devices. On PyTorch each is a process, and this is one of them.
        shard: JAX and PyTorch: spread each parameter over the devices, for networks that do not fit
            one.

    Raises:
        BackendError: There are not as many, or the framework cannot do so.
    """
    backend = keras.backend.backend()
    if shard and backend == "tensorflow":
        raise BackendError("tensorflow cannot shard parameters; jax and torch can")
    if count == 1 and not (shard and backend == "jax"):
        return Devices()
    if backend == "torch":
        return OnTorchInParts() if shard else OnTorch()
    return OnJAX(count, shard) if backend == "jax" else OnTensorFlow(count, shard)


class OnJAX(Devices):
    """Data parallel, with whole kernels on each device or in parts: `kernels.jax_parts`."""

    def __init__(self, count: int, shard: bool):
        import jax

        from nfspec.backends.kernels.jax_parts import Parts

        several = JAX_HOSTS in os.environ
        processes = _processes(count) if several else 1
        # Where there is no accelerator, cores stand in for devices.
        with contextlib.suppress(RuntimeError):  # JAX already runs
            jax.config.update("jax_num_cpu_devices", count // processes)
        if several:
            try:
                keras.distribution.initialize()
            except (ValueError, RuntimeError) as error:  # variables that are missing, or no address
                raise BackendError(
                    f"keras.distribution: {error}; {PAGE}, or unset {JAX_HOSTS}"
                ) from None
            self.rank, self.world = jax.process_index(), jax.process_count()
            self.together = self.world > 1
            self.in_parts = shard and self.together
        present = keras.distribution.list_devices()
        if len(present) < count:
            raise BackendError(_too_few(count, present))
        if several and len(present) > count:  # the first would be those of some processes alone
            raise BackendError(
                f"{count} devices asked for; the {processes} processes have {len(present)} "
                "together, and all of them have to be counted"
            )
        self.count = count
        used = present[:count]
        keras.distribution.set_distribution(
            Parts(used) if shard else keras.distribution.DataParallel(devices=used)
        )


def _processes(count: int) -> int:
    """Number of processes of JAX, which so many devices are divided among.

    Raises:
        BackendError: The variables of keras.distribution do not say it, or not which this one is.
    """
    address = os.environ[JAX_HOSTS].partition(",")[0]
    if not re.fullmatch(r".+:\d+", address):
        raise BackendError(f"{JAX_HOSTS}: expected HOST:PORT; found {address!r}; {PAGE}")
    processes = _numbered(JAX_PROCESSES, "a number of processes", range(1, 2**31))
    _numbered(JAX_PROCESS, f"a number from 0 to {processes - 1}", range(processes))
    if count % processes:
        raise BackendError(
            f"{count} devices do not divide among {processes} processes; all processes' devices "
            f"are counted together; {PAGE}"
        )
    return processes


def _numbered(name: str, expected: str, allowed: range) -> int:
    """The number that a variable of the environment has."""
    text = os.environ.get(name, "")
    if not (text.isascii() and text.isdecimal() and int(text) in allowed):
        found = repr(text) if text else "none"
        raise BackendError(f"{name}: expected {expected}; found {found}; {PAGE}")
    return int(text)


class OnTensorFlow(Devices):
    """Mirrored variables."""

    def __init__(self, count: int, shard: bool):
        import tensorflow as tf

        if "TF_CONFIG" in os.environ:
            self.strategy = tf.distribute.MultiWorkerMirroredStrategy()
            self.count = self.strategy.num_replicas_in_sync
            resolver = self.strategy.cluster_resolver
            self.together = True
            self.rank, self.world = (
                resolver.task_id,
                len(resolver.cluster_spec().as_dict()["worker"]),
            )
            return
        kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
        if kind == "CPU":
            logical = [tf.config.LogicalDeviceConfiguration()] * count
            cpu = tf.config.list_physical_devices("CPU")[0]
            with contextlib.suppress(RuntimeError):  # TensorFlow already runs
                tf.config.set_logical_device_configuration(cpu, logical)
        present = [device.name for device in tf.config.list_logical_devices(kind)]
        if len(present) < count:
            raise BackendError(_too_few(count, present))
        self.count = count
        self.strategy = tf.distribute.MirroredStrategy(present[:count])

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        return self.strategy.scope()

    def train(self, trainer: keras.Model, x: NDArray[Any], y: NDArray[Any]) -> Logs:
        trainer.reset_metrics()
        logs = self.step((self._parts(x), self._parts(y), None))
        return {name: float(value) for name, value in logs.items()}

    def prepare(self, trainer: keras.Model, network: keras.Model) -> None:
        import tensorflow as tf

        side = network.plan.train_size
        x = np.zeros((self.count, side, side, network.plan.channels), np.float32)
        y = np.zeros((self.count, network.output_shape[-1]), np.float32)
        with self.scope():
            trainer._symbolic_build(data_batch=(x, y, None))

        # Not trainer.train_function, which fails on several hosts: Keras reduces each metric over
        # an axis that it does not have (keras/src/backend/tensorflow/trainer.py,
        # `reduce_per_replica`, as of 3.15).
        def step(data: Any) -> Any:
            replicas = self.strategy.run(trainer.train_step, args=(data,))
            return {k: self.strategy.reduce("MEAN", v, axis=None) for k, v in replicas.items()}

        self.step = tf.function(step, autograph=False)

    def _parts(self, values: NDArray[Any]) -> Any:
        import tensorflow as tf

        own = self.count // self.world
        parts = np.split(values, own)
        return self.strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(parts[context.replica_id_in_sync_group % own])
        )


class OnTorch(Devices):
    """One of the processes that torchrun, or `nfspec train --devices`, started."""

    def __init__(self) -> None:
        import torch

        if "RANK" not in os.environ:
            raise BackendError(
                "torch needs one process for each device; start the processes by torchrun"
            )
        local = int(os.environ.get("LOCAL_RANK", "0"))
        cuda = torch.cuda.is_available()
        if cuda:
            torch.cuda.set_device(local)
        try:
            torch.distributed.init_process_group("nccl" if cuda else "gloo")
        except (ValueError, RuntimeError) as error:  # variables that are missing, or no address
            raise BackendError(
                f"torch.distributed: {error}; start the processes by torchrun, or unset RANK"
            ) from None
        self.rank = torch.distributed.get_rank()
        self.world = self.count = torch.distributed.get_world_size()

    def prepare(self, trainer: keras.Model, network: keras.Model) -> None:
        # Each process drops its own images: the first process's draws are those that are saved.
        for layer in network.layers:
            if isinstance(layer, Drop):
                seed, counter = np.asarray(keras.ops.convert_to_numpy(layer.seed_generator.state))
                layer.seed_generator.state.assign([seed_of(int(seed), self.rank), counter])
        self._replicate(trainer, network)

    def _replicate(self, trainer: keras.Model, network: keras.Model) -> None:
        import torch

        network.replicate(torch.nn.parallel.DistributedDataParallel)

    def train(self, trainer: keras.Model, x: NDArray[Any], y: NDArray[Any]) -> Logs:
        import torch

        logs = super().train(trainer, x, y)
        values = torch.tensor(list(logs.values()), dtype=torch.float64)
        if torch.cuda.is_available():
            values = values.cuda()
        torch.distributed.all_reduce(values)
        return dict(zip(logs, (values / self.world).tolist(), strict=True))

    def agree(self, stop: bool) -> bool:
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        asked = torch.tensor(int(stop), device=device)
        torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX)
        return bool(asked)

    def close(self) -> None:
        import torch

        torch.distributed.destroy_process_group()


class OnTorchInParts(OnTorch):
    """Such a process, with a part of the parameters: `nfspec.backends.parts`."""

    together = True
    in_parts = True

    def _replicate(self, trainer: keras.Model, network: keras.Model) -> None:
        from nfspec.backends.parts import spread

        spread(network, trainer.optimizer)


def seed_of(seed: int, rank: int) -> int:
    """The seed of a process; the first process's is the seed itself.

    Keras on PyTorch adds a seed and the count of its draws, so that with neighbouring seeds one
    process would draw what another drew a step before (keras/src/backend/torch/random.py,
    `torch_seed_generator`, as of 3.15). Multiples of the golden section stay far apart.
    """
    return (seed + rank * round(2**31 * (5**0.5 - 1) / 2)) % 2**31


def _too_few(count: int, present: Sequence[str]) -> str:
    return f"{count} devices asked for; found {len(present)}: {', '.join(present)}"
