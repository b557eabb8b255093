"""Pictures of machines: written from a short description, and read without hwloc (the XML of lstopo, by its own rules)."""

import dataclasses
import xml.etree.ElementTree as ElementTree

GPU_CLASSES = {0x0302, 0x0380, 0x1200}
VGA, VENDORS = 0x0300, {0x1002, 0x10DE}
COPROCESSOR, BLOCK = "5", "0"


@dataclasses.dataclass
class Node:
    """CPUs of one node, and devices on its PCI bus: GPUs by (bus number, vendor[, UUID]), disks by name."""
    cpus: list
    memory: int = 4 << 30
    gpus: list = dataclasses.field(default_factory=list)
    disks: list = dataclasses.field(default_factory=list)


def mask(numbers):
    return hex(sum(1 << n for n in numbers))


def write(path, nodes, distances=None, forbidden=()):
    """The machine with these nodes as a file of lstopo; nodes in `forbidden` are outside the cpuset."""
    serial = iter(range(1, 10000))

    def sets(cpus, numbers):
        return (f'cpuset="{mask(cpus)}" complete_cpuset="{mask(cpus)}" nodeset="{mask(numbers)}" '
                f'complete_nodeset="{mask(numbers)}" gp_index="{next(serial)}"')

    every = [cpu for node in nodes for cpu in node.cpus]
    allowed = [n for n in range(len(nodes)) if n not in forbidden]
    out = ['<?xml version="1.0" encoding="UTF-8"?>', '<!DOCTYPE topology SYSTEM "hwloc2.dtd">', '<topology version="2.0">',
           f'<object type="Machine" os_index="0" {sets(every, range(len(nodes)))} allowed_nodeset="{mask(allowed)}" '
           f'allowed_cpuset="{mask(cpu for n in allowed for cpu in nodes[n].cpus)}">']
    for n, node in enumerate(nodes):
        out += [f'<object type="Package" os_index="{n}" {sets(node.cpus, [n])}>',
                f'<object type="NUMANode" os_index="{n}" {sets(node.cpus, [n])} local_memory="{node.memory}"/>']
        for cpu in node.cpus:
            out += [f'<object type="Core" os_index="{cpu}" {sets([cpu], [n])}>',
                    f'<object type="PU" os_index="{cpu}" {sets([cpu], [n])}/></object>']
        buses = [gpu[0] for gpu in node.gpus] + [0xE0 + 4 * n + i for i in range(len(node.disks))]
        if buses:
            out += [f'<object type="Bridge" gp_index="{next(serial)}" bridge_type="0-1" depth="0" '
                    f'bridge_pci="0000:[{min(buses):02x}-{max(buses):02x}]">']
            for bus, vendor, *uuid in node.gpus:
                out += [f'<object type="PCIDev" gp_index="{next(serial)}" pci_busid="0000:{bus:02x}:00.0" '
                        f'pci_type="0302 [{vendor:04x}:1db8] [{vendor:04x}:131d] a1" pci_link_speed="0.0">']
                out += [f'<object type="OSDev" gp_index="{next(serial)}" name="nvml{bus}" osdev_type="1">'
                        f'<info name="NVIDIAUUID" value="{u}"/></object>' for u in uuid]
                out += ["</object>"]
            for i, disk in enumerate(node.disks):
                out += [f'<object type="PCIDev" gp_index="{next(serial)}" pci_busid="0000:{0xE0 + 4 * n + i:02x}:00.0" '
                        'pci_type="0108 [144d:a804] [144d:a801] 00" pci_link_speed="0.0">',
                        f'<object type="OSDev" gp_index="{next(serial)}" name="{disk}" osdev_type="0"/></object>']
            out += ["</object>"]
        out += ["</object>"]
    out += ["</object>"]
    if distances:
        indexes = " ".join(str(n) for n in range(len(nodes))) + " "
        values = " ".join(str(v) for row in distances for v in row) + " "
        out += [f'<distances2 type="NUMANode" nbobjs="{len(nodes)}" kind="5" name="NUMALatency" indexing="os">',
                f'<indexes length="{len(indexes)}">{indexes}</indexes>',
                f'<u64values length="{len(values)}">{values}</u64values>', "</distances2>"]
    path.write_text("\n".join(out + ["</topology>"]) + "\n")
    return path


def bits(text):
    """Numbers in a bitmap such as 0x00ffffff,,0x1: words of 32 bits, the highest first, an empty one is zero."""
    value = 0
    for word in (text or "0").split(","):
        value = value << 32 | int(word or "0", 16)
    return {n for n in range(value.bit_length()) if value >> n & 1}


class Machine:
    """What a file of lstopo says about nodes, GPUs and disks."""

    def __init__(self, path):
        self.nodes, gpus, self.disks = {}, [], {}
        root = ElementTree.parse(path).getroot()
        self.machine = root.find("object")
        for node in root.iter("object"):
            if node.get("type") == "NUMANode":
                self.nodes[int(node.get("os_index"))] = bits(node.get("cpuset"))
        self.walk(self.machine, self.machine, gpus)
        self.gpus = [(address, node) for _, address, node in sorted(gpus)]
        self.distances = {}
        for matrix in root.iter("distances2"):
            if matrix.get("name") == "NUMALatency":
                names = [int(n) for part in matrix.iter("indexes") for n in part.text.split()]
                values = [int(v) for part in matrix.iter("u64values") for v in part.text.split()]
                for i, a in enumerate(names):
                    for k, b in enumerate(names):
                        self.distances[a, b] = values[i * len(names) + k]

    def walk(self, thing, place, gpus):
        for child in thing.findall("object"):
            kind = child.get("type")
            if kind == "PCIDev" and self.is_gpu(child):
                domain, bus, rest = child.get("pci_busid").split(":")
                key = (int(domain, 16), int(bus, 16), *(int(n, 16) for n in rest.split(".")))
                gpus.append((key, child.get("pci_busid"), self.node_of(place)))
            if kind == "OSDev" and child.get("osdev_type") == BLOCK:
                self.disks[child.get("name")] = self.node_of(place)
            self.walk(child, place if kind in ("Bridge", "PCIDev", "OSDev") else child, gpus)

    def is_gpu(self, device):
        words = device.get("pci_type").split()
        number, vendor = int(words[0], 16), int(words[1].strip("[").split(":")[0], 16)
        computes = any(o.get("osdev_type") == COPROCESSOR for o in device.findall("object"))
        return number in GPU_CLASSES or number == VGA and (computes or vendor in VENDORS)

    def node_of(self, place):
        """The node with the fewest CPUs that has the first of the place's; a device of the whole machine is nowhere."""
        if len(self.nodes) > 1 and place is self.machine:
            return None
        first = min(bits(place.get("cpuset")))
        return min((n for n, cpus in self.nodes.items() if first in cpus), key=lambda n: len(self.nodes[n]))
