#!/bin/bash
# Ray nodes with addresses of their own on one machine; README.md beside this file explains it.
set -euo pipefail

NAME=${NAME:-derain}              # of the bridge; nodes are NAME-1, NAME-2, ...
NETWORK=${NETWORK:-10.77.0}       # node N is NETWORK.N, this machine NETWORK.254
FOLDER=${FOLDER:-/tmp/$NAME}      # Ray's sessions and logs, a folder per node
CPUS=${CPUS:-1}                   # of each node
MEMORY=${MEMORY:-200000000}       # bytes of each node's object store
PING=${PING:-20000}               # ms of silence before Ray asks, and again before it gives up

usage() {
    echo "Usage: nodes.sh up [COUNT] | down | start NODE | cut NODE | heal NODE | kill NODE | exec NODE COMMAND..." >&2
    exit 2
}

inside() { # NODE COMMAND...
    local node=$1
    shift
    RAY_AUTH_MODE=token GLOO_SOCKET_IFNAME=eth0 NCCL_SOCKET_IFNAME=eth0 \
        RAY_grpc_client_keepalive_time_ms="$PING" RAY_grpc_client_keepalive_timeout_ms="$PING" \
        ip netns exec "$NAME-$node" "$@"
}

attach() { # NODE: a namespace with one cable to the bridge
    ip netns add "$NAME-$1"
    ip link add "$NAME-$1" type veth peer name eth0 netns "$NAME-$1"
    ip link set "$NAME-$1" master "$NAME" up
    ip -n "$NAME-$1" addr add "$NETWORK.$1/24" dev eth0
    ip -n "$NAME-$1" link set eth0 up
    ip -n "$NAME-$1" link set lo up
}

start() { # NODE
    local role=(--address="$NETWORK.1:6379")
    if [ "$1" = 1 ]; then
        role=(--head --port=6379 --dashboard-host="$NETWORK.1" --dashboard-port=8265)
    fi
    mkdir -p "$FOLDER"
    # The log is not a pipe: Ray's processes would keep it open.
    inside "$1" env -u RAY_ADDRESS ray start "${role[@]}" --node-ip-address="$NETWORK.$1" --num-cpus="$CPUS" \
        --object-store-memory="$MEMORY" --temp-dir="$FOLDER/$1" --disable-usage-stats \
        </dev/null >"$FOLDER/start-$1.log" 2>&1 || { cat "$FOLDER/start-$1.log" >&2; return 1; }
}

end() { # NODE: SIGKILL to all that runs there
    local pids
    while pids=$(ip netns pids "$NAME-$1") && [ -n "$pids" ]; do
        kill -KILL $pids 2>/dev/null || true
        sleep 0.1
    done
}

up() { # COUNT
    ray get-auth-token --generate >/dev/null
    ip link add "$NAME" type bridge
    ip addr add "$NETWORK.254/24" dev "$NAME"
    ip link set "$NAME" up
    for node in $(seq "$1"); do attach "$node"; done
    for node in $(seq "$1"); do start "$node"; done
    echo "export RAY_AUTH_MODE=token RAY_ADDRESS=http://$NETWORK.1:8265"
}

down() {
    local node
    for node in $(ip netns list | sed -n "s/^$NAME-\([0-9]*\)\b.*/\1/p"); do
        end "$node"
        ip netns del "$NAME-$node"
        ip link del "$NAME-$node" 2>/dev/null || true # its last connections would keep it a while
    done
    ip link del "$NAME" 2>/dev/null || true
    rm -rf "$FOLDER"
}

[ "$(id -u)" = 0 ] || { echo "nodes.sh: network namespaces need root" >&2; exit 1; }
case "${1-} $#" in
    "up 1" | "up 2") up "${2:-2}" ;;
    "down 1") down ;;
    "start 2") start "$2" ;;
    "cut 2") ip link set "$NAME-$2" down ;;
    "heal 2") ip link set "$NAME-$2" up ;;
    "kill 2") end "$2" ;;
    exec\ *) [ $# -gt 2 ] || usage; RAY_ADDRESS="$NETWORK.1:6379" inside "${@:2}" ;;
    *) usage ;;
esac
