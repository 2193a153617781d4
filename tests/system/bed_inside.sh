#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The second half of bed.py: runs as the first process of new PID, network and IPC namespaces, puts a file
# system together and becomes systemd. What goes wrong before that is the host's limit, not the test's:
# it is written to the folder of results as the reason to skip.
#
#   bed_inside.sh FOLDER CGROUP     FOLDER: what bed.py prepared (layer/, results/)
set -eu
folder=$1
cgroup=$2
PATH=/usr/sbin:/usr/bin:/sbin:/bin

skip() {
        echo "$*" > "$folder/results/skip"
        exit 77
}

if [ "${3:-}" != mounted ]; then
        # Into the scratch cgroup first: it becomes the root of the cgroup namespace.
        echo 0 > "$cgroup/cgroup.procs" || skip "cannot enter a cgroup of my own"
        exec unshare --cgroup --mount --propagation private "$0" "$folder" "$cgroup" mounted ||
                skip "cannot unshare cgroup and mount namespaces"
fi

stage=$folder/mount
mkdir -p "$stage"
mount -t tmpfs -o mode=755 bed "$stage" || skip "cannot mount a tmpfs"
mkdir "$stage/upper" "$stage/work" "$stage/root"
cp -a "$folder/layer/." "$stage/upper/"
root=$stage/root
mount -t overlay -o "lowerdir=/,upperdir=$stage/upper,workdir=$stage/work" bed "$root" ||
        skip "cannot mount an overlay of /"

mount -t proc -o nosuid,nodev,noexec proc "$root/proc" || skip "cannot mount /proc"
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys" || skip "cannot mount /sys"
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$root/sys/fs/cgroup" || skip "cannot mount cgroup2"
for place in run tmp var/log var/lib/private; do
        mkdir -p "$root/$place"
        mount -t tmpfs -o nosuid,nodev bed "$root/$place"
done
chmod 1777 "$root/tmp"
mount -t tmpfs -o mode=755,nosuid bed "$root/dev"
mkdir "$root/dev/pts" "$root/dev/shm" "$root/run/bed"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777,nosuid,nodev bed "$root/dev/shm"
for node in null zero full random urandom tty; do
        touch "$root/dev/$node"
        mount --bind "/dev/$node" "$root/dev/$node"
done
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
mount --bind "$folder/results" "$root/run/bed"

cd "$root"
mkdir -p run/host-root
pivot_root . run/host-root || skip "cannot pivot_root"
# As on a machine: credentials reach a service by a mount that is made in another namespace.
mount --make-rshared /
exec env -i container=bed PATH="$PATH" LANG=C.UTF-8 /lib/systemd/systemd --system --unit=bed.service
