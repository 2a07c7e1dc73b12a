# zfs2s3: make, make demo, make test, make check, make servers, make model, make lint, make bench, make install
# What a target needs and this machine lacks is installed with apt, or with pip into a venv under target/; each says so.
PREFIX = /usr/local
MANDIR = $(PREFIX)/share/man
DESTDIR =
CARGO = cargo
BINARY = target/release/zfs2s3

all: $(BINARY)

$(BINARY): tools FORCE
	$(CARGO) build --release --locked

# the main job, for real: OpenZFS in a guest (or this host's own), SeaweedFS on loopback
demo: $(BINARY)
	tests/guest/demo-anywhere $(BINARY)

# the fast suite: no server, no guest
test: tools
	$(CARGO) test --locked

# test, and end to end on real OpenZFS and real S3 servers: two at a time, for a guest keeps only one core busy. What each
# prints is shown when it ends.
check: test $(BINARY)
	+$(MAKE) --no-print-directory --jobs 2 --output-sync end-to-end

end-to-end: check-commands check-days check-datasets check-servers

check-commands:
	tests/guest/run tests/guest/check $(BINARY)

check-days:
	SHORT=1 tests/guest/run tests/guest/sixty-days $(BINARY)

check-datasets:
	tests/guest/run tests/guest/datasets $(BINARY)

check-servers:
	tests/guest/https $(BINARY)
	tests/guest/by-hand $(BINARY)
	tests/guest/hosts $(BINARY)
	tests/guest/servers $(BINARY) nginx ministack

# the same end to end on OpenZFS 2.3, whose guest is made from nothing at first
check-2.3: $(BINARY)
	ZFS_VM_SUITE=bookworm-backports tests/guest/run tests/guest/check $(BINARY)
	ZFS_VM_SUITE=bookworm-backports tests/guest/run tests/guest/datasets $(BINARY)

# the same workflow against S3 servers of several makers, which are downloaded at first: 750 MB
servers: $(BINARY)
	tests/guest/servers $(BINARY)

# the protocol between hosts, all of its states: some minutes, and gigabytes of memory
model: tools
	ZFS2S3_WHOLE_MODEL=1 $(CARGO) test --release --locked protocol:: -- --nocapture --test-threads 1

lint: tools
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --no-deps --document-private-items --locked
	@tests/need mandoc mandoc
	mandoc -T lint -W warning zfs2s3.1
	@tests/need shellcheck shellcheck
	shellcheck -S warning tests/need tests/bench/run $(filter-out %.py,$(wildcard tests/guest/*)) tests/suite/support/zfs .ci/run

# licences, sources and advisories of the dependencies; needs cargo-deny and the network
deny:
	$(CARGO) deny --locked --config .deny.toml check

# CPU and memory of an upload, beside the least that any program would need
bench: $(BINARY)
	tests/bench/run $(BINARY)

install: $(BINARY)
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(MANDIR)/man1
	install -m 755 $(BINARY) $(DESTDIR)$(PREFIX)/bin/zfs2s3
	install -m 644 zfs2s3.1 $(DESTDIR)$(MANDIR)/man1/zfs2s3.1

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/zfs2s3 $(DESTDIR)$(MANDIR)/man1/zfs2s3.1

clean:
	$(CARGO) clean

# a linker and a C compiler, which cargo does not bring
tools:
	@tests/need cc gcc libc6-dev

FORCE:
.PHONY: deny all demo test check end-to-end check-commands check-days check-datasets check-servers check-2.3 servers model lint bench install uninstall clean tools FORCE
