"""Large stores: time, CPU and peak memory of what reads the list of backups, and the listing of the bucket, for 1,000, 10,000, 100,000 and a
million backups in one chain."""

from measure import *

COUNTS = [int(text) for text in os.environ.get("COUNTS", "1000 10000 100000 1000000").split()]


def name(n):
    return f"tank/data/home@daily-{n:07}", (1 << 60) + n


def stem(n):
    (snapshot, guid), (_, before) = name(n), name(n - 1)
    return f"{snapshot}/{guid:016x}-" + (f"from-{before:016x}" if n else "full") + f"-{n:08x}"


def keys(count):
    path = f"{WORK}/many.txt"
    with open(path, "w") as f:
        for n in range(count):
            f.write(f"{stem(n)}.zfs\n{stem(n)}.yml\n")
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
                "composite_sha256": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881",
                "send_args": ["--raw"],
                "stages": [],
                "chunk_size": 16777216,
                "storage_class": "STANDARD",
                "stored": "2026-01-02T03:04:05Z",
                "segments": [{"key": f"{stem(n)}.zfs", "size": 16, "etag": '"e"', "checksum": "SFu8QN+VfIPMdQmnpzy12rzbgt4Bm8wVP7xBthfKMU0="}],
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
    for count in COUNTS:
        with open(f"{WORK}/zfs/snapshots", "w") as f:
            for n in (count - 1, count):
                f.write(f"{name(n)[0]}\t{name(n)[1]}\t{n + 1}\n")
        (last, guid), (base, before) = name(count), name(count - 1)
        write_stream(f"{WORK}/zfs/{guid}-from-{before}", guid, before, 700)
        sink = Sink(keys=keys(count))
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
        for job, args in jobs.items():
            seconds, cpu, peak = measure([BINARY, *args], **env)
            print(f"| {count:,} | {job} | {seconds:.2f} | {cpu:.2f} | {peak:.0f} | {sink.requests()} |", flush=True)
        sink.end()
        shutil.rmtree(f"{WORK}/many")


scale()
