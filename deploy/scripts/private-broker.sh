#!/bin/sh
# Runs a RabbitMQ of one's own in the foreground, out of Debian's package `rabbitmq-server`: for tests and trials.
#
#   private-broker.sh FOLDER AMQP_PORT DIST_PORT EPMD_PORT [SETTINGS]
#
# AMQP, Erlang's distribution and its port mapper listen on 127.0.0.1 only. Everything it writes lies in FOLDER, which
# belongs to the user `rabbitmq` when this is run as root (the broker then runs as that user). The node's name is made of
# the AMQP port, so several run side by side and none meets the system's broker. The same FOLDER and ports bring the same
# broker back, with its streams, after a kill. It ends with whoever started it, and its port mapper ends with it.
# User `guest`, password `guest`, as RabbitMQ has it for loopback. SETTINGS is a file of further ones, such as a cluster's: its
# nodes share EPMD_PORT, on which a port mapper may run already, and what lies in FOLDER/home/.erlang.cookie.
#
# Once it serves, revive-streams.sh brings back what a release before 3.13.7 does not serve again by itself, as
# deploy/rabbitmq/revive-streams.conf has it done where RabbitMQ is a service; FOLDER/log/revived.log says what it found. Not with REVIVE=no.
set -eu

if [ $# -lt 4 ] || [ $# -gt 5 ]; then
    sed -n 's/^# \{0,1\}//; 2,4p' "$0" >&2
    exit 2
fi
folder="$1" amqp="$2" dist="$3" epmd="$4" settings="${5:-/dev/null}"

server=/usr/lib/rabbitmq/bin/rabbitmq-server
revive="$(cd "$(dirname "$0")" && pwd)/revive-streams.sh"
if [ ! -x "$server" ]; then
    printf '%s\n' "private-broker: rabbitmq-server is missing: apt-get install --no-install-recommends rabbitmq-server" >&2
    exit 3
fi

mkdir -p "$folder/home" "$folder/data" "$folder/log"
cookie="$folder/home/.erlang.cookie"
# Made here, so that the broker and its tools do not each make one.
if [ ! -e "$cookie" ]; then
    (umask 077 && od -An -N16 -tx1 /dev/urandom | tr -d ' \n' > "$cookie" && chmod 0400 "$cookie")
fi
: > "$folder/plugins"
cat "$settings" - > "$folder/rabbitmq.conf" <<END
listeners.tcp.1 = 127.0.0.1:$amqp
# A test's disk may be small, and a broker that blocks its publishers for lack of room would stop the test.
disk_free_limit.absolute = 64MB
vm_memory_high_watermark.relative = 0.2
END
chmod 0755 "$folder"

as=""
if [ "$(id -u)" = 0 ]; then
    chown -R rabbitmq:rabbitmq "$folder"
    as="--reuid rabbitmq --regid rabbitmq --clear-groups"
fi

cd "$folder"
export HOME="$folder/home" ERL_EPMD_ADDRESS=127.0.0.1 ERL_EPMD_PORT="$epmd"
export RABBITMQ_CONF_ENV_FILE=/dev/null RABBITMQ_NODENAME="pqcnet-$amqp@localhost" RABBITMQ_DIST_PORT="$dist"
export RABBITMQ_MNESIA_BASE="$folder/data" RABBITMQ_LOG_BASE="$folder/log" RABBITMQ_LOGS="$folder/log/broker.log"
export RABBITMQ_CONFIG_FILE="$folder/rabbitmq" RABBITMQ_ENABLED_PLUGINS_FILE="$folder/plugins"
export RABBITMQ_PID_FILE="$folder/pid"
export RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}"
# So that this process becomes the broker itself, and a signal to it is one to the broker.
export RUNNING_UNDER_SYSTEMD=true
unset NOTIFY_SOCKET

# shellcheck disable=SC2086 # `as` is a list of words
setpriv $as --pdeathsig KILL epmd -address 127.0.0.1 -port "$epmd" &
if [ "${REVIVE:-yes}" != no ]; then
    # Read by this user: the other one may not reach the script.
    # shellcheck disable=SC2086
    RABBITMQCTL=/usr/lib/rabbitmq/bin/rabbitmqctl setpriv $as --pdeathsig KILL sh -s -- --await $$ \
        -n "$RABBITMQ_NODENAME" < "$revive" > "$folder/log/revived.log" 2>&1 &
fi
# shellcheck disable=SC2086
exec setpriv $as --pdeathsig KILL "$server"
