# Written by `SNAPSHOTS=overwrite cargo test -p trigger --test puppet_module`.
# lint:ignore:140chars

# @summary A host and a port, such as `hub.example.com:8145` or `[::1]:8145`
type Trigger::Address = Pattern[/\A(?:(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)\.){3}(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)|\[(?:(?:\h{1,4}:){7}\h{1,4}|(?!:{0,2}(?:\h{1,4}::?){7}\h)(?:\h{1,4}(?::\h{1,4})*)?::(?:\h{1,4}(?::\h{1,4})*)?)\]|(?=[^:]{1,253}:)(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*(?!\d+\.?:)[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.?):(?:[1-9]\d{0,3}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d{2}|655[0-2]\d|6553[0-5])\z/]
# lint:endignore
