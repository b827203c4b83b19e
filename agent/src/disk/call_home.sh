#!/bin/sh
# The installed OS tells the server which disks its root file system and its CIDATA are on. Another OS on another disk
# of the machine may find this CIDATA as well, and must not pass for the one that was written.
# cloud-init is a Python program, so there is a Python: its own, when none is in the path.
own=$(head -n 1 "$(command -v cloud-init)" 2>/dev/null | sed -n 's/^#! *\([^ ]*\).*/\1/p')
for python in python3 /usr/libexec/platform-python "$own"; do
    [ -n "$python" ] && command -v "$python" >/dev/null 2>&1 && exec "$python" - <<'PROGRAM'
import json, os, struct, sys, time, urllib.error, urllib.request

URL = @URL@
MARK = struct.pack("<I", @MARK@)
BLOCK = "/sys/class/block"
TRIES, PAUSE, LATER, PAUSE_LATER = 20, 3, 240, 15


def read(path, count=512, skip=0):
    try:
        with open(path, "rb") as file:
            return file.read(count)[skip:]
    except OSError:
        return b""


def text(*paths):
    for path in paths:
        skip = 4 if path.endswith("vpd_pg80") else 0
        found = " ".join(read(path, skip=skip).decode("utf-8", "replace").replace("\0", " ").split())
        if found:
            return found[:128]
    return ""


def number(path):
    found = text(path)
    return int(found) if found.isdigit() else 0


def parts(name, depth=0):
    """The parts of disks that a block device is made of, through LVM, RAID and encryption."""
    here = os.path.realpath(os.path.join(BLOCK, name))
    disk, start = here, 0
    if os.path.exists(here + "/partition"):
        disk, start = os.path.dirname(here), number(here + "/start")
    below = sorted(os.listdir(disk + "/slaves")) if os.path.isdir(disk + "/slaves") else []
    if below and depth < 8:
        return [part for lower in below for part in parts(lower, depth + 1)]
    return [{
        "name": name, "start": start, "disk": os.path.basename(disk), "size": number(disk + "/size") * 512,
        "model": text(disk + "/device/model"), "wwn": text(disk + "/wwid", disk + "/device/wwid"),
        "serial": text(disk + "/serial", disk + "/device/serial", disk + "/device/vpd_pg80"),
    }]


def root():
    """What / is, and the parts that it is on."""
    kind = source = ""
    for line in read("/proc/self/mountinfo", 1 << 20).decode("utf-8", "replace").splitlines():
        words = line.split()
        if words[4] == "/" and "-" in words:
            kind, source = words[words.index("-") + 1], words[words.index("-") + 2]
    device = os.stat("/").st_dev
    numbers = "/sys/dev/block/%d:%d"
    if not os.path.exists(numbers % (os.major(device), os.minor(device))):
        # btrfs shows a device number of its own.
        try:
            device = os.stat(source).st_rdev
        except OSError:
            device = 0
    path = numbers % (os.major(device), os.minor(device))
    name = os.path.basename(os.path.realpath(path))
    return (kind + " " + source)[:200], parts(name) if device and os.path.exists(path) else []


def seeds():
    """The parts with the CIDATA that was made for this attempt: its volume serial number is in the boot sector."""
    found = []
    for name in sorted(os.listdir(BLOCK)):
        if name.startswith(("fd", "sr", "loop", "ram", "zram")):
            continue
        sector = read("/dev/" + name.replace("!", "/"))
        if len(sector) == 512 and sector[510:] == b"\x55\xaa":
            fat32 = sector[82:87] == b"FAT32" and sector[67:71] == MARK
            fat16 = sector[54:57] == b"FAT" and sector[39:43] == MARK
            if fat32 or fat16:
                found += parts(name)
    return found


def call():
    body = {}
    try:
        body["root"], body["root_parts"] = root()
        body["seeds"] = seeds()
    except Exception as error:
        body["root"] = "unknown: %s" % error
    data = json.dumps(body).encode()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        opener.open(urllib.request.Request(URL, data, {"Content-Type": "application/json"}), timeout=10).read()
    except urllib.error.HTTPError as error:
        return error.code < 500
    except Exception as error:
        print("swarmboot: the server at %s does not answer: %s" % (URL.rsplit("/", 1)[0], error))
        return False
    return True


for _ in range(TRIES):
    if call():
        sys.exit(0)
    time.sleep(PAUSE)
# A network that comes late must not hold up the rest of the first boot.
if os.fork():
    sys.exit(0)
os.setsid()
null = os.open(os.devnull, os.O_RDWR)
for stream in (0, 1, 2):
    os.dup2(null, stream)
for _ in range(LATER):
    time.sleep(PAUSE_LATER)
    if call():
        break
PROGRAM
done
echo "swarmboot: no Python was found to call home with" >&2
exit 1
