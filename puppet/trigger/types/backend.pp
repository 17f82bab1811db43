# @summary Where events are carried: the URL of a hub or of an etcd cluster, or `dummy:` for dry runs
type Trigger::Backend = Variant[Trigger::Url::Hub, Trigger::Url::Etcd, Enum['dummy:']]
