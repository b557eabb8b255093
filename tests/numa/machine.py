"""An emulated machine with NUMA nodes, GPUs and NVMe drives where one wants them, and nothing but Debian's kernel, busybox
and the command under test inside. It is software emulation: right about places, wrong about time.

    node   CPUs    memory   GPU (by PCI address)   other
    0      0, 1    512 MiB  second
    1      2, 3    512 MiB  fourth                 the drive with the dataset
    2      4, 5    512 MiB  first
    3      6, 7    512 MiB  third
    4      8, 9    none     fifth                  nearest to node 3
"""

import pathlib
import shutil
import subprocess
import tarfile

HERE = pathlib.Path(__file__).resolve().parent
GPU_NODES = [2, 0, 3, 1, 4]
DATA_NODE = 1
MEMORY_NODES = [0, 1, 2, 3]
CPUS = {node: {2 * node, 2 * node + 1} for node in range(5)}
DISTANCES = [
    [10, 16, 32, 32, 40],
    [16, 10, 32, 32, 40],
    [32, 32, 10, 16, 24],
    [32, 32, 16, 10, 12],
    [40, 40, 24, 12, 10],
]
MEMORY_MIB = 512
BOOT_TIMEOUT = 280


def libraries(program):
    """Paths of the shared libraries and of the loader that a program names."""
    for line in subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout.splitlines():
        for word in line.split():
            if word.startswith("/"):
                yield pathlib.Path(word)


def make_initramfs(directory, command):
    """A compressed cpio archive: busybox, the command with its libraries, and guest.sh as /init."""
    root = directory / "root"
    for folder in ("bin", "lib", "lib64", "proc", "sys", "dev", "tmp"):
        (root / folder).mkdir(parents=True)
    root.chmod(0o755)
    shutil.copy(shutil.which("busybox"), root / "bin")
    shutil.copy(command, root / "bin" / "ringfeed")
    for library in libraries(command):
        loader = library.name.startswith("ld-linux")
        shutil.copy(library, root / ("lib64" if loader else "lib"))
    shutil.copy(HERE / "guest.sh", root / "init")
    (root / "init").chmod(0o755)
    names = "\n".join(str(p.relative_to(root)) for p in sorted(root.rglob("*")))
    archive = directory / "initramfs"
    with open(archive, "wb") as out:
        subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=root, input=names.encode(), stdout=out, check=True)
    return archive


def make_disks(directory, files):
    """The dataset's file system, and an empty disk for what the guest has to say."""
    data, facts = directory / "data.img", directory / "facts.img"
    subprocess.run(["/sbin/mke2fs", "-q", "-t", "ext4", "-d", files, data, "64M"], check=True)
    with open(facts, "wb") as f:
        f.truncate(64 << 20)
    return data, facts


def arguments(kernel, initramfs, data, facts):
    args = ["qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-nographic",
            "-no-reboot", "-nodefaults", "-serial", "stdio", "-m", f"{len(MEMORY_NODES) * MEMORY_MIB}M",
            "-smp", "10,sockets=5,cores=2,threads=1"]
    for node, cpus in CPUS.items():
        numa = f"node,nodeid={node},cpus={min(cpus)}-{max(cpus)}"
        if node in MEMORY_NODES:
            args += ["-object", f"memory-backend-ram,id=m{node},size={MEMORY_MIB}M"]
            numa += f",memdev=m{node}"
        args += ["-numa", numa]
    for a, row in enumerate(DISTANCES):
        for b, distance in enumerate(row[a + 1:], a + 1):
            args += ["-numa", f"dist,src={a},dst={b},val={distance}"]
    for i, node in enumerate(GPU_NODES):  # a PCI bus of its own for each node, numbered in the order of the GPUs
        args += ["-device", f"pxb-pcie,id=bus{node},bus_nr={32 * (i + 1)},bus=pcie.0,numa_node={node}",
                 "-device", f"pcie-root-port,id=gpu{node},bus=bus{node},chassis={10 + i},slot={10 + i}",
                 "-device", f"bochs-display,bus=gpu{node}"]
    args += ["-device", f"pcie-root-port,id=drive,bus=bus{DATA_NODE},chassis=30,slot=30",
             "-drive", f"file={data},if=none,id=d,format=raw,cache=unsafe", "-device", "nvme,drive=d,serial=data,bus=drive",
             "-drive", f"file={facts},if=none,id=f,format=raw,cache=unsafe", "-device", "nvme,drive=f,serial=facts,bus=pcie.0"]
    return args + ["-kernel", str(kernel), "-initrd", str(initramfs), "-append", "console=ttyS0 quiet panic=-1"]


def run(directory, kernel, command, files):
    """Boots, lets guest.sh do its work, and returns the folder with what it wrote."""
    initramfs = make_initramfs(directory, command)
    data, facts = make_disks(directory, files)
    try:
        with open(directory / "console", "wb") as console:
            subprocess.run(arguments(kernel, initramfs, data, facts), stdin=subprocess.DEVNULL, stdout=console,
                           stderr=subprocess.STDOUT, timeout=BOOT_TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        pass  # what it said so far tells more
    said = (directory / "console").read_text(errors="replace")
    assert "DONE after" in said, f"the machine did not come to its end:\n{said[-4000:]}"
    with tarfile.open(facts) as archive:
        archive.extractall(directory / "facts")
    return directory / "facts"
