#!/usr/bin/env bash
# Runs a command where a whole Kubernetes can live and die without a trace on the machine.
#
#   tests/k8s/cluster/enter.sh COMMAND [ARGUMENT...]
#
# The command gets a network, a process tree and mounts of its own. The network is loopback and one
# pair of devices that lead to each other: nothing gets out. When the command ends, in whatever way,
# the kernel ends every process it left and drops every mount, device and firewall rule.
set -euo pipefail

cgroup=llama-cluster-$$

remove_cgroups() { # those of this run, and of earlier runs that were killed
    local folder
    for folder in /sys/fs/cgroup/*/llama-cluster-*; do
        if [[ -d $folder && ($folder == */"$cgroup" || ! -d /proc/${folder##*-}) ]]; then
            find "$folder" -depth -type d -exec rmdir {} \; 2>/dev/null || true
        fi
    done
}

make_cgroups() { # one below each controller's root, for kubelet to put its pods in
    local controller
    for controller in /sys/fs/cgroup/*/; do
        mkdir -p "$controller$cgroup" 2>/dev/null || continue
        if [[ -e $controller/cpuset.cpus ]]; then # empty in a new one
            cat "$controller/cpuset.cpus" >"$controller$cgroup/cpuset.cpus"
            cat "$controller/cpuset.mems" >"$controller$cgroup/cpuset.mems"
        fi
    done
}

# kubelet sets six kernel parameters of the machine. It finds files that have the wanted values.
shield_sysctls() {
    local name
    mkdir /run/sysctl
    while read -r name value; do
        echo "$value" >"/run/sysctl/${name//\//.}"
        mount --bind "/run/sysctl/${name//\//.}" "/proc/sys/$name"
    done <<'EOF'
vm/overcommit_memory 1
vm/panic_on_oom 0
kernel/panic 10
kernel/panic_on_oops 1
kernel/keys/root_maxkeys 1000000
kernel/keys/root_maxbytes 25000000
EOF
}

make_network() {
    ip link set lo up
    ip link add node0 type veth peer name node1
    ip address add 10.200.0.2/24 dev node0
    ip link set node0 up
    ip link set node1 up
    ip route add default via 10.200.0.1 dev node0 # leads nowhere, but programs ask for one
    sysctl --quiet --write net.ipv4.ip_forward=1
}

if [[ $1 == --inside ]]; then # the new namespaces' first process: it also reaps what is orphaned
    shift
    mount -t tmpfs -o mode=755 cluster /run
    shield_sysctls
    make_network
    "$@" && exit
    exit $?
fi

if ((EUID != 0)); then
    echo "$0: needs root, to make namespaces, cgroups and containers." >&2
    exit 1
fi
remove_cgroups
trap remove_cgroups EXIT
make_cgroups
LLAMA_CLUSTER_CGROUP=/$cgroup unshare --net --mount --pid --ipc --uts --fork --kill-child=KILL \
    --mount-proc "$0" --inside "$@"
