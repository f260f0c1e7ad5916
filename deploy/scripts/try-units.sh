#!/bin/sh
# Boots a real systemd in namespaces of its own and runs the units under it, hardening and all: `try-units.sh FOLDER` with the
# folder of the binaries. Needs root. Nothing outside is touched: the new systemd's root is an overlay on this system whose
# upper side is in memory, its /dev, /run, /tmp, /var/lib, processes, network and control groups are its own, and the old root
# is unmounted before systemd starts. systemd sees our units and no others.
#
# What it proves, each with a line: a start that waits until the node serves; a message that is stored and comes back; a reload;
# capabilities, system calls and files taken away; a new start after SIGKILL with nothing lost; no new start after a drain, nor
# after a configuration that does not pass; a stop in time.
set -eu
if [ "${1:-}" = --in-namespaces ]; then
    bin=$2 units=$3 log=$4
    mount --make-rprivate /
    mount -t tmpfs tmpfs /mnt
    mkdir /mnt/upper /mnt/work /mnt/root
    mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root
    cd /mnt/root
    for own in run tmp var/lib dev; do mount -t tmpfs tmpfs $own; done
    chmod 1777 tmp
    for node in null:3 zero:5 full:7 random:8 urandom:9; do
        mknod -m 666 "dev/${node%:*}" c 1 "${node#*:}"
    done
    mkdir dev/shm dev/pts dev/mqueue dev/hugepages
    mount -t devpts devpts dev/pts
    ln -s pts/ptmx dev/ptmx
    ln -s /proc/self/fd dev/fd
    touch dev/console
    mount --bind "$log" dev/console
    mount -t proc proc proc
    mount -t sysfs -o ro sysfs sys
    mount -t cgroup2 cgroup2 sys/fs/cgroup
    ip link set lo up
    mkdir tmp/units tmp/bin
    cp "$units"/*.service "$units"/*.conf tmp/units/
    # Whatever kind of mount the binaries lie on.
    cp "$bin/pqcnet" "$bin/pqcnet-relayer" "$bin/pqcnet-sentry" usr/bin/
    cp "$0" tmp/try-units.sh
    for target in basic sysinit shutdown network-online multi-user; do
        printf '[Unit]\nDefaultDependencies=no\n' >"tmp/units/$target.target"
    done
    printf '[Unit]\nDefaultDependencies=no\nWants=trial.service\n' >tmp/units/trial.target
    cat >tmp/units/trial.service <<'UNIT'
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
ExecStart=/bin/sh /tmp/try-units.sh --trial
StandardOutput=append:/dev/console
StandardError=append:/dev/console
UNIT
    mkdir old
    pivot_root . old
    cd /
    umount -l old
    export container=docker SYSTEMD_UNIT_PATH=/tmp/units
    exec /lib/systemd/systemd --system --unit=trial.target --log-target=null --show-status=no
fi

if [ "${1:-}" = --trial ]; then
    cd /tmp
    export HOME=/root
    tell() { echo "try-units: $*"; }
    must() {
        what=$1
        shift
        if "$@" >/tmp/said 2>&1; then tell "ok: $what"; else
            tell "FAILED: $what"
            cat /tmp/said
            systemctl status --no-pager 'pqcnet-*' || true
            exit 1
        fi
    }
    is() { [ "$(systemctl show -P "$2" "pqcnet-$1.service")" = "$3" ]; }
    within() {
        tries=$1
        shift
        until "$@"; do
            tries=$((tries - 1))
            [ "$tries" -gt 0 ] || return 1
            sleep 0.2
        done
    }
    systemd-sysusers /tmp/units/pqcnet.sysusers.conf >/tmp/said 2>&1
    : >/tmp/up
    pqcnet up --state /tmp/net --relayers 1 >/tmp/up 2>&1 &
    up=$!
    within 150 grep -q 'stop: Ctrl-C' /tmp/up
    kill -INT $up
    wait $up
    for role in relayer sentry; do
        mkdir -p /etc/pqcnet/$role
        cp /tmp/net/$role-1/node.keys /tmp/net/network.toml /tmp/net/unlock.key /etc/pqcnet/$role/
        sed -e 's#"\.\./#"#' -e '/^\[store\]/,$d' /tmp/net/$role-1/node.toml >/etc/pqcnet/$role/node.toml
        cat >>/etc/pqcnet/$role/node.toml <<CONFIG
page = "/var/lib/pqcnet-$role/page.url"
[store]
path = "/var/lib/pqcnet-$role/store"
backups = "/var/lib/pqcnet-$role/backups"
[mesh]
path = "/var/lib/pqcnet-$role/mesh"
CONFIG
        chown pqcnet:pqcnet /etc/pqcnet/$role/node.keys /etc/pqcnet/$role/unlock.key
    done
    by="--state /tmp/net"
    must "the relayer starts and serves" systemctl start pqcnet-relayer.service
    must "the sentry starts and serves" systemctl start pqcnet-sentry.service
    must "a message is stored" pqcnet publish $by orders hello
    must "all is well" pqcnet status $by
    echo '[log]
level = "debug"' >>/etc/pqcnet/relayer/node.toml
    must "the relayer reloads" systemctl reload pqcnet-relayer.service
    pid=$(systemctl show -P MainPID pqcnet-relayer.service)
    must "no capabilities" grep -q '^CapEff:.0*$' "/proc/$pid/status"
    must "no new privileges" grep -q '^NoNewPrivs:.1$' "/proc/$pid/status"
    must "system calls are filtered" grep -q '^Seccomp:.2$' "/proc/$pid/status"
    must "its user is pqcnet" test "$(stat -c %U "/proc/$pid")" = pqcnet
    must "its state is its own" test "$(stat -c %a:%U /var/lib/pqcnet-relayer)" = 700:pqcnet
    must "its store is backed up" pqcnet backup $by relayer-1 --name one
    kill -KILL "$pid"
    must "killed, it is started again" within 100 is relayer NRestarts 1
    must "and serves" within 100 is relayer ActiveState active
    must "and has lost nothing" pqcnet subscribe $by orders --count 1
    must "it drains" pqcnet drain $by relayer-1
    must "drained, it stays stopped" within 50 is relayer ActiveState inactive
    must "for a good reason" is relayer Result success
    must "the sentry stops in time" systemctl stop pqcnet-sentry.service
    echo 'wrong = 1' >/etc/pqcnet/sentry/node.toml
    if systemctl start pqcnet-sentry.service 2>/tmp/said; then tell "FAILED: a wrong configuration starts" && exit 1; fi
    must "a wrong configuration does not start" within 50 is sentry ActiveState failed
    must "and is not tried again" is sentry NRestarts 0
    tell "all units run under systemd $(systemctl --version | sed -n '1s/systemd \([0-9]*\).*/\1/p')"
    exit 0
fi

bin=$(cd "${1:?the folder of the binaries}" && pwd)
own=$(cd "$(dirname "$0")" && pwd)
[ "$(id -u)" = 0 ] || { echo "try-units: needs root, for namespaces and mounts" >&2 && exit 2; }
for tool in unshare:util-linux pivot_root:util-linux ip:iproute2 systemctl:systemd; do
    command -v "${tool%:*}" >/dev/null || { echo "try-units: ${tool%:*} is missing: apt-get install ${tool#*:}" >&2 && exit 2; }
done
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# It is over when the trial has told so, or after two minutes.
unshare --mount --pid --fork --uts --ipc --cgroup --net --kill-child \
    sh "$own/try-units.sh" --in-namespaces "$bin" "$own/../systemd" "$log" >>"$log" 2>&1 &
space=$!
tries=0
until grep -q -e 'all units run' -e FAILED "$log" || ! kill -0 $space 2>/dev/null; do
    tries=$((tries + 1))
    [ $tries -lt 240 ] || break
    sleep 0.5
done
sleep 1
kill -KILL $space 2>/dev/null || true
cat "$log"
grep -q 'all units run' "$log"
