"""Times and memory of nfspec beside those of its peers, measured in one run.

Each contestant has a process of its own, since Keras's framework is fixed in a process. They take
turns, so that other load on the machine slows all of them alike. Only ratios within a run mean
anything.

The benchmarks import everything but the command line.
"""
