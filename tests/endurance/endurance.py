"""See `run`, beside this file."""

import asyncio
import hashlib
import os
import random
import struct
import subprocess
import sys
import threading
import time
from collections import Counter

BLOCK = 128 << 10
# between two faults
SECONDS = (3, 9)
failed = 0


def stream(gib):
    """A stream without checksums of ZFS, piece by piece: BEGIN, blocks of noise, END."""
    begin = bytearray(312)
    struct.pack_into("<QQ", begin, 8, 0x2F5BACBAC, 1)
    struct.pack_into("<QQ", begin, 40, 1, 0)
    yield begin
    noise = random.Random(1).randbytes((4 << 20) + BLOCK)
    for n in range(int(gib * (1 << 30)) // (312 + BLOCK)):
        write = bytearray(312)
        struct.pack_into("<IIQIIQQQ", write, 0, 3, 0, 5, 0, 0, n * BLOCK, BLOCK, 1)
        at = n * 4099 % (len(noise) - BLOCK)
        yield write + noise[at : at + BLOCK]
    end = bytearray(312)
    struct.pack_into("<I", end, 0, 5)
    struct.pack_into("<Q", end, 40, 1)
    yield end


class Proxy:
    """Between zfs2s3 and the server, with faults."""

    def __init__(self, server):
        self.server = server
        self.connections = {}
        self.counts = Counter()
        self.is_down = False
        self.refusals = self.cuts = 0
        self.random = random.Random(2)
        self.port = None
        started = threading.Event()

        async def run():
            server = await asyncio.start_server(self.serve, "127.0.0.1", 0, limit=1 << 20)
            self.port = server.sockets[0].getsockname()[1]
            started.set()
            await self.disturb()

        threading.Thread(target=lambda: asyncio.run(run()), daemon=True).start()
        started.wait()

    async def serve(self, reader, writer):
        if self.is_down:
            writer.transport.abort()
            return
        own = {"stalled": 0.0, "writer": writer}
        self.connections[id(own)] = own
        try:
            below, above = await asyncio.open_connection("127.0.0.1", self.server, limit=1 << 20)
            own["above"] = above
            await asyncio.gather(self.carry(own, reader, above, True), self.carry(own, below, writer, False))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            del self.connections[id(own)]
            self.end(own)

    def end(self, own):
        for end in ("writer", "above"):
            if end in own:
                own[end].transport.abort()

    async def carry(self, own, reader, writer, is_request):
        while data := await reader.read(1 << 18):
            wait = own["stalled"] - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            if is_request and self.refusals and data[:5] in (b"PUT /", b"GET /"):
                self.refusals -= 1
                own["writer"].write(b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                await own["writer"].drain()
                raise OSError
            if not is_request and self.cuts and len(data) > 1:
                self.cuts -= 1
                writer.write(data[: len(data) // 2])
                await writer.drain()
                raise OSError
            writer.write(data)
            await writer.drain()
        raise OSError

    async def disturb(self):
        while True:
            await asyncio.sleep(self.random.uniform(*SECONDS))
            if not self.connections:
                continue
            kind = self.random.choice(["reset", "reset", "stall", "503", "cut", "down"])
            self.counts[kind] += 1
            own = self.random.choice(list(self.connections.values()))
            if kind == "reset":
                self.end(own)
            elif kind == "stall":
                own["stalled"] = time.monotonic() + 20
            elif kind == "503":
                self.refusals += 3
            elif kind == "cut":
                self.cuts += 1
            else:
                self.is_down = True
                for other in list(self.connections.values()):
                    self.end(other)
                await asyncio.sleep(4)
                self.is_down = False


def usage(pid):
    with open(f"/proc/{pid}/status") as status:
        lines = dict(line.split(":", 1) for line in status)
    return int(lines["VmRSS"].split()[0]) >> 10, int(lines["Threads"]), len(os.listdir(f"/proc/{pid}/fd"))


def run(proxy, binary, work, line):
    """Runs it, with samples of memory (MiB), threads and open files; and what it wrote, as SHA-256."""
    global failed
    env = {
        "PATH": os.environ["PATH"], "HOME": work, "TEST_ZFS": f"{work}/zfs", "ZFS2S3_ZFS": f"{work}/zfs/send",
        "ZFS2S3_BUCKET": "endurance", "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}", "AWS_REGION": "us-east-1",
        **{name: os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")},
    }
    before, begun, samples, digest = proxy.counts.copy(), time.monotonic(), [], hashlib.sha256()
    with open(f"{work}/stderr", "wb") as said:
        process = subprocess.Popen([binary, *line.split()], env=env, stdout=subprocess.PIPE, stderr=said)
    is_over = threading.Event()

    def watch():
        while not is_over.wait(0.25):
            try:
                samples.append(usage(process.pid))
            except (OSError, KeyError):
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    while piece := process.stdout.read(1 << 20):
        digest.update(piece)
    status = process.wait()
    is_over.set()
    watcher.join()
    faults = proxy.counts - before
    seconds = time.monotonic() - begun
    print(f"{line}: status {status} after {seconds:.0f} s and {faults.total()} faults: {dict(faults)}", flush=True)
    check(status == 0, f"{line}: it succeeds; it said: {open(f'{work}/stderr').read()[-1500:]}")
    half = len(samples) // 2
    for name, n, more in (("MiB of memory", 0, 24), ("threads", 1, 2), ("open files", 2, 6)):
        early, late = (max((sample[n] for sample in some), default=0) for some in (samples[:half], samples[half:]))
        check(late <= early + more, f"{line}: {name}: at most {early} in the first half, {late} in the second")
    return digest.hexdigest()


def check(holds, what):
    global failed
    failed += not holds
    print(("ok: " if holds else "not ok: ") + what, flush=True)


def main(binary, gib, work, server, zfs):
    os.mkdir(f"{work}/zfs")
    with open(f"{work}/zfs/snapshots", "w") as file:
        file.write("tank/a@1\t1\t10\n")
    # that there is a stream
    open(f"{work}/zfs/1-full", "w").close()
    with open(f"{work}/zfs/send", "w") as file:
        stream_again = f"exec python3 {os.path.abspath(__file__)} stream {gib}"
        file.write(f'#!/bin/sh\ncase "$1 $2" in "send --"*) {stream_again} ;; esac\nexec {zfs} "$@"\n')
    os.chmod(f"{work}/zfs/send", 0o755)
    expected = hashlib.sha256()
    for piece in stream(float(gib)):
        expected.update(piece)
    proxy = Proxy(int(server))
    run(proxy, binary, work, "upload tank/a@1")
    check(run(proxy, binary, work, "download tank/a@1") == expected.hexdigest(), "the same stream comes back")
    sys.stdout.flush()
    os._exit(min(failed, 1))


if sys.argv[1] == "stream":
    for piece in stream(float(sys.argv[2])):
        sys.stdout.buffer.write(piece)
else:
    main(*sys.argv[1:])
