"""The instructions that a MiB costs, beside those of the floor: a count, which is the same on a busy machine. Callgrind's CPU has no SHA
instructions, so most of them are the hash; what zfs2s3 adds is the difference."""

import re

from measure import *

# What was measured when this was last changed, and 3 % more: fewer is progress, more needs a reason.
LIMITS = {"upload": 1.13, "download": 1.13}
SIZES = 8 << 20, 24 << 20
CHUNK = 5 << 20


def count(command, **options):
    counted = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", *command]
    measure(counted, **options)
    said = open(f"{WORK}/stderr").read()
    return int(re.search(r"Collected : (\d+)", said)[1])


def each_mib(counts):
    return (counts[1] - counts[0]) / ((SIZES[1] - SIZES[0]) >> 20) / 1e6


def instructions():
    os.environ.update(AWS_ACCESS_KEY_ID="bench", AWS_SECRET_ACCESS_KEY="bench", AWS_REGION="us-east-1", ZFS2S3_JOBS="2")
    os.environ["ZFS2S3_CHUNK_SIZE"] = str(CHUNK)
    os.makedirs(f"{WORK}/zfs")
    with open(f"{WORK}/zfs/snapshots", "w") as f:
        f.write("tank@a\t1\t1\n")
    counts = {name: {"upload": [], "download": []} for name in ("floor", "zfs2s3")}
    for size in SIZES:
        write_stream(LARGE, 1, 0, size)
        sink, own = Sink(), Zfs2s3()
        env = own.env(sink, "kept")
        counts["zfs2s3"]["upload"].append(count([BINARY, "upload", "tank@a"], **env))
        counts["zfs2s3"]["download"].append(count([BINARY, "download", "tank@a"], out=True, **env))
        floor = [f"{EXAMPLES}/floor"]
        counts["floor"]["upload"].append(count([*floor, "put", str(CHUNK), sink.port], stdin=LARGE))
        counts["floor"]["download"].append(count([*floor, "get", kept_key(sink), str(CHUNK), sink.port], out=True))
        sink.end()
    failed = 0
    for job, limit in LIMITS.items():
        own, least = each_mib(counts["zfs2s3"][job]), each_mib(counts["floor"][job])
        is_more = own / least > limit
        failed += is_more
        print(f"{'FAIL' if is_more else 'ok  '} {job}: {own:.1f} million instructions a MiB, {own / least:.3f} x the floor; at most {limit} x")
    print(f"instructions: {len(LIMITS) - failed} passed, {failed} failed")
    sys.exit(failed > 0)


instructions()
