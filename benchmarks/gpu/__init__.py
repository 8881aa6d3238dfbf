"""One run of everything that is worth knowing of a GPU, in as many minutes as there are.

    python -m nfspec.benchmarks.gpu --out FOLDER --minutes 8

`items` says what is measured, in which order; `sweeps` and `proofs` measure; `running` keeps to the
time, writes what there is and goes on with what is there; `report` is the page.
"""
