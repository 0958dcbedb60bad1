"""What is told while it runs: console, metrics.jsonl, TensorBoard, W&B; and the one way off a device.

device.py    `fetch`, the only device-to-host transfer of the project; memory
speed.py     seconds per step without compilation and pauses, time left, MFU
goodput.py   where the time of all starts went
writer.py    one line per logged step, under the same names everywhere
console.py   plain sentences, and a live line on a terminal
tracker.py   all of these together, one step behind the device
"""

from jaxlingua.tracking.console import Console
from jaxlingua.tracking.device import fetch
from jaxlingua.tracking.speed import ModelSize, mean_keys
from jaxlingua.tracking.tracker import StageFacts, Tracker, group_means, open_tracker
from jaxlingua.tracking.writer import MetricWriter

__all__ = [
    "Console",
    "MetricWriter",
    "ModelSize",
    "StageFacts",
    "Tracker",
    "fetch",
    "group_means",
    "mean_keys",
    "open_tracker",
]
