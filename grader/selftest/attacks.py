"""What the self-test runs in a jail: each source tries to break one promise, and prints HELD or OPEN with what it saw.

The names in capitals are given by run.py: SECRET and TARGET (files outside), PORT (somebody listens there),
MARKER, BUILDS (the folder of courses) and HOST (the process that grades).
"""

from __future__ import annotations

NETWORK = """
import socket
seen = []
for family, address in ((socket.AF_INET, ("127.0.0.1", PORT)), (socket.AF_INET, ("192.0.2.1", 80))):
    try:
        with socket.socket(family) as s:
            s.settimeout(2); s.connect(address); seen.append(address)
    except OSError as error:
        if address[1] == 80 and isinstance(error, TimeoutError): seen.append("a route outside")
print("OPEN" if seen else "HELD", seen or "no network")
"""
READS = """
import glob
try: print("OPEN", "read", open(SECRET).read()[:40])
except OSError as error: print("HELD", error.strerror)
"""
WRITES = """
import os, tinyllm
seen = []
for path in (TARGET, "/usr/tinyllm-selftest", os.path.dirname(tinyllm.__file__) + "/selftest", "/tinyllm-selftest"):
    try:
        open(path, "a").write("broken"); seen.append(path)
        if path != TARGET: os.unlink(path)
    except OSError: pass
print("OPEN" if seen else "HELD", seen or "nothing outside the temporary files can be written")
"""
OTHER_COURSES = """
import ctypes, glob, os
libc = ctypes.CDLL(None)
seen = [path for path in glob.glob("/builds/*") + glob.glob(BUILDS + "/*")]
if not seen and libc.unshare(0x10020000) == 0:
    for place in (b"/builds", b"/course", b"/tmp"): libc.umount2(place, 2)
    seen = glob.glob("/builds/*") + glob.glob(BUILDS + "/*")
print("OPEN" if seen else "HELD", seen[:2] or "the other courses are out of sight")
"""
REFERENCE = """
from tinyllm.kv_cache.allocator import BlockAllocator
try: BlockAllocator(4).allocate(1); print("OPEN", "the reference can be imported")
except NotImplementedError: print("HELD", "the part to be written is a stub")
"""
JUDGMENTS = """
import importlib, random
seen = []
for name in ("grader.mutants.diagnosis", "grader.mutants", "grader.checks.oracles.ownership", "grader.hidden"):
    try: importlib.import_module(name); seen.append(name)
    except ImportError: pass
from grader.checks.day1.block_allocator import EXERCISE
for p in EXERCISE.properties:
    try: seen += list(p.cases(random.Random(0)))
    except TypeError: pass
    if vars(p).get("_judge", p.judge): seen.append(p.sentence)
print("OPEN" if seen else "HELD", seen or "no cases, judgments or mutants")
"""
ENVIRONMENT = """
import os
print("OPEN" if MARKER in str(os.environ) else "HELD", sorted(os.environ)[:3])
"""
PROCESSES = """
import os, signal, time
children = []
try:
    while len(children) < 100:
        pid = os.fork()
        if pid == 0: time.sleep(20); os._exit(0)
        children.append(pid)
except OSError as error: pass
for pid in children: os.kill(pid, signal.SIGKILL)
print("OPEN" if len(children) >= 64 else "HELD", len(children), "processes")
"""
MEMORY = """
blocks = []
try:
    while len(blocks) < 40: blocks.append(bytearray(b"x") * 2**25)
except MemoryError: pass
size = len(blocks) * 32
print("OPEN" if size > 640 else "HELD", size, "MiB in one process")
"""
MEMORY_TOGETHER = """
import os, time
for _ in range(6):
    if os.fork() == 0:
        block = bytearray(b"x") * (200 * 2**20); time.sleep(20); os._exit(0)
time.sleep(10)
print("OPEN", "six processes had 200 MiB each")
"""
DISK = """
import os
size, places = 0, ["/tmp", "/dev/shm"]
for place in places:
    try:
        for number in range(12):
            with open(f"{place}/selftest-{MARKER}-{number}", "wb") as file:
                for _ in range(10): file.write(bytes(2**20)); file.flush(); size += 1
    except OSError: pass
    for number in range(12):
        try: os.unlink(f"{place}/selftest-{MARKER}-{number}")
        except OSError: pass
print("OPEN" if size > 2 * 40 else "HELD", size, "MiB written")
"""
SIGNALS = """
import os
seen = []
for pid in {os.getppid(), HOST} - {0}:
    try:
        os.kill(pid, 0)
        if pid == os.getppid() or b"grader" in open(f"/proc/{pid}/cmdline", "rb").read(): seen.append(pid)
    except OSError: pass
print("OPEN" if seen else "HELD", seen or "no process outside can be signaled")
"""
PRIVILEGES = """
import ctypes, os, resource
libc = ctypes.CDLL(None, use_errno=True)
seen = []
for name, call in {
    "setuid": lambda: os.setuid(0),
    "chroot": lambda: os.chroot("/tmp"),
    "nice": lambda: os.nice(-5),
    "mount": lambda: 1 / (libc.mount(b"tmpfs", b"/mnt", b"tmpfs", 0, None) + 1),
    "more files": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096)),
}.items():
    try: call(); seen.append(name)
    except Exception: pass
print("OPEN" if seen else "HELD", seen or "no privilege can be had")
"""
DAEMON = """
import os
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0: os.execv("/bin/sleep", [MARKER, "60"])
    os._exit(0)
os.wait()
print("HELD", "unless something is left")
"""
DEAF = """
import signal
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGHUP): signal.signal(number, signal.SIG_IGN)
while True: pass
"""

ATTACKS = {
    "network: no connection to this machine or another": NETWORK,
    "files outside cannot be read (gradebook, seed, other students)": READS,
    "files outside and the course cannot be written": WRITES,
    "courses of other exercises are out of sight": OTHER_COURSES,
    "the reference cannot be imported": REFERENCE,
    "cases, judgments and mutants are not there": JUDGMENTS,
    "the grader's environment is not seen": ENVIRONMENT,
    "number of processes is limited": PROCESSES,
    "memory of one process is limited": MEMORY,
    "disk space is limited": DISK,
    "processes outside cannot be signaled": SIGNALS,
    "no privilege can be had": PRIVILEGES,
}
