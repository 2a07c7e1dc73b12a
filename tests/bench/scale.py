"""Large stores: time, CPU and peak memory of what reads the list of backups, and the listing of the bucket, for 1,000, 10,000, 100,000 and a
million backups in one chain. And a long stream, in as many parts as 10 TiB have."""

import hashlib
import tempfile

from measure import *

TEST_BINARY = os.environ["TEST_BINARY"]
COUNTS = [int(text) for text in os.environ.get("COUNTS", "1000 10000 100000 1000000").split()]


# of 16 zeros, as the server has them
COMPOSITE = hashlib.sha256(hashlib.sha256(bytes(16)).digest()).hexdigest()


def name(n):
    return f"tank/data/home@daily-{n:07}", (1 << 60) + n


def stem(n):
    (snapshot, guid), (_, before) = name(n), name(n - 1)
    return f"{snapshot}/{guid:016x}-" + (f"from-{before:016x}" if n else "full") + f"-{n:08x}"


def keys(count, foreign):
    path = f"{WORK}/many.txt"
    with open(path, "w") as f:
        for n in range(count):
            f.write(f"{stem(n)}.zfs\n{stem(n)}.yml\n")
        for n in range(foreign):
            f.write(f"tank/data/photos/{n:08}.jpg\n")
    return path


def store(count, url):
    folder = f"{WORK}/many/zfs2s3"
    os.makedirs(folder)
    with open(f"{folder}/stored_snapshots.yml", "w") as f:
        f.write(f"version: 2\nendpoint: {url}\nbucket: b\nprefix: ''\nbackups:\n")
        for n in range(count):
            (snapshot, guid), (base, before) = name(n), name(n - 1)
            entry = {"snapshot": {"name": snapshot, "guid": str(guid)}, "id": f"{n:08x}"}
            if n:
                entry["base"] = {"name": base, "guid": str(before)}
            entry["stream"] = {
                "size": 16,
                "composite_sha256": COMPOSITE,
                "send_args": ["--raw"],
                "stages": [],
                "chunk_size": 16777216,
                "storage_class": "STANDARD",
                "stored": "2026-01-02T03:04:05Z",
                "segments": [{"key": f"{stem(n)}.zfs", "size": 16, "etag": '"e"'}],
            }
            f.write(f"- {json.dumps(entry, separators=(',', ':'))}\n")
        f.write(f"count: {count}\n")


def scale():
    os.environ.update(AWS_ACCESS_KEY_ID="bench", AWS_SECRET_ACCESS_KEY="bench", AWS_REGION="us-east-1")
    os.makedirs(f"{WORK}/zfs")
    with open(f"{WORK}/zfs/estimate", "w") as f:
        f.write("700")
    print("| backups | | seconds | CPU s | peak MiB | requests |")
    print("| ---: | --- | ---: | ---: | ---: | --- |")
    cases = [(count, 0) for count in COUNTS] + [(1000, 1_000_000)]
    for count, foreign in cases:
        with open(f"{WORK}/zfs/snapshots", "w") as f:
            for n in (count - 1, count):
                f.write(f"{name(n)[0]}\t{name(n)[1]}\t{n + 1}\n")
        (last, guid), (base, before) = name(count), name(count - 1)
        write_stream(f"{WORK}/zfs/{guid}-from-{before}", guid, before, 700)
        sink = Sink(keys=keys(count, foreign))
        store(count, sink.url)
        env = {
            "TEST_ZFS": f"{WORK}/zfs",
            "ZFS2S3_ZFS": ZFS,
            "XDG_DATA_HOME": f"{WORK}/many",
            "ZFS2S3_BUCKET": "b",
            "AWS_ENDPOINT_URL": sink.url,
        }
        jobs = {
            "list": ["list"],
            "upload -n -i": ["upload", "-n", "-i", base, last],
            "remove -n -i": ["remove", "-n", "-i", name(count - 2)[0], base],
        }
        # they read each manifest: of a million, for minutes
        if count <= 100_000:
            jobs |= {"recover -n": ["recover", "-n"], "verify": ["verify"], "restore -n": ["restore", "-n", base, "tank/new"]}
        for job, args in jobs.items():
            seconds, cpu, peak = measure([BINARY, *args], **env)
            beside = f" and {foreign:,} other objects" if foreign else ""
            print(f"| {count:,}{beside} | {job} | {seconds:.2f} | {cpu:.2f} | {peak:.0f} | {sink.requests()} |", flush=True)
        sink.end()
        shutil.rmtree(f"{WORK}/many")


