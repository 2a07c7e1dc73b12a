"""The measurements of tests/bench/run: CPU and peak memory by wait4, which counts a process and those it waited for."""

import atexit
import datetime
import json
import os
import platform
import shutil
import ssl
import statistics
import struct
import subprocess
import sys
import threading
import time
import urllib.request

BINARY, EXAMPLES, PEERS, ZFS, WORK = (os.environ[name] for name in ("BINARY", "EXAMPLES", "PEERS", "ZFS", "WORK"))
ROUNDS = int(os.environ.get("ROUNDS", "3"))
ONLY = os.environ.get("ONLY", "")
SIZE = 1 << 30
CERTIFICATE, KEY = f"{WORK}/certificate.pem", f"{WORK}/key.pem"
LARGE, SMALL, COMPRESSIBLE = f"{WORK}/zfs/1-full", f"{WORK}/zfs/2-from-1", f"{WORK}/zfs/3-full"
# round trip in ms, and MiB/s of a connection
LATENCY, RATE = "20", "40"


def write_stream(path, guid, base, size, compressible=False):
    """BEGIN, blocks of noise, or of half noise and half text, END. No checksums: they are computed all the same, and compared only if
    there are any."""
    block = 128 << 10
    with open(path, "wb") as out:
        begin = bytearray(312)
        struct.pack_into("<QQ", begin, 8, 0x2F5BACBAC, 1)
        struct.pack_into("<QQ", begin, 40, guid, base)
        out.write(begin)
        # small, since a child begins as a copy of this process
        noise = os.urandom((1 << 20) + block)
        for n in range((size - 624) // (312 + block)):
            write = bytearray(312)
            struct.pack_into("<IIQIIQQQ", write, 0, 3, 0, 5, 0, 0, n * block, block, guid)
            at = n * block % (len(noise) - block)
            text = b"".join(b"%d: a line of text\n" % (n * line) for line in range(3000))[: block // 2]
            out.write(write + (os.urandom(block - len(text)) + text if compressible else noise[at : at + block]))
        end = bytearray(312)
        struct.pack_into("<I", end, 0, 5)
        struct.pack_into("<Q", end, 40, guid)
        out.write(end)


class Sink:
    """The server, with TLS, a line of limited speed, or a file of keys that it has."""

    def __init__(self, tls=False, line=False, keys=None, null=False):
        args = [f"{EXAMPLES}/sink"] + ([LATENCY, RATE] if line else []) + ([CERTIFICATE, KEY] if tls else [])
        args += ([keys] if keys else []) + (["null"] if null else [])
        self.process = subprocess.Popen(args, stdout=subprocess.PIPE)
        atexit.register(self.end)
        self.port = self.process.stdout.readline().decode().strip()
        self.tls = tls
        self.url = f"https://localhost:{self.port}" if tls else f"http://127.0.0.1:{self.port}"

    def requests(self):
        context = ssl._create_unverified_context() if self.tls else None
        return urllib.request.urlopen(f"{self.url}/-/requests", context=context).read().decode() or "-"

    def end(self):
        self.process.kill()
        self.process.wait()


def measure(command, out=False, stdin=None, **env):
    """Seconds, CPU seconds, and peak memory in MiB of the largest process. What reads `stdin` counts, as the zfs of zfs2s3 does."""
    if stdin:
        command = ["sh", "-c", 'cat "$0" | "$@"', stdin, *command]
    reader = subprocess.Popen("cat > /dev/null", shell=True, stdin=subprocess.PIPE) if out else None
    begun = time.monotonic()
    child = subprocess.Popen(
        command,
        env=os.environ | env,
        stdin=subprocess.DEVNULL,
        stdout=reader.stdin if reader else subprocess.DEVNULL,
        stderr=open(f"{WORK}/stderr", "wb"),
    )
    if reader:
        reader.stdin.close()
    # none takes minutes, unless it hangs
    guard = threading.Timer(300, child.kill)
    guard.start()
    _, status, usage = os.wait4(child.pid, 0)
    guard.cancel()
    seconds = time.monotonic() - begun
    cpu = usage.ru_utime + usage.ru_stime
    if reader:
        reader.wait()
    if status:
        sys.exit(f"{command}: {open(f'{WORK}/stderr').read()}")
    return seconds, cpu, usage.ru_maxrss / 1024


class Zfs2s3:
    def __init__(self, name="zfs2s3", binary=BINARY, snapshot="tank@a", **settings):
        self.name, self.binary, self.snapshot, self.settings = name, binary, snapshot, settings
        self.kept = "kept" if not settings else f"kept-{name.split()[-1]}"

    def env(self, sink, data):
        return {
            "TEST_ZFS": f"{WORK}/zfs",
            "ZFS2S3_ZFS": ZFS,
            "XDG_DATA_HOME": f"{WORK}/{data}-{sink.port}",
            "ZFS2S3_BUCKET": "b",
            "ZFS2S3_PREFIX": f"{data}/",
            "AWS_ENDPOINT_URL": sink.url,
            "AWS_CA_BUNDLE": CERTIFICATE if sink.tls else "",
            **self.settings,
        }

    def upload(self, sink):
        env = self.env(sink, "own")
        result = measure([self.binary, "upload", self.snapshot], **env)
        requests = sink.requests()
        measure([self.binary, "remove", self.snapshot], **env)
        return *result, requests

    def keep(self, sink, data):
        """A full backup that stays."""
        env = self.env(sink, data)
        if not os.path.exists(env["XDG_DATA_HOME"]):
            measure([self.binary, "upload", self.snapshot], **env)

    def download(self, sink):
        return *measure([self.binary, "download", self.snapshot], out=True, **self.env(sink, self.kept)), sink.requests()

    def prepare_download(self, sink):
        self.keep(sink, self.kept)

    def prepare_small(self, sink):
        self.keep(sink, "small")

    def small(self, sink):
        env = self.env(sink, "small")
        result = measure([self.binary, "upload", "-i", "@a", "tank@b"], **env)
        requests = sink.requests()
        measure([self.binary, "remove", "-i", "@a", "tank@b"], **env)
        return *result, requests


class Peer:
    """`put` and `get`: its command lines, with the URL of the server and the key."""

    def __init__(self, name, put, get, **env):
        self.name, self.put, self.get, self.settings = name, put, get, env

    def upload(self, sink, path=LARGE):
        return *measure(self.put(sink, "peer"), stdin=path, **self.settings), sink.requests()

    def small(self, sink):
        return self.upload(sink, SMALL)

    def download(self, sink):
        return *measure(self.get(sink, kept_key(sink)), out=True, **self.settings), sink.requests()


def kept_key(sink):
    """What zfs2s3 has uploaded, so that all read the same object."""
    folder = f"{WORK}/kept-{sink.port}/zfs2s3"
    with open(f"{folder}/stored_snapshots.yml") as f:
        entry = next(line for line in f if line.startswith("- "))
    return json.loads(entry[2:])["stream"]["segments"][0]["key"]


class Pipe:
    """The stream through a filter as a whole, to the AWS CLI and back."""

    def __init__(self, name, there, back):
        self.name, self.there, self.back = name, there, back

    def command(self, line, sink):
        client = f"{PEERS}/aws s3 cp --quiet --endpoint-url {sink.url}"
        return ["bash", "-o", "pipefail", "-c", line.replace("AWS", client).replace("OBJECT", "s3://b/piped")]

    def upload(self, sink):
        line = f"{self.there} | AWS --expected-size {SIZE} - OBJECT"
        return *measure(self.command(line, sink), stdin=COMPRESSIBLE), sink.requests()

    def prepare_download(self, sink):
        self.upload(sink)

    def download(self, sink):
        return *measure(self.command(f"AWS OBJECT - | {self.back}", sink), out=True), sink.requests()


def filters():
    """zfs2s3 with and without a filter, and the same programs in a pipe."""
    key, recipients = f"{WORK}/age", f"{WORK}/recipients"
    subprocess.run(["age-keygen", "-o", key], check=True, stderr=subprocess.DEVNULL)
    with open(recipients, "wb") as out:
        subprocess.run(["age-keygen", "-y", key], check=True, stdout=out)
    zstd, age = ("zstd -3 -q", "zstd -dcq"), (f"age -R {recipients}", f"age -d -i {key}")
    both = (f"{zstd[0]} | {age[0]}", f"{age[1]} | {zstd[1]}")
    own = [Zfs2s3("zfs2s3", snapshot="tank@c")]
    for name, (there, back) in {"zstd": zstd, "age": age, "zstd|age": both}.items():
        own.append(Zfs2s3(f"zfs2s3, {name}", snapshot="tank@c", ZFS2S3_FILTER=there, ZFS2S3_UNFILTER=back))
    return [*own, Pipe("zstd -T0, age, aws s3 cp", f"zstd -3 -q -T0 | {age[0]}", both[1])]


def floor():
    def with_tls(sink):
        return [sink.port] + ([CERTIFICATE] if sink.tls else [])

    chunk = str(16 << 20)
    return Peer(
        "floor",
        lambda sink, key: [f"{EXAMPLES}/floor", "put", chunk, *with_tls(sink)],
        lambda sink, key: [f"{EXAMPLES}/floor", "get", key, chunk, *with_tls(sink)],
    )


def s5cmd(name, *options):
    def command(verb):
        return lambda sink, key: [f"{PEERS}/s5cmd", "--no-verify-ssl", "--endpoint-url", sink.url, verb, *options, f"s3://b/{key}"]

    return Peer(name, command("pipe"), command("cat"))


def rclone(name, *options):
    remote = ":s3,provider=Other,env_auth=true,no_check_bucket=true,disable_checksum=true,endpoint='{}':b/{}"

    def command(verb):
        return lambda sink, key: [f"{PEERS}/rclone", verb, "--no-check-certificate", *options, remote.format(sink.url, key)]

    return Peer(name, command("rcat"), command("cat"), RCLONE_CONFIG="/dev/null")


def aws(name, **config):
    path = f"{WORK}/{name.replace(' ', '-')}.config"
    with open(path, "w") as f:
        f.write("[default]\n" + ("s3 =\n" if config else "") + "".join(f"  {key} = {value}\n" for key, value in config.items()))
    common = [f"{PEERS}/aws", "--no-verify-ssl", "s3", "cp", "--quiet"]
    return Peer(
        name,
        lambda sink, key: [*common, "--endpoint-url", sink.url, "--expected-size", str(SIZE), "-", f"s3://b/{key}"],
        lambda sink, key: [*common, "--endpoint-url", sink.url, f"s3://b/{key}", "-"],
        AWS_CONFIG_FILE=path,
        PYTHONWARNINGS="ignore",
    )


def table(title, job, clients, tls=False, line=False):
    if ONLY and not title.startswith(ONLY):
        return
    sink = Sink(tls, line)
    for client in clients:
        getattr(client, f"prepare_{job}", lambda _: None)(sink)
    results = {client.name: [] for client in clients}
    for _ in range(ROUNDS):
        for client in clients:
            sink.requests()
            results[client.name].append(getattr(client, job)(sink))
    sink.end()
    medians = {name: [statistics.median(run[n] for run in runs) for n in range(3)] for name, runs in results.items()}
    base = medians[clients[0].name]
    # the stream is one GiB
    per = "CPU s/GiB" if job != "small" else "CPU s"
    print(f"\n## {title}\n")
    print(f"| | seconds | x {clients[0].name} | {per} | x {clients[0].name} | peak MiB | requests |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | --- |")
    for name, (seconds, cpu, peak) in medians.items():
        print(
            f"| {name} | {seconds:.2f} | {seconds / base[0]:.2f} | {cpu:.2f} | {cpu / base[1]:.2f} | {peak:.0f} | {results[name][-1][3]} |",
            flush=True,
        )


def main():
    os.environ.update(AWS_ACCESS_KEY_ID="bench", AWS_SECRET_ACCESS_KEY="bench", AWS_REGION="us-east-1", AWS_EC2_METADATA_DISABLED="true")
    os.makedirs(f"{WORK}/zfs")
    write_stream(LARGE, 1, 0, SIZE)
    write_stream(SMALL, 2, 1, 512 << 10)
    with open(f"{WORK}/zfs/snapshots", "w") as f:
        f.write("tank@a\t1\t1\ntank@b\t2\t2\ntank@c\t3\t3\n")
    own, tuned = [Zfs2s3()], [s5cmd("s5cmd, 23 of 16 MB", "-c", "23", "-p", "16")]
    if other := os.environ.get("OTHER_BINARY"):
        own.append(Zfs2s3("other zfs2s3", other))
    peers = [
        s5cmd("s5cmd"),
        rclone("rclone"),
        rclone("rclone, 16 of 16M", "--s3-upload-concurrency", "16", "--s3-chunk-size", "16M"),
        aws("aws s3 cp"),
        aws("aws s3 cp, 20 of 16MB", max_concurrent_requests=20, multipart_chunksize="16MB"),
    ]
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    print(f"# zfs2s3 beside its peers, {datetime.date.today()}\n")
    print(f"`make bench`: {os.cpu_count()} x {cpu}, {platform.system()} {platform.release()}; server and client on one host.")
    print(f"A stream of {SIZE >> 20} MiB; medians of {ROUNDS} rounds in turns. Ratios are to the first of each table.")
    everyone = [floor(), *own, *tuned, *peers]
    table("Upload, http", "upload", everyone)
    table("Download, http", "download", everyone)
    table("Upload, https", "upload", everyone, tls=True)
    table("Download, https", "download", everyone, tls=True)
    limit = f"a line of {LATENCY} ms and {RATE} MiB/s a connection"
    table(f"Upload over {limit}", "upload", [*own, *tuned, *peers], line=True)
    # `rclone cat` has no such options
    table(f"Download over {limit}", "download", [*own, *tuned, *(peer for peer in peers if "16 of 16M" not in peer.name)], line=True)
    table("An increment of 0.5 MiB, http", "small", [*own, *tuned, *peers])
    table(f"An increment of 0.5 MiB over {limit}", "small", [*own, *tuned, *peers], line=True)
    if not ONLY or "Filtered".startswith(ONLY):
        write_stream(COMPRESSIBLE, 3, 0, SIZE, compressible=True)
        filtered = filters()
        table("Filtered upload, http", "upload", filtered)
        table("Filtered download, http", "download", filtered)
    shutil.rmtree(f"{WORK}/zfs")


if __name__ == "__main__":
    main()
