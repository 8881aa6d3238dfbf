"""What nfspec costs next to what people would use instead, measured in one run.

Each contestant has a process of its own, since Keras's framework is fixed in a process; they take
turns, so that what else the machine does falls on all of them alike. Only ratios within a run mean
anything.

The benchmarks import everything but the command line.
"""
