# Written by `SNAPSHOTS=overwrite cargo test -p trigger --test puppet_module`.
# lint:ignore:140chars

# @summary An etcd cluster, such as `etcd://127.0.0.1:2379`
type Trigger::Url::Etcd = Pattern[/\A(?:etcd:\/\/|etcds:\/\/)(?<address>(?:(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)\.){3}(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)|\[(?:(?:\h{1,4}:){7}\h{1,4}|(?!:{0,2}(?:\h{1,4}::?){7}\h)(?:\h{1,4}(?::\h{1,4})*)?::(?:\h{1,4}(?::\h{1,4})*)?)\]|(?=[^:]{1,253}:)(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*(?!\d+\.?:)[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.?):(?:[1-9]\d{0,3}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d{2}|655[0-2]\d|6553[0-5]))(?:,\g<address>)*\/?\z/]
# lint:endignore
