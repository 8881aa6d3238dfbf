"""Flags with which XLA compiles on the CPU in a quarter of the time: without LLVM's optimisations,
with the older of its two code generators, and each program as one module. Programs run slower, and
mean the same.

XLA reads them once in a process, when JAX or TensorFlow starts.
"""

XLA_FLAGS = (
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false "
    "--xla_cpu_parallel_codegen_split_count=1"
)
