# gatewayd: builds, tests, installs. Every .c in the folders is compiled by itself into one archive;
# the programs link what they need of it.
#
#   make            programs under build/
#   make check      installs missing Debian packages, builds, runs all tests
#   make demo       the main job end to end: "Day 366"
#   make install    DESTDIR= PREFIX=
#   make SANITIZE=1 check, make coverage, make torture, make fuzz SECONDS=n, make bench, make lint, make clean

PREFIX ?= /usr
DESTDIR ?=
SYSTEMD_DIR ?= $(PREFIX)/lib/systemd
SECONDS ?= 10
VERSION := 0.3.0

# What Debian 12 must have: to build, and to run the tests and the demo.
BUILD_PACKAGES = gcc libc6-dev pkg-config libcoap3-dev libssl-dev libsystemd-dev libsqlite3-dev \
	libcbor-dev libcurl4-openssl-dev libconfig-dev libseccomp-dev
TEST_PACKAGES = clang libclang-rt-14-dev libcmocka-dev libmbedtls-dev libcoap3-bin gnutls-bin openssl curl \
	python3 python3-cbor2 python3-cryptography systemd systemd-sysv dbus iproute2 nftables procps util-linux \
	faketime strace ca-certificates softhsm2 opensc libengine-pkcs11-openssl swtpm swtpm-tools tpm2-tools \
	tpm2-openssl libwolfssl-dev age fuse3 libfuse3-dev
LINT_PACKAGES = git clang-format clang-tidy cppcheck
COVERAGE_PACKAGES = gcovr

ifdef SANITIZE
BUILD ?= build/sanitize
MODE_FLAGS = -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -O1 -DGATEWAYD_WIDE_SANDBOX
else ifdef COVERAGE
BUILD ?= build/coverage
MODE_FLAGS = --coverage -fprofile-update=atomic -O0 -DGATEWAYD_WIDE_SANDBOX
else
BUILD ?= build
MODE_FLAGS = -O2 -D_FORTIFY_SOURCE=2
endif
ifdef TESTCLOCK
MODE_FLAGS += -DGATEWAYD_TESTCLOCK
endif

PKGS = libcoap-3-notls libssl libcrypto libsystemd sqlite3 libcbor libcurl libconfig libseccomp
# Asked for late, when a build begins, because `make packages` may have to install pkg-config first.
PKG_CFLAGS = $(eval PKG_CFLAGS := $(shell pkg-config --cflags $(filter-out libcbor libconfig,$(PKGS)) 2>/dev/null))$(PKG_CFLAGS)
PKG_LIBS = $(eval PKG_LIBS := $(shell pkg-config --libs $(filter-out libcbor libconfig,$(PKGS)) 2>/dev/null) -lcbor -lconfig)$(PKG_LIBS)

WARNINGS = -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Werror
CPPFLAGS_ALL = -I. -D_GNU_SOURCE -DGATEWAYD_VERSION='"$(VERSION)"' $(CPPFLAGS)
CFLAGS_ALL = -std=gnu11 -g $(WARNINGS) -fstack-protector-strong -fPIE $(MODE_FLAGS) $(PKG_CFLAGS) $(CFLAGS)
LDFLAGS_ALL = -pie -rdynamic -Wl,-z,relro,-z,now -Wl,--as-needed $(MODE_FLAGS) $(LDFLAGS)
LIBS = $(PKG_LIBS) -lpthread -lm

MAINS = gatewayd/main.c gatewayd/operator/gatewayctl.c
SOURCES := $(filter-out $(MAINS),$(sort $(shell find gatewayd coap store config systemd -name '*.c')))
OBJECTS := $(SOURCES:%.c=$(BUILD)/obj/%.o)
ARCHIVE := $(BUILD)/libgatewayd.a

