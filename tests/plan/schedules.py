"""Schedules written by hand, in the notation of the TPU compiler."""

# What the compiler fuses into one instruction to hide a collective, here over 64 chips.
GROUP_64 = "replica_groups=mesh['axis_0'=64] {'axis_0'}"


def schedule_text(*entry: str, **computations: tuple[str, ...]) -> str:
    """A program of which `entry` runs; the last instruction of each computation is its root."""
    parts = [_computation(f"%{name} (p: f32[])", lines) for name, lines in computations.items()]
    parts.append(_computation("ENTRY %main (p: f32[])", entry))
    return "HloModule step, is_scheduled=true\n\n" + "\n\n".join(parts) + "\n"


def cycles(count: int) -> str:
    """The attribute in which the compiler says how long an instruction takes."""
    return f'backend_config={{"flag_configs":[],"estimated_cycles":"{count}"}}'


def matmul(name: str, count: int) -> str:
    """An instruction that is a matrix product of what is not told."""
    shape = "bf16[4096,4096]{1,0:T(8,128)(2,1)}"
    return f"%{name} = {shape} convolution(%p, %p), {cycles(count)}"


def _computation(head: str, lines: tuple[str, ...]) -> str:
    body = [f"  {line}" for line in lines[:-1]] + [f"  ROOT {line}" for line in lines[-1:]]
    return "\n".join([f"{head} -> f32[] {{", *body, "}"])
