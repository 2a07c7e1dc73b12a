"""Two hosts on one bucket of a real S3 server: see `hosts`, which starts it. Each pair has a prefix of its own."""
import json, os, random, signal, struct, subprocess, sys, time, urllib.error, urllib.request

binary, work, pairs = sys.argv[1], sys.argv[2], int(sys.argv[3])
zfs, filer = os.environ['TEST_ZFS'], os.environ['FILER']
seed = int(os.environ.get('SEED', random.randrange(1 << 30)))
rnd = random.Random(seed)


def stream(guid, base):
    """The shortest that there is: BEGIN and END."""
    begin = struct.pack('<IIQQQIIQQ', 0, 0, 0x2F5BACBAC, 1, 1700000000, 2, 0, guid, base).ljust(312, b'\0')
    return begin + struct.pack('<II4QQ', 5, 0, 0, 0, 0, 0, guid).ljust(312, b'\0')


def make_pool():
    with open(zfs + '/snapshots', 'w') as file:
        for to in range(1, 4):
            file.write('tank/a@%d\t%d\t%d\n' % (to, to, to * 10))
            for base in range(to):
                name = '%d-from-%d' % (to, base) if base else '%d-full' % to
                open(os.path.join(zfs, name), 'wb').write(stream(to, base))


class Host:
    def __init__(self, n, name):
        self.folder = os.path.join(work, str(n), name)
        self.env = dict(os.environ, XDG_DATA_HOME=self.folder, ZFS2S3_PREFIX='p%d/' % n)
        self.data = os.path.join(self.folder, 'zfs2s3')

    def spawn(self, line):
        return subprocess.Popen([binary] + line.split(), env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def run(self, line):
        return ended(line, self.spawn(line))

    def ok(self, line):
        status, said = self.run(line)[1:]
        assert status == 0, (line, status, said)

    def is_pending(self):
        return os.path.exists(self.data + '/upload_progress.yml')

    def entries(self):
        try:
            lines = open(self.data + '/stored_snapshots.yml').read().splitlines()
        except FileNotFoundError:
            return []
        return [json.loads(line[2:]) for line in lines if line.startswith('- {')]


def ended(line, process):
    said = process.communicate()[1]
    return line, process.returncode, said


def names(path):
    """What lies in a folder of the server, by its own file interface."""
    request = urllib.request.Request('%s/%s?limit=10000' % (filer, path), headers={'Accept': 'application/json'})
    try:
        entries = json.load(urllib.request.urlopen(request)).get('Entries') or []
    except urllib.error.HTTPError:
        return []
    return [entry['FullPath'].rsplit('/', 1)[1] for entry in entries]


EXPLAINED = {
    0: [''],
    -9: [''],
    1: ['no full backup', 'no such incremental backup'],
    3: ['is needed to restore other backups', 'is in the bucket already', 'no stored chain of backups leads', 'is being removed', 'another host has removed'],
    4: ['no upload is pending'],
    75: ['while a removal is announced', 'is being removed'],
}


def problems(n, hosts, told, runs):
    bad = ['status %s of %s: %s' % (status, line, said) for line, status, said in runs if not any(words in said for words in EXPLAINED.get(status, []))]
    keys = ['tank/%s/%s' % (folder, name) for folder in names('p%d/tank/' % n) for name in names('p%d/tank/%s/' % (n, folder))]
    stems = {key.split('.')[0] for key in keys}
    whole = {stem for stem in stems if stem + '.yml' in keys and stem + '.zfs' in keys}
    bad += ['left alone: ' + key for key in keys if key.split('.')[0] not in whole or '.removing' in key]
    links = {stem: (int(words[0], 16), int(words[2], 16) if words[1] == 'from' else 0) for stem in whole for words in [stem.rsplit('/', 1)[1].split('-')]}
    reached = {0}
    for _ in links:
        reached |= {snapshot for snapshot, base in links.values() if base in reached}
    bad += ['no chain leads to the base of ' + stem for stem, (_, base) in links.items() if base not in reached]
    for host in hosts:
        if host.is_pending():
            bad.append('an upload is pending')
        for entry in host.entries():
            link = (int(entry['snapshot']['guid']), int(entry.get('base', {'guid': 0})['guid']))
            stem = entry['stream']['segments'][0]['key'][len('p%d/' % n):-len('.zfs')]
            if entry.get('state') == 'removing':
                bad.append('still being removed: %s' % (link,))
            elif link not in told and stem not in whole:
                bad.append('called stored, and gone: ' + stem)
    uploads = names('.uploads/')
    bad += ['open uploads: %s' % uploads] if uploads else []
    return bad


KINDS = {
    'the same upload': ([], ['upload tank/a@1', 'upload tank/a@1'], []),
    'an upload on a base that is being removed': (['upload tank/a@1'], ['remove tank/a@1', 'upload -i @1 tank/a@2'], [(1, 0)]),
    'both of two routes': (
        ['upload tank/a@1', 'upload -i @1 tank/a@2', 'upload tank/a@2', 'upload -i @2 tank/a@3'],
        ['remove tank/a@2', 'remove -i @1 tank/a@2'],
        [(2, 0), (2, 1)],
    ),
    'a removal that is interrupted and continued': (['upload tank/a@1'], ['remove tank/a@1', 'upload -i @1 tank/a@2'], [(1, 0)]),
}


def one(n, kind):
    setup, lines, told = KINDS[kind]
    hosts = [Host(n, 'a'), Host(n, 'b')]
    for line in setup:
        hosts[0].ok(line)
    if setup:
        hosts[1].ok('recover')
    runs = []
    if 'interrupted' in kind:
        process = hosts[0].spawn(lines[0])
        time.sleep(rnd.uniform(0, 0.12))
        process.send_signal(signal.SIGKILL)
        runs.append(ended(lines[0], process))
    order = rnd.choice([[0, 1], [1, 0]])
    processes = {}
    for m in order:
        processes[m] = hosts[m].spawn(lines[m])
        time.sleep(rnd.choice([0, rnd.uniform(0, 0.1), rnd.uniform(0, 0.4)]))
    together = [ended(lines[m], processes[m]) for m in (0, 1)]
    runs += together
    for turn in range(6):
        calm = True
        for host, line in zip(hosts, lines):
            if host.is_pending():
                runs.append(host.run(['resume_upload', 'abort_upload'][turn % 2]))
                calm = False
            elif any(entry.get('state') == 'removing' for entry in host.entries()):
                runs.append(host.run(line))
                calm = False
        if calm:
            break
    return [status for _, status, _ in together], problems(n, hosts, told, runs), runs


make_pool()
failed, outcomes = 0, {}
for n in range(pairs):
    kind = list(KINDS)[n % len(KINDS)]
    statuses, bad, runs = one(n, kind)
    counts = outcomes.setdefault(kind, {})
    counts[tuple(statuses)] = counts.get(tuple(statuses), 0) + 1
    if bad:
        failed += 1
        print('NOT OK: pair %d of seed %d, %s: %s\n%s' % (n, seed, kind, bad, runs))
for kind, counts in outcomes.items():
    print('%s: %s' % (kind, ', '.join('%s %s: %d' % (*statuses, count) for statuses, count in sorted(counts.items()))))
print('%d passed, %d failed' % (pairs - failed, failed))
sys.exit(failed > 0)