UNIT_TESTS := $(patsubst tests/unit/%.c,%,$(wildcard tests/unit/test_*.c))
UNIT_SUPPORT := $(patsubst %.c,$(BUILD)/obj/%.o,$(filter-out tests/unit/test_%.c,$(wildcard tests/unit/*.c)))
MBEDTLS_SOURCES := $(wildcard tests/system/mbedtls_*.c)
DISKFS_SOURCES := $(wildcard tests/system/diskfs*.c)
CRASH_SOURCES := $(wildcard tests/system/crash_*.c) tests/unit/fleet_model.c
SYSTEM_HELPERS := $(patsubst tests/system/%.c,%,$(filter-out $(MBEDTLS_SOURCES) $(CRASH_SOURCES) $(DISKFS_SOURCES),$(wildcard tests/system/*.c))) \
	crash_harness diskfs
FUZZERS := $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
BENCHES := $(patsubst tests/bench/%.c,%,$(wildcard tests/bench/bench_*.c))
SIM_SOURCES := $(wildcard tests/sim/*.c)
# The device of the simulator is not part of the archive: it is a device's code.
DEVICE_SOURCES := $(wildcard tests/sim/device*.c)
DEVICE_OBJECTS := $(DEVICE_SOURCES:%.c=$(BUILD)/obj/%.o)

PROGRAMS = $(BUILD)/gatewayd $(BUILD)/gatewayctl $(BUILD)/gateway-sim

# What is done, a line each; V=1 shows the commands.
ifeq ($(V),)
Q = @
say = @echo "  $(1)	$(2)"
endif

all: $(PROGRAMS)

$(BUILD)/obj/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) -MMD -MP -c $< -o $@

$(ARCHIVE): $(OBJECTS)
	@rm -f $@
	$(call say,AR,$@)
	$(Q)ar qcs $@ $^

# The archive's engine_io.o must be part of the daemon whatever order the linker looks in: it defines
# the system calls that libcoap is to meet.
$(BUILD)/gatewayd: $(BUILD)/obj/gatewayd/main.o $(ARCHIVE)
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS_ALL) $< $(filter %/engine_io.o,$(OBJECTS)) $(ARCHIVE) $(LIBS) -o $@

$(BUILD)/gatewayctl: $(BUILD)/obj/gatewayd/operator/gatewayctl.o $(ARCHIVE)
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS_ALL) $< $(ARCHIVE) $(LIBS) -o $@

$(BUILD)/gateway-sim: $(SIM_SOURCES:%.c=$(BUILD)/obj/%.o)
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS_ALL) $^ -lssl -lcrypto -lm -o $@

$(BUILD)/system/mbedtls_device: $(MBEDTLS_SOURCES:%.c=$(BUILD)/obj/%.o) $(DEVICE_OBJECTS)
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS_ALL) $^ -lmbedtls -lmbedx509 -lmbedcrypto -o $@

$(BUILD)/system/crash_harness: $(CRASH_SOURCES:%.c=$(BUILD)/obj/%.o) $(ARCHIVE)
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS_ALL) $(CRASH_SOURCES:%.c=$(BUILD)/obj/%.o) $(filter %/engine_io.o,$(OBJECTS)) $(ARCHIVE) $(LIBS) -o $@

# A disk whose power a test can cut: nothing of gatewayd.
$(BUILD)/system/diskfs: $(DISKFS_SOURCES:%.c=$(BUILD)/obj/%.o)
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS_ALL) $^ -lfuse3 -lpthread -o $@

$(BUILD)/unit/%: $(BUILD)/obj/tests/unit/%.o $(UNIT_SUPPORT) $(ARCHIVE)
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS_ALL) $< $(UNIT_SUPPORT) $(EXTRA_OBJECTS) $(ARCHIVE) $(LIBS) -lcmocka -o $@

DEVICE_TESTS = $(patsubst tests/unit/%.c,$(BUILD)/unit/%,$(wildcard tests/unit/test_device*.c))
$(DEVICE_TESTS): EXTRA_OBJECTS = $(DEVICE_OBJECTS)
$(DEVICE_TESTS): $(DEVICE_OBJECTS)

EXPLORER_OBJECTS := $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard tests/explore/*.c))
$(BUILD)/unit/test_device_explorer: EXTRA_OBJECTS += $(EXPLORER_OBJECTS)
$(BUILD)/unit/test_device_explorer: $(EXPLORER_OBJECTS)

$(BUILD)/system/%: $(BUILD)/obj/tests/system/%.o $(ARCHIVE)
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS_ALL) $< $(filter %/engine_io.o,$(OBJECTS)) $(ARCHIVE) $(LIBS) -o $@

# The load of tests/bench/bench_enrolment.py, made of the simulator's parts.
$(BUILD)/bench/enrol_load: $(BUILD)/obj/tests/bench/enrol_load.o $(filter-out %/main.o,$(SIM_SOURCES:%.c=$(BUILD)/obj/%.o))
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS_ALL) $^ -lssl -lcrypto -lm -o $@

$(BUILD)/bench/%: $(BUILD)/obj/tests/bench/%.o $(ARCHIVE)
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS_ALL) $< $(ARCHIVE) $(LIBS) -o $@

# Fuzz targets: everything compiled by clang with coverage for libFuzzer, and both sanitizers.
FUZZ_FLAGS = -std=gnu11 -g -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer \
	-DGATEWAYD_WIDE_SANDBOX -DGATEWAYD_FUZZ
FUZZ_OBJECTS := $(patsubst %.c,$(BUILD)/fuzz/obj/%.o,$(SOURCES) $(DEVICE_SOURCES))
$(BUILD)/fuzz/obj/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(call say,CLANG,$<)
	$(Q)clang $(CPPFLAGS_ALL) $(FUZZ_FLAGS) $(PKG_CFLAGS) -fsanitize=fuzzer-no-link -MMD -MP -c $< -o $@
$(BUILD)/fuzz/libgatewayd.a: $(FUZZ_OBJECTS)
	@rm -f $@
	$(call say,AR,$@)
	$(Q)ar qcs $@ $^
$(BUILD)/fuzz/%: tests/fuzz/fuzz_%.c $(BUILD)/fuzz/libgatewayd.a
	@mkdir -p $(@D)
	$(call say,FUZZ,$@)
	$(Q)clang $(CPPFLAGS_ALL) $(FUZZ_FLAGS) $(PKG_CFLAGS) -fsanitize=fuzzer $< $(BUILD)/fuzz/libgatewayd.a $(LIBS) -o $@

tests-built: $(PROGRAMS) $(UNIT_TESTS:%=$(BUILD)/unit/%) $(SYSTEM_HELPERS:%=$(BUILD)/system/%) \
	$(BUILD)/system/mbedtls_device
fuzzers: $(FUZZERS:%=$(BUILD)/fuzz/%)

# A build of its own whose clock a test can move; it is never installed.
testclock:
	$(MAKE) TESTCLOCK=1 BUILD=$(BUILD)/testclock $(BUILD)/testclock/gatewayd $(BUILD)/testclock/gatewayctl

define install_missing
	@missing=; for p in $(1); do \
		dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then echo "installing Debian packages:$$missing"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; fi
endef

packages:
	$(call install_missing,$(BUILD_PACKAGES))
packages-test:
	$(call install_missing,$(BUILD_PACKAGES) $(TEST_PACKAGES))
packages-lint:
	$(call install_missing,$(BUILD_PACKAGES) $(TEST_PACKAGES) $(LINT_PACKAGES))
packages-coverage:
	$(call install_missing,$(BUILD_PACKAGES) $(TEST_PACKAGES) $(COVERAGE_PACKAGES))

# The packages come first, in a make of their own: what follows asks pkg-config.
check: packages-test
	$(MAKE) tests-built testclock
ifndef COVERAGE
	$(MAKE) fuzzers
endif
	/usr/bin/python3 tests/run.py --build $(BUILD) --fuzz-seconds $(SECONDS) $(RUN_FLAGS)

torture: packages-test
	$(MAKE) tests-built testclock fuzzers
	TORTURE=1 /usr/bin/python3 tests/run.py --build $(BUILD) --fuzz-seconds 600 $(RUN_FLAGS)

fuzz: packages-test
	$(MAKE) fuzzers
	/usr/bin/python3 tests/run.py --build $(BUILD) --only fuzz --fuzz-seconds $(SECONDS) $(RUN_FLAGS)

bench: packages-test
	$(MAKE) all $(BENCHES:%=$(BUILD)/bench/%) $(BUILD)/bench/enrol_load
	@for b in $(BENCHES); do $(BUILD)/bench/$$b || exit 1; done
	@for b in $(wildcard tests/bench/bench_*.py); do /usr/bin/python3 $$b --build $(BUILD) || exit 1; done

demo: packages-test
	$(MAKE) all testclock
	/usr/bin/python3 tests/demo/day366.py --build $(BUILD)

coverage: packages-coverage
	$(MAKE) COVERAGE=1 check
	gcovr --root . --object-directory build/coverage --filter gatewayd/ --filter coap/ --filter store/ \
		--exclude-throw-branches --print-summary --html-details build/coverage/report.html --fail-under-line 85

C_FILES = $(shell git ls-files '*.c' '*.h' 2>/dev/null)
lint: packages-lint
	clang-format --dry-run --Werror $(C_FILES)
	cppcheck --quiet --error-exitcode=1 --enable=warning,performance,portability --inline-suppr \
		--suppress=missingIncludeSystem --include=/usr/include/x86_64-linux-gnu/sys/queue.h \
		-I. -D_GNU_SOURCE -D_Noreturn='__attribute__((noreturn))' $(SOURCES) $(MAINS)
	clang-tidy --quiet $(SOURCES) $(MAINS) -- $(CPPFLAGS_ALL) -std=gnu11 $(PKG_CFLAGS)

install: all
	install -D -m 755 $(BUILD)/gatewayd $(DESTDIR)$(PREFIX)/sbin/gatewayd
	install -D -m 755 $(BUILD)/gatewayctl $(DESTDIR)$(PREFIX)/bin/gatewayctl
	install -D -m 755 $(BUILD)/gateway-sim $(DESTDIR)$(PREFIX)/bin/gateway-sim
	install -d $(DESTDIR)$(SYSTEMD_DIR)/system
	sed 's,/usr/sbin/,$(PREFIX)/sbin/,' systemd/gatewayd.service >$(DESTDIR)$(SYSTEMD_DIR)/system/gatewayd.service
	chmod 644 $(DESTDIR)$(SYSTEMD_DIR)/system/gatewayd.service
	install -D -m 644 systemd/gatewayd.catalog $(DESTDIR)$(SYSTEMD_DIR)/catalog/gatewayd.catalog
	install -D -m 644 systemd/gatewayd.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/gatewayd.conf
	install -D -m 644 systemd/org.gatewayd.conf $(DESTDIR)$(PREFIX)/share/dbus-1/system.d/org.gatewayd.conf
	install -D -m 644 systemd/gatewayd.tmpfiles $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/gatewayd.conf
	install -D -m 644 gatewayd/operator/gatewayctl.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/gatewayctl
	install -d $(DESTDIR)$(PREFIX)/share/doc/gatewayd/examples/device $(DESTDIR)/etc/gatewayd/conf.d
	install -m 644 README.md docs/*.md $(DESTDIR)$(PREFIX)/share/doc/gatewayd
	install -m 644 $(DEVICE_SOURCES) $(wildcard tests/sim/device*.h) $(DESTDIR)$(PREFIX)/share/doc/gatewayd/examples/device
	test -e $(DESTDIR)/etc/gatewayd/gatewayd.conf || \
		install -m 644 config/gatewayd.conf $(DESTDIR)/etc/gatewayd/gatewayd.conf
	for page in docs/man/*.[1-9]; do \
		install -D -m 644 $$page $(DESTDIR)$(PREFIX)/share/man/man$${page##*.}/$${page##*/}; done

clean:
	rm -rf build

.PHONY: all check torture fuzz bench demo coverage lint install clean testclock tests-built fuzzers \
	packages packages-test packages-lint packages-coverage
.SECONDARY:

-include $(shell find $(BUILD)/obj $(BUILD)/fuzz/obj -name '*.d' 2>/dev/null)
