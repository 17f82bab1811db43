# Written by `SNAPSHOTS=overwrite cargo test -p trigger --test puppet_module`.

# @summary The URL for each provider that a manifest may name
type Trigger::Backends = Struct[{
    Optional[hub]  => Struct[{ url => Trigger::Url::Hub }],
    Optional[etcd] => Struct[{ url => Trigger::Url::Etcd }],
}]
