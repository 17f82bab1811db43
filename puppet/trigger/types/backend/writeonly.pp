# Written by `SNAPSHOTS=overwrite cargo test -p trigger --test puppet_module`.

# @summary The URL of a backend that only takes events, so that no agent can run on it
type Trigger::Backend::Writeonly = Variant[Enum['dummy:']]
