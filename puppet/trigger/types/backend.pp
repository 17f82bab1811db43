# Written by `SNAPSHOTS=overwrite cargo test -p trigger --test puppet_module`.

# @summary The URL of a backend, which carries events: `hub+http://HOST:PORT`, `etcd://HOST:PORT[,HOST:PORT…]`, `dummy:`
type Trigger::Backend = Variant[Trigger::Url::Hub, Trigger::Url::Etcd, Enum['dummy:']]
