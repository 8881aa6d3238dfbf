"""Flags with which XLA compiles on the CPU in a quarter of the time: without LLVM's optimisations,
with the older of its two code generators, and each program as one module. Programs run slower, and
mean the same.

XLA reads them once in a process, when JAX or TensorFlow starts, and ends the process at a flag that
it does not know.
"""

from importlib.metadata import version

from packaging.version import Version

XLA_FLAGS = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
NEWER = {"jaxlib": Version("0.7"), "tensorflow": Version("2.20")}
# Before, there is the older generator alone.
TWO_GENERATORS = all(Version(version(name)) >= least for name, least in NEWER.items())
if TWO_GENERATORS:
    XLA_FLAGS += " --xla_cpu_use_fusion_emitters=false"
