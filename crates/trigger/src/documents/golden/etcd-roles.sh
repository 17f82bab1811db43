#!/bin/sh
# Run this where etcdctl acts as etcd's user root: ETCDCTL_ENDPOINTS, ETCDCTL_CACERT, ETCDCTL_CERT and ETCDCTL_KEY.
set -eu
export ETCDCTL_API=3
role() { etcdctl role get "$1" >/dev/null 2>&1 || etcdctl role add "$1"; }
user() { etcdctl user get "$1" >/dev/null 2>&1 || etcdctl user add --no-password "$1"; }

role trigger:fleet:/puppet_trigger/events
etcdctl role grant-permission --prefix trigger:fleet:/puppet_trigger/events readwrite /puppet_trigger/events/events/
etcdctl role grant-permission --prefix trigger:fleet:/puppet_trigger/events write /puppet_trigger/events/deliveries/
etcdctl role grant-permission --prefix trigger:fleet:/puppet_trigger/events readwrite /puppet_trigger/events/group-deliveries/
etcdctl role grant-permission --prefix trigger:fleet:/puppet_trigger/events readwrite /puppet_trigger/events/outcomes/
etcdctl role grant-permission --prefix trigger:fleet:/puppet_trigger/events read /puppet_trigger/events/nodes/
etcdctl role grant-permission --prefix trigger:fleet:/puppet_trigger/events read /puppet_trigger/events/run-history/
etcdctl role grant-permission --prefix trigger:fleet:/puppet_trigger/events read /puppet_trigger/events/certificates/
etcdctl role grant-permission --prefix trigger:fleet:/puppet_trigger/events readwrite /puppet_trigger/events/log-requests/
etcdctl role grant-permission --prefix trigger:fleet:/puppet_trigger/events readwrite /puppet_trigger/events/log-answers/
etcdctl role grant-permission trigger:fleet:/puppet_trigger/events readwrite /puppet_trigger/events/sweep

role trigger:operator:/puppet_trigger/events
etcdctl role grant-permission --prefix trigger:operator:/puppet_trigger/events read /puppet_trigger/events/deliveries/
etcdctl role grant-permission --prefix trigger:operator:/puppet_trigger/events write /puppet_trigger/events/nodes/
etcdctl role grant-permission --prefix trigger:operator:/puppet_trigger/events write /puppet_trigger/events/run-history/
etcdctl role grant-permission --prefix trigger:operator:/puppet_trigger/events write /puppet_trigger/events/certificates/
etcdctl role grant-permission --prefix trigger:operator:/puppet_trigger/events readwrite /puppet_trigger/events/holds/

role trigger:node:ops01.example.com:/puppet_trigger/events
etcdctl role grant-permission --prefix trigger:node:ops01.example.com:/puppet_trigger/events read /puppet_trigger/events/deliveries/ops01.example.com/
etcdctl role grant-permission trigger:node:ops01.example.com:/puppet_trigger/events write /puppet_trigger/events/nodes/ops01.example.com
etcdctl role grant-permission trigger:node:ops01.example.com:/puppet_trigger/events write /puppet_trigger/events/run-history/ops01.example.com
etcdctl role grant-permission --prefix trigger:node:ops01.example.com:/puppet_trigger/events write /puppet_trigger/events/certificates/ops01.example.com/
etcdctl role grant-permission trigger:node:ops01.example.com:/puppet_trigger/events readwrite /puppet_trigger/events/holds/ops01.example.com

role trigger:node:web01.example.com:/puppet_trigger/events
etcdctl role grant-permission --prefix trigger:node:web01.example.com:/puppet_trigger/events read /puppet_trigger/events/deliveries/web01.example.com/
etcdctl role grant-permission trigger:node:web01.example.com:/puppet_trigger/events write /puppet_trigger/events/nodes/web01.example.com
etcdctl role grant-permission trigger:node:web01.example.com:/puppet_trigger/events write /puppet_trigger/events/run-history/web01.example.com
etcdctl role grant-permission --prefix trigger:node:web01.example.com:/puppet_trigger/events write /puppet_trigger/events/certificates/web01.example.com/
etcdctl role grant-permission trigger:node:web01.example.com:/puppet_trigger/events readwrite /puppet_trigger/events/holds/web01.example.com

user ops01.example.com
etcdctl user grant-role ops01.example.com trigger:fleet:/puppet_trigger/events
etcdctl user grant-role ops01.example.com trigger:node:ops01.example.com:/puppet_trigger/events
etcdctl user grant-role ops01.example.com trigger:operator:/puppet_trigger/events

user web01.example.com
etcdctl user grant-role web01.example.com trigger:fleet:/puppet_trigger/events
etcdctl user grant-role web01.example.com trigger:node:web01.example.com:/puppet_trigger/events
