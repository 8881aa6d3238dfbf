"""Flags with which XLA compiles on the CPU in about half the time: without LLVM's optimisations,
and with the older of its two code generators. Programs run slower, and mean the same."""

XLA_FLAGS = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
