#!/bin/bash
# A one-node Ceph on loopback with its S3 gateway, for a release check: all in memory, all in one folder, gone with it.
#   radosgw.sh start FOLDER   prints what tests need in the environment      radosgw.sh stop FOLDER
# As root, with Debian's packages ceph-mon ceph-osd radosgw ceph-common.
set -euo pipefail

action=${1:?start or stop}
folder=$(realpath -m "${2:?a folder for its files}")
mon_port=${MON_PORT:-43300}
s3_port=${S3_PORT:-43380}
export CEPH_CONF=$folder/ceph.conf

stop() {
    for name in radosgw osd mon; do
        [ -f "$folder/$name.pid" ] && kill "$(cat "$folder/$name.pid")" 2>/dev/null || true
        for _ in $(seq 50); do
            [ -f "$folder/$name.pid" ] && kill -0 "$(cat "$folder/$name.pid")" 2>/dev/null || break
            sleep 0.1
        done
    done
}

wait_for() {
    local what=$1
    shift
    for _ in $(seq 120); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.5
    done
    echo "radosgw.sh: $what did not come up within 60 s; see the logs in $folder" >&2
    exit 1
}

start() {
    for program in ceph-mon ceph-osd radosgw radosgw-admin ceph monmaptool; do
        command -v "$program" >/dev/null || { echo "radosgw.sh: $program is missing: apt-get install ceph-mon ceph-osd radosgw ceph-common" >&2; exit 1; }
    done
    mkdir -p "$folder/mon" "$folder/osd"
    local fsid
    fsid=$(cat /proc/sys/kernel/random/uuid)
    cat >"$folder/ceph.conf" <<CONF
[global]
fsid = $fsid
mon_host = v1:127.0.0.1:$mon_port
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
run_dir = $folder
pid_file = $folder/\$type.pid
log_file = $folder/\$type.log
admin_socket = $folder/\$name.asok
mon_cluster_log_file = $folder/cluster.log
mon_allow_pool_size_one = true
mon_data_avail_crit = 1
mon_data_avail_warn = 2
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
osd_objectstore = memstore
osd_class_update_on_start = false
osd_crush_update_on_start = false
memstore_device_bytes = 2147483648
[mon.a]
mon_data = $folder/mon
[osd.0]
osd_data = $folder/osd
[client.rgw.a]
pid_file = $folder/radosgw.pid
log_file = $folder/radosgw.log
rgw_frontends = beast endpoint=127.0.0.1:$s3_port
rgw_data = $folder/rgw
CONF
    monmaptool --create --clobber --fsid "$fsid" --addv a "[v1:127.0.0.1:$mon_port]" "$folder/monmap" >/dev/null
    ceph-mon -i a --mkfs --monmap "$folder/monmap"
    ceph-mon -i a
    wait_for "the monitor" timeout 5 ceph -s
    local osd
    osd=$(cat /proc/sys/kernel/random/uuid)
    ceph osd new "$osd" >/dev/null
    ceph-osd -i 0 --mkfs --osd-uuid "$osd" >/dev/null 2>&1
    ceph osd crush add osd.0 1.0 root=default host=here >/dev/null 2>&1
    ceph-osd -i 0 >/dev/null 2>&1
    wait_for "the store" bash -c 'ceph osd stat | grep -q "1 up"'
    timeout 120 radosgw-admin user create --uid=lookalike --display-name=lookalike --access-key=lookalike --secret-key=only-on-loopback >/dev/null 2>"$folder/radosgw-admin.log" || {
        echo "radosgw.sh: the user could not be made; see $folder/radosgw-admin.log" >&2; exit 1; }
    radosgw -n client.rgw.a
    wait_for "the gateway" curl -s "http://127.0.0.1:$s3_port/"
    echo "export LOOKALIKE_TEST_S3_ENDPOINT=http://127.0.0.1:$s3_port LOOKALIKE_TEST_S3_ACCESS_KEY=lookalike LOOKALIKE_TEST_S3_SECRET_KEY=only-on-loopback"
}

trap '[ $? -eq 0 ] || stop' EXIT
"$action"
