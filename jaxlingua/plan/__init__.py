"""The step compiled for TPUs that are not attached: memory, time, and what to change.

topology.py     "v5e:8x8" to devices
program.py      a configuration and a topology to the lowered step, and that to what the compiler says of it
executable.py   the schedule as text, also where JAX cannot print it
store.py        what the compiler said, kept under a hash of the lowered step
hlo.py          the schedule's text to instructions
traffic.py, kernels.py, collectives.py   what one instruction moves, computes and sends
ledger.py       the schedule walked through
estimate.py     cycles to seconds; roofline.py where there are none; step_time.py what both say
report.py       all of it as a table or as JSON
candidates.py   --search: the ways to run a step, narrowed down by arithmetic; search.py plans and chooses;
findings.py     what it found, and the configuration and the plot that are written
"""
