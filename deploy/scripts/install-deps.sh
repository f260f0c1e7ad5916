#!/bin/sh
# Installs the Debian packages the build needs and that are absent; says what it installs, and nothing when all is there.
#
#   install-deps.sh            install what is missing (as root, or through sudo)
#   install-deps.sh --tests    the same, and the tools that only tests run
#   install-deps.sh --list     print the packages, one a line; with --tests those of the tests too
#
# PQCNET_SKIP_DEPS=1 skips the check, for systems that bring these tools another way.
set -eu

# gcc, g++, libc6-dev: the C of liboqs and AWS-LC. cmake: liboqs. clang, mold: the linker. libclang-dev: bindgen.
# librocksdb-dev: the storage engine, else compiled from source for half an hour.
PACKAGES="gcc g++ libc6-dev cmake clang libclang-dev mold librocksdb-dev"
# chromium: the operator's page is tested in it.
# prometheus: promtool lints the metrics and tests the rules; a private Prometheus answers the dashboard's queries.
# systemd: its `systemd-analyze` judges the units. mount: a small disk that a test fills.
# util-linux: `prlimit` takes descriptors from a running node. bsdutils: `script` makes a terminal.
# iproute2, nftables: hosts behind NATs, in network namespaces of a test's own.
# rabbitmq-server: tests run brokers of their own out of it (deploy/scripts/private-broker.sh); the system's never starts.
TEST_PACKAGES="chromium prometheus systemd mount util-linux bsdutils rabbitmq-server iproute2 nftables"

list=""
for option in "$@"; do
    case "$option" in
        --tests) PACKAGES="$PACKAGES $TEST_PACKAGES" ;;
        --list) list=1 ;;
        *)
            printf '%s\n' "install-deps: unknown option $option" >&2
            exit 2
            ;;
    esac
done

say() { printf '%s\n' "install-deps: $*" >&2; }

if [ -n "$list" ]; then
    printf '%s\n' $PACKAGES
    exit 0
fi
[ "${PQCNET_SKIP_DEPS:-}" = 1 ] && exit 0

os_release="${PQCNET_OS_RELEASE:-/etc/os-release}"
family="$( (. "$os_release" && printf '%s %s' "${ID:-}" "${ID_LIKE:-}") 2>/dev/null || true)"
case " $family " in
    *" debian "*) ;;
    *)
        say "this is not Debian or a system derived from it; install the equivalents of these packages,"
        say "then run again with PQCNET_SKIP_DEPS=1:"
        printf '%s\n' $PACKAGES
        exit 1
        ;;
esac

missing=""
for package in $PACKAGES; do
    status="$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)"
    [ "$status" = installed ] || missing="$missing $package"
done

if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ]; then
        as_root=""
    elif command -v sudo >/dev/null 2>&1; then
        as_root="sudo"
    else
        say "missing:$missing"
        say "neither root nor sudo here; as root run: apt-get install --no-install-recommends$missing"
        exit 1
    fi
    say "installing:$missing"
    $as_root apt-get update -qq
    # The broker's package would start a server on every address. This is Debian's own way to say no; where the system
    # says something already, that stands.
    guard=/usr/sbin/policy-rc.d
    case " $missing " in
        *" rabbitmq-server "*)
            if [ ! -e "$guard" ]; then
                trap '$as_root rm -f "$guard"' EXIT
                printf '#!/bin/sh\nexit 101\n' | $as_root tee "$guard" >/dev/null
                $as_root chmod 0755 "$guard"
            fi
            ;;
    esac
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
    # Their packages start or enable servers on every address; the tests start their own, on loopback.
    for server in prometheus rabbitmq-server; do
        case " $missing " in
            *" $server "*)
                if [ -d /run/systemd/system ]; then
                    say "the package $server brings a service, which is not needed: stopping and disabling it"
                    $as_root systemctl disable --now "$server.service"
                fi
                ;;
        esac
    done
fi

if ! command -v cargo >/dev/null 2>&1; then
    say "no cargo on the PATH: install a Rust toolchain (https://rustup.rs), then run again"
    exit 1
fi
for component in fmt:rustfmt clippy:clippy; do
    if ! cargo "${component%%:*}" --version >/dev/null 2>&1; then
        if command -v rustup >/dev/null 2>&1; then
            say "installing the Rust component ${component##*:}"
            rustup component add "${component##*:}"
        else
            say "cargo ${component%%:*} is missing and there is no rustup: \`make lint\` needs it"
        fi
    fi
done
