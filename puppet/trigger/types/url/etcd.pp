# @summary An etcd cluster, such as `etcd://etcd1.example.com:2379,etcd2.example.com:2379`
type Trigger::Url::Etcd = Pattern[/\Aetcds?:\/\/[^[:space:][:cntrl:]]+\z/]
