"""The step compiled for TPUs that are not attached: memory, time, and what to change.

topology.py  "v5e:8x8" to devices
program.py   a configuration and a topology to the lowered step, and that to what the compiler says of it
store.py     what the compiler said, kept under a hash of the lowered step
hlo.py       the scheduled program's text to instructions
estimate.py  instructions to seconds
report.py    all of it as a table or as JSON
"""
