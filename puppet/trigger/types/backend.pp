# Written by `SNAPSHOTS=overwrite cargo test -p trigger --test puppet_module`.

# @summary The URL of a backend, which carries events
#
# It has one of these forms: `hub+http://localhost:PORT`, `hub+https://HOST:PORT`, `etcd://HOST:PORT[,HOST:PORT…]`, `etcds://HOST:PORT[,HOST:PORT…]`, `dummy:`
type Trigger::Backend = Variant[Trigger::Url::Hub, Trigger::Url::Etcd, Enum['dummy:']]