# of 10 TiB in the smallest chunks, 5 MiB; here they are of 4 KiB, which only a test build allows
PARTS = int(os.environ.get("PARTS", 2 << 20))
PART = 4 << 10


def write_sparse(path, guid, size):
    """BEGIN, blocks of zeros as long as a block may be, END."""
    with open(path, "wb") as out:
        begin = bytearray(312)
        struct.pack_into("<QQ", begin, 8, 0x2F5BACBAC, 1)
        struct.pack_into("<QQ", begin, 40, guid, 0)
        out.write(begin)
        left = size - 624
        number = 0
        while left > 312:
            block = min(16 << 20, left - 312) // 8 * 8
            write = bytearray(312)
            struct.pack_into("<IIQIIQQQ", write, 0, 3, 0, 5, 0, 0, number, block, guid)
            out.write(write)
            out.seek(block, os.SEEK_CUR)
            left -= 312 + block
            number += block
        end = bytearray(312)
        struct.pack_into("<I", end, 0, 5)
        struct.pack_into("<Q", end, 40, guid)
        out.write(end)


def resident(pid):
    """MiB."""
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS")) / 1024


def wait_for(condition):
    while not condition():
        time.sleep(0.02)


def long_stream(parts):
    """Uploads nine tenths of it, kills the upload, and resumes it. The files of zfs2s3 are in memory: the disk, which syncs each part, is not
    what is measured."""
    write_sparse(f"{WORK}/zfs/1-full", 1, parts * PART)
    with open(f"{WORK}/zfs/snapshots", "w") as f:
        f.write("tank@a\t1\t1\n")
    sink = Sink(null=True)
    data = tempfile.mkdtemp(dir="/dev/shm")
    atexit.register(shutil.rmtree, data)
    env = {
        "TEST_ZFS": f"{WORK}/zfs",
        "ZFS2S3_ZFS": ZFS,
        "XDG_DATA_HOME": data,
        "ZFS2S3_BUCKET": "b",
        "AWS_ENDPOINT_URL": sink.url,
        "ZFS2S3_CHUNK_SIZE": str(PART),
        "ZFS2S3_TEST_PARTS": "10000",
    }
    journal, log = f"{data}/zfs2s3/upload_progress.yml", f"{WORK}/zfs/log"
    sends = lambda: sum(line.startswith("send --") and "-n" not in line.split() for line in open(log))
    record = 185
    upload = subprocess.Popen([TEST_BINARY, "upload", "-q", "tank@a"], env=os.environ | env, stdin=subprocess.DEVNULL)
    begun = time.monotonic()
    print(f"\n| {parts:,} parts | seconds | resident MiB |")
    print("| --- | ---: | ---: |")
    for tenth in range(1, 10):
        wait_for(lambda: os.path.exists(journal) and os.path.getsize(journal) > parts * record * tenth // 10)
        print(f"| {tenth}0 % | {time.monotonic() - begun:.1f} | {resident(upload.pid):.0f} |", flush=True)
    upload.kill()
    upload.wait()
    begun = time.monotonic()
    before = sends()
    resumed = {}
    def watch():
        wait_for(lambda: sends() > before)
        resumed["after"] = time.monotonic() - begun
    watcher = threading.Thread(target=watch)
    watcher.start()
    seconds, cpu, peak = measure([TEST_BINARY, "resume_upload"], **env)
    watcher.join()
    print(f"| resumed: 'zfs send' began after | {resumed['after']:.1f} | |")
    print(f"| and the backup was stored after | {seconds:.1f} | {peak:.0f}, at the most |", flush=True)
    sink.end()


if __name__ == "__main__":
    scale()
    long_stream(PARTS)
