"""Graphics processors on Linux as the kernel shows them in /sys/class/drm, for all vendors.

NVIDIA's driver shows no memory there: `nvidia` and `nvidia_smi` know more, where they work.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bendi.hardware.sysfs import each_line, read_int, read_text, subfolders
from bendi.hardware.types import Gpu, GpuVendor

_VENDORS: Mapping[str, GpuVendor] = {"0x10de": "nvidia", "0x1002": "amd", "0x8086": "intel"}
_TITLES: Mapping[GpuVendor, str] = {"nvidia": "NVIDIA", "amd": "AMD", "intel": "Intel", "apple": "Apple"}
_PCI_IDS = ("usr/share/hwdata/pci.ids", "usr/share/misc/pci.ids")
_INTEGRATED_BUS = "0000:00:"
_ACCELERATOR_CLASS = "0x1200"


def read_gpus(root: Path) -> tuple[Gpu, ...]:
    """The GPUs below `root`, by vendor. Virtual display adapters are none."""
    counted: dict[GpuVendor, int] = {}
    found = []
    for card in subfolders(root / "sys/class/drm", "card*"):
        vendor = _VENDORS.get(read_text(card / "device/vendor"))
        # Connectors are listed beside the cards, as card0-HDMI-A-1.
        if vendor is None or not card.name.removeprefix("card").isdigit():
            continue
        index = counted.get(vendor, 0)
        counted[vendor] = index + 1
        found.append(_amd(root, card, index) if vendor == "amd" else _other(root, card, vendor, index))
    if "nvidia" not in counted:
        found += _nvidia_without_display(root)
    order = list(_VENDORS.values())
    return tuple(sorted(found, key=lambda gpu: (order.index(gpu.vendor), gpu.index)))


def has_nvidia(root: Path) -> bool:
    """Whether it is worth asking NVIDIA's driver: it is loaded, or provided by the system around (WSL2)."""
    return (root / "proc/driver/nvidia/version").exists() or (root / "dev/dxg").exists()


def _amd(root: Path, card: Path, index: int) -> Gpu:
    """An AMD GPU (kernel document: gpu/amdgpu/driver-misc.rst)."""
    device = card / "device"
    total = read_int(device / "mem_info_vram_total")
    used = read_int(device / "mem_info_vram_used") or 0
    # Chips soldered to a card have a maker; main memory in use as video memory has none.
    maker = read_text(device / "mem_info_vram_vendor")
    accelerator = read_text(device / "class").startswith(_ACCELERATOR_CLASS)
    unified = total is not None and maker in ("", "unknown") and not accelerator
    if unified and total is not None:
        total += read_int(device / "mem_info_gtt_total") or 0
        used += read_int(device / "mem_info_gtt_used") or 0
    return Gpu(
        name=read_text(device / "product_name") or _name(root, device, "amd"),
        vendor="amd",
        index=index,
        memory_total_bytes=total,
        memory_free_bytes=None if total is None else max(total - used, 0),
        driver=_uevent(device, "DRIVER"),
        uuid=read_text(device / "unique_id"),
        unified=unified,
    )


def _other(root: Path, card: Path, vendor: GpuVendor, index: int) -> Gpu:
    device = card / "device"
    # Only the xe driver tells the size, by tile (kernel ABI sysfs-driver-intel-xe).
    sizes = [read_int(tile / "physical_vram_size_bytes") or 0 for tile in subfolders(device, "tile[0-9]*")]
    return Gpu(
        name=_name(root, device, vendor),
        vendor=vendor,
        index=index,
        memory_total_bytes=sum(sizes) or None,
        driver=_uevent(device, "DRIVER"),
        unified=vendor == "intel" and not any(sizes) and _uevent(device, "PCI_SLOT_NAME").startswith(_INTEGRATED_BUS),
    )


def _nvidia_without_display(root: Path) -> list[Gpu]:
    """Cards that the driver knows and that have no entry for a display, as on most servers."""
    version = read_text(root / "proc/driver/nvidia/version")
    words = version.partition("Kernel Module")[2].split()
    driver = next((word for word in words if word[0].isdigit()), "")
    gpus = []
    for index, folder in enumerate(subfolders(root / "proc/driver/nvidia/gpus", "*")):
        lines = (line.partition(":") for line in each_line(read_text(folder / "information")))
        facts = {name.strip(): value.strip() for name, _, value in lines}
        gpus.append(Gpu(facts.get("Model", "NVIDIA"), "nvidia", index, driver=driver, uuid=facts.get("GPU UUID", "")))
    return gpus


def _uevent(device: Path, name: str) -> str:
    for line in each_line(read_text(device / "uevent")):
        key, _, value = line.partition("=")
        if key == name:
            return value
    return ""


def _name(root: Path, device: Path, vendor: GpuVendor) -> str:
    """The name from the system's list of PCI devices, or the numbers."""
    vendor_id = read_text(device / "vendor").removeprefix("0x")
    device_id = read_text(device / "device").removeprefix("0x")
    for path in _PCI_IDS:
        name = _listed_name(read_text(root / path), vendor_id, device_id)
        if name:
            return f"{_TITLES[vendor]} {name}"
    return f"{_TITLES[vendor]} {vendor_id}:{device_id}"


def _listed_name(pci_ids: str, vendor_id: str, device_id: str) -> str:
    r"""From a list with a line for each vendor and, indented by one tab below it, one for each device."""
    _, found, rest = ("\n" + pci_ids).partition(f"\n{vendor_id}  ")
    if not found:
        return ""
    for line in rest.splitlines()[1:]:
        if line[:1] not in ("\t", "#", ""):
            return ""
        if line.startswith(f"\t{device_id}  "):
            name = line.strip()[len(device_id) :].strip()
            # "Navi 31 [Radeon RX 7900 XTX]": the chip is followed by what it is sold as.
            return name.rpartition("[")[2].removesuffix("]") if name.endswith("]") else name
    return ""
