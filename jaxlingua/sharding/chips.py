"""What one TPU chip of each generation offers: memory, arithmetic, bandwidth and links."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Chip:
    """One chip of a TPU generation, which is also one JAX device.

    A v4 or v5p chip has two TensorCores that JAX sees as one device (for v4 only in the "megacore"
    configuration, which Cloud TPU VMs have); every figure is for the whole chip.

    Args:
        name: as in a topology's name, "v5e" of "v5e:8x8".
        device_kind: what `jax.Device.device_kind` says.
        hbm_gib: what a program may use, in GiB. The compiler's own figure: libtpu 0.0.51 names it when it
            refuses a program that is too large. Less than the memory that is there.
        peak_tflops: dense bf16, as published.
        hbm_gb_per_second: as published, in units of 10**9 bytes.
        clock_ghz: follows from `peak_tflops` and `flops_per_cycle`; nothing here was measured on a chip.
        flops_per_cycle: matrix units x rows x columns x 2.
        ici_gb_per_second: one link in one direction, published or assumed; no program text tells it.
        dcn_gb_per_second: what one chip sends to other slices, its part of the pod's network as published
            (v5e 6.4, v6e 25.6 Tbit/s per pod of 256; v5p 50 Gbit/s per chip); None where it is not.
        torus_dims: axes of the chips' grid.
        wrap_multiple: an axis closes to a ring where its length is a multiple of this.
    """

    name: str
    device_kind: str
    hbm_gib: float
    peak_tflops: float
    hbm_gb_per_second: float
    clock_ghz: float
    flops_per_cycle: int
    ici_gb_per_second: float
    dcn_gb_per_second: float | None
    torus_dims: int
    wrap_multiple: int

    @property
    def hbm_bytes(self) -> int:
        """What a program may use, in bytes."""
        return int(self.hbm_gib * 2**30)


CHIPS = {
    "v4": Chip(
        name="v4",
        device_kind="TPU v4",
        hbm_gib=30.75,
        peak_tflops=275.0,
        hbm_gb_per_second=1228.0,
        clock_ghz=1.05,
        flops_per_cycle=8 * 128 * 128 * 2,
        ici_gb_per_second=45.0,
        dcn_gb_per_second=None,
        torus_dims=3,
        wrap_multiple=4,
    ),
    "v5e": Chip(
        name="v5e",
        device_kind="TPU v5 lite",
        hbm_gib=15.75,
        peak_tflops=197.0,
        hbm_gb_per_second=819.0,
        clock_ghz=1.5,
        flops_per_cycle=4 * 128 * 128 * 2,
        ici_gb_per_second=45.0,
        dcn_gb_per_second=3.125,
        torus_dims=2,
        wrap_multiple=16,
    ),
    "v5p": Chip(
        name="v5p",
        device_kind="TPU v5",
        hbm_gib=95.73,
        peak_tflops=459.0,
        hbm_gb_per_second=2765.0,
        clock_ghz=1.75,
        flops_per_cycle=8 * 128 * 128 * 2,
        ici_gb_per_second=90.0,
        dcn_gb_per_second=6.25,
        torus_dims=3,
        wrap_multiple=4,
    ),
    "v6e": Chip(
        name="v6e",
        device_kind="TPU v6 lite",
        hbm_gib=31.24,
        peak_tflops=918.0,
        hbm_gb_per_second=1640.0,
        clock_ghz=1.75,
        flops_per_cycle=4 * 256 * 256 * 2,
        ici_gb_per_second=90.0,
        dcn_gb_per_second=12.5,
        torus_dims=2,
        wrap_multiple=16,
    ),
}


def chip_of(device_kind: str) -> Chip | None:
    """The chip that calls itself `device_kind`; None for anything that is not one of `CHIPS`.

    >>> chip_of("TPU v5 lite").name
    'v5e'
    >>> chip_of("NVIDIA H100 80GB HBM3")
    """
    kinds = {kind: chip for chip in CHIPS.values() for kind in (chip.device_kind, f"TPU {chip.name}")}
    return kinds.get(device_kind)
