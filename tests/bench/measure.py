"""The measurements of tests/bench/run: CPU by wait4, which counts a process and those it waited for."""

import json
import os
import shutil
import struct
import subprocess
import sys
import time

BINARY, FLOOR, ZFS, WORK = (os.environ[name] for name in ("BINARY", "FLOOR", "ZFS", "WORK"))
SIZE = 2 << 30
CHUNK = 16 << 20
ROUNDS = 3


def stream(path):
    """BEGIN, blocks of noise, END. No checksums: they are computed all the same, and compared only if there are any."""
    block = 128 << 10
    with open(path, "wb") as out:
        begin = bytearray(312)
        struct.pack_into("<QQ", begin, 8, 0x2F5BACBAC, 1)
        struct.pack_into("<Q", begin, 40, 1)
        out.write(begin)
        noise = os.urandom(64 << 20)
        for n in range((SIZE - 624) // (312 + block)):
            write = bytearray(312)
            struct.pack_into("<IIQIIQQQ", write, 0, 3, 0, 5, 0, 0, n * block, block, 1)
            at = n * block % len(noise)
            out.write(write + noise[at : at + block])
        end = bytearray(312)
        struct.pack_into("<I", end, 0, 5)
        struct.pack_into("<Q", end, 40, 1)
        out.write(end)


def measure(command, into_pipe=False, **env):
    """CPU seconds, seconds, and peak memory in MiB of the process itself."""
    begun = time.monotonic()
    reader = subprocess.Popen("cat > /dev/null", shell=True, stdin=subprocess.PIPE) if into_pipe else None
    out = reader.stdin if reader else subprocess.DEVNULL
    child = subprocess.Popen(command, env=os.environ | env, stdout=out, stderr=subprocess.PIPE)
    if reader:
        reader.stdin.close()
    peak = 0
    while True:
        pid, status, usage = os.wait4(child.pid, os.WNOHANG)
        if pid:
            break
        try:
            with open(f"/proc/{child.pid}/status") as f:
                peak = max([peak] + [int(line.split()[1]) for line in f if line.startswith("VmHWM")])
        except OSError:
            pass
        time.sleep(0.01)
    if reader:
        reader.wait()
    if status:
        sys.exit(f"{command}: {child.stderr.read().decode()}")
    return usage.ru_utime + usage.ru_stime, time.monotonic() - begun, peak / 1024


def upload(jobs):
    os.makedirs(f"{WORK}/zfs", exist_ok=True)
    with open(f"{WORK}/zfs/snapshots", "w") as f:
        f.write("tank@a\t1\t1\n")
    env = {"TEST_ZFS": f"{WORK}/zfs", "ZFS2S3_ZFS": ZFS, "XDG_DATA_HOME": f"{WORK}/data", "ZFS2S3_JOBS": str(jobs)}
    result = measure([BINARY, "upload", "tank@a"], **env)
    measure([BINARY, "remove", "tank@a"], **env)
    return result


def download(jobs):
    """Of what was uploaded once before; to a pipe that somebody reads."""
    env = {"TEST_ZFS": f"{WORK}/zfs", "ZFS2S3_ZFS": ZFS, "XDG_DATA_HOME": f"{WORK}/kept", "ZFS2S3_JOBS": str(jobs)}
    if not os.path.exists(f"{WORK}/kept"):
        measure([BINARY, "upload", "tank@a"], **env, ZFS2S3_PREFIX="kept/")
    return measure([BINARY, "download", "tank@a"], into_pipe=True, **env, ZFS2S3_PREFIX="kept/")


def read_floor():
    """The same bytes from a socket, one SHA-256 pass, and a write to a pipe."""
    source = subprocess.Popen([FLOOR, "source", f"{WORK}/zfs/1-full"], stdout=subprocess.PIPE)
    address = source.stdout.readline().decode().strip()
    result = measure([FLOOR, "read", str(CHUNK), address], into_pipe=True)
    source.wait()
    return result


def floor():
    sink = subprocess.Popen([FLOOR, "sink"], stdout=subprocess.PIPE)
    address = sink.stdout.readline().decode().strip()
    result = measure(["sh", "-c", f"cat {WORK}/zfs/1-full | {FLOOR} {CHUNK} {address}"])
    sink.wait()
    return result


def aws():
    command = f"cat {WORK}/zfs/1-full | aws s3 cp --quiet --expected-size {SIZE} - s3://zfs2s3-test/peer"
    result = measure(["sh", "-c", command])
    measure(["aws", "s3", "rm", "--quiet", "s3://zfs2s3-test/peer"])
    return result


def many(count):
    """A store of so many backups: one full, and a chain."""
    first = 1 << 60
    folder = f"{WORK}/many/zfs2s3"
    os.makedirs(folder)
    with open(f"{folder}/stored_snapshots.yml", "w") as f:
        f.write("version: 1\nendpoint: x\nbucket: zfs2s3-test\nprefix: ''\nbackups:\n")
        for n in range(count):
            name, guid = f"tank/data/home@daily-{n:06}", first + n
            kind = f"from-{guid - 1:016x}" if n else "full"
            entry = {"snapshot": {"name": name, "guid": str(guid)}}
            if n:
                entry["base"] = {"name": f"tank/data/home@daily-{n - 1:06}", "guid": str(guid - 1)}
            entry["stream"] = {
                "size": 123456789,
                "composite_sha256": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881",
                "send_args": ["--raw"],
                "stages": [],
                "chunk_size": 16777216,
                "storage_class": "STANDARD",
                "stored": "2026-01-02T03:04:05Z",
                "segments": [
                    {
                        "key": f"{name}/{guid:016x}-{kind}.zfs",
                        "size": 123456789,
                        "etag": '"3ebc905ba543a93220253a05eca2d5ce-5"',
                        "checksum": "SFu8QN+VfIPMdQmnpzy12rzbgt4Bm8wVP7xBthfKMU0=-5",
                    }
                ],
            }
            f.write(f"- {json.dumps(entry, separators=(',', ':'))}\n")
        f.write(f"count: {count}\n")


def least(results):
    return min(results, key=lambda result: result[0])


def table(title, results):
    base = least(results["floor"])[0]
    print(f"{title:18} {'CPU s/GiB':>10} {'x floor':>8} {'seconds':>8} {'peak MiB':>9}")
    for name, found in results.items():
        cpu, seconds, peak = least(found)
        shown = f"{peak:9.0f}" if name.startswith("zfs2s3") else f"{'-':>9}"
        print(f"{name:18} {cpu / 2:10.2f} {cpu / base:8.2f} {seconds:8.1f} {shown}")


def main():
    os.makedirs(f"{WORK}/zfs")
    stream(f"{WORK}/zfs/1-full")
    runs = {"floor": floor, "zfs2s3, 16 jobs": lambda: upload(16), "zfs2s3, 2 jobs": lambda: upload(2)}
    if shutil.which("aws"):
        runs["aws s3 cp"] = aws
    results = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            results[name].append(run())
    table("upload of 2 GiB", results)
    runs = {"floor": read_floor, "zfs2s3, 16 jobs": lambda: download(16), "zfs2s3, 2 jobs": lambda: download(2)}
    results = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            results[name].append(run())
    table("download of 2 GiB", results)
    many(10_000)
    for name, args in {"list, 10,000": ["list"], "list -Hp, 10,000": ["list", "-Hp"], "--version": ["--version"]}.items():
        found = [wall([BINARY, *args], XDG_DATA_HOME=f"{WORK}/many") for _ in range(10)]
        print(f"{name:18} {min(found) * 1000:.1f} ms")


def wall(command, **env):
    begun = time.monotonic()
    subprocess.run(command, env=os.environ | env, stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - begun


main()
