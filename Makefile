# zfs2s3: make, make demo, make test, make check, make servers, make model, make lint, make bench, make install, make deb,
# make static, make dist
# What a target needs and this machine lacks is installed with apt, or with pip into a venv under target/; each says so.
PREFIX = /usr/local
MANDIR = $(PREFIX)/share/man
DESTDIR =
CARGO = cargo
BINARY = target/release/zfs2s3
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
TRIPLE = $(shell rustc -vV | sed -n 's/^host: //p')
# the commit, and its time: of a source archive, as `make dist` has recorded it, or of a clone
COMMIT := $(shell cat .commit 2> /dev/null || git describe --always --dirty=-modified --exclude '*' 2> /dev/null)
SOURCE_DATE_EPOCH ?= $(shell { test ! -e .commit && git log -1 --format=%ct 2> /dev/null; } || stat -c %Y Cargo.toml)
export CARGO_TARGET_DIR = $(CURDIR)/target
# Whatever the folder, the bytes of the binary are the same. These flags, and more in $(1), each after \037, replace RUSTFLAGS and
# those of cargo's config.
release = ZFS2S3_COMMIT=$(COMMIT) CARGO_ENCODED_RUSTFLAGS="$$(printf '%s\037%s$(1)' "--remap-path-prefix=$(CURDIR)=zfs2s3" "--remap-path-prefix=$${CARGO_HOME:-$$HOME/.cargo}=cargo")" $(CARGO) build --release --locked

all: $(BINARY)

$(BINARY): tools FORCE
	$(call release)

# for hosts with another C library, or an older one: no shared library is needed
static: tools
	$(call release,\037-Ctarget-feature=+crt-static) --target $(TRIPLE)
	install -D target/$(TRIPLE)/release/zfs2s3 target/static/zfs2s3

# the Debian package
deb: $(BINARY)
	@tests/need dpkg-shlibdeps dpkg-dev
	SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH) src/package/deb $(BINARY) target

# the source archive of the last commit
dist:
	@test ! -e .commit || { echo "this is a source archive already"; exit 1; }
	@mkdir -p target
	git archive --prefix=zfs2s3-$(VERSION)/ --add-virtual-file=zfs2s3-$(VERSION)/.commit:$$(git rev-parse --short HEAD) \
		--format=tar HEAD | gzip -9 -n > target/zfs2s3-$(VERSION).tar.gz
	@echo target/zfs2s3-$(VERSION).tar.gz

# the main job, for real: on recorded streams at once, then on OpenZFS in a guest; SeaweedFS on loopback
demo: tools
	tests/demo/run

# what README.md shows is made by the program itself
readme: tools
	$(CARGO) build --locked --profile quick
	tests/demo/recorded target/quick/zfs2s3 target/session
	tests/demo/in-readme --put target/session
	ZFS2S3_PUT_PICTURE=1 $(CARGO) test --locked the_picture_in_the_readme
	src/package/picture

# the fast suite: no server, no guest. Half again as many tests at once as there are cores, for many wait for a fault.
test: tools
	RUST_TEST_THREADS=$${RUST_TEST_THREADS:-$$(($$(nproc) * 3 / 2))} $(CARGO) test --locked

# test, and end to end on real OpenZFS and real S3 servers: two at a time, for a guest keeps only one core busy. What each
# prints is shown when it ends.
check: test $(BINARY)
	+$(MAKE) --no-print-directory --jobs 2 --output-sync end-to-end

end-to-end: check-days check-commands check-fuzz check-package check-datasets check-power check-filters check-servers check-instructions

check-commands:
	tests/guest/run tests/guest/check $(BINARY)

check-days:
	SHORT=1 tests/guest/run tests/guest/sixty-days $(BINARY)

# the power fails during each command, on real OpenZFS
check-power:
	CUTS=$${CUTS:-3} tests/guest/run tests/guest/power-cuts $(BINARY)

# what takes hours to find: each step, loss and fault of each command, and twenty power cuts
check-long: tools $(BINARY)
	ZFS2S3_WHOLE_MATRIX=1 $(CARGO) test --locked --test suite -- crash:: together::
	+CUTS=20 $(MAKE) --no-print-directory check-power
	+$(MAKE) --no-print-directory check-endurance
	+SHORT= $(MAKE) --no-print-directory check-filters

# 20 GiB, or GIB, to a real server and back, with faults of the network all the time: ten minutes
check-endurance: $(BINARY)
	tests/endurance/run $(BINARY) $${GIB:-20}

# through zstd, age and gpg; with SHORT, some of it for two of them only
check-filters:
	@tests/need age age; tests/need zstd zstd; tests/need gpg gpg gpg-agent
	SHORT=$${SHORT-1} GUEST_PROGRAMS='age age-keygen zstd gpg gpg-agent' tests/guest/run tests/guest/filters $(BINARY)

check-datasets:
	tests/guest/run tests/guest/datasets $(BINARY)

check-servers:
	tests/guest/https $(BINARY)
	tests/guest/by-hand $(BINARY)
	tests/guest/hosts $(BINARY)
	tests/guest/servers $(BINARY) nginx ministack

# the Debian package in a clean Debian root, on real OpenZFS, run by a real systemd
check-package: deb
	tests/package/check target/zfs2s3_$(VERSION)_$$(dpkg --print-architecture).deb

# the static binary, on this host and where there is nothing else
check-static: static
	tests/package/static target/static/zfs2s3

# two builds of the last commit, one from its source archive: five minutes
check-reproducible: tools
	tests/package/reproducible

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

# everything that is read, from libFuzzer: a minute for each of eight kinds, or SECONDS_EACH
fuzz: tools
	tests/fuzz/run $${SECONDS_EACH:-60}

# three minutes of that
check-fuzz: tools
	tests/fuzz/run 22

lint: tools
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --no-deps --document-private-items --locked
	@tests/need mandoc mandoc
	mandoc -T lint -W warning zfs2s3.1
	src/package/picture --check
	@tests/need shellcheck shellcheck
	shellcheck -S warning tests/need tests/bench/run tests/endurance/run tests/fuzz/run $(filter-out %.py,$(wildcard tests/guest/* tests/demo/* tests/package/*)) tests/suite/support/zfs .ci/run src/package/deb src/package/script src/package/copyright src/package/picture src/package/zfs2s3.bash

# licences, sources and advisories of the dependencies; needs cargo-deny and the network
deny:
	$(CARGO) deny --locked --config .deny.toml check

# CPU, time, memory and requests, beside other tools: some ten minutes; the table is in target/bench.md
bench: $(BINARY)
	tests/bench/run $(BINARY)

# what up to a million backups, and a stream of two million parts, cost; the tables are in target/scale.md
scale: $(BINARY)
	tests/bench/run $(BINARY) scale

# how many instructions a MiB costs, which is the same on a busy machine: fails if it became more
check-instructions: $(BINARY)
	tests/bench/run $(BINARY) instructions

install:
	@test -e $(BINARY) || { echo "first run make, as the user who has Rust"; exit 1; }
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
.PHONY: all readme check-package check-static check-reproducible static deb dist deny demo test check end-to-end check-commands check-days check-datasets check-endurance check-fuzz check-power check-long check-servers check-instructions check-2.3 servers model fuzz lint bench scale install uninstall clean tools FORCE
