"""Proof that implementations run the same network: cases, bounds, workers, faults, reports.

The kit imports the core and, in a worker, `backends`. Its rooms import each other in this order:
`cases`, `subjects`, `bounds`, `properties`, `faults`, `workers`, `running`, `report`,
`conventions`. `compare` runs whole networks on a photograph.
"""
