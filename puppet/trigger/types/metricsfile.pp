# @summary The absolute path of a file for node_exporter's textfile collector, which reads files that end in `.prom`
type Trigger::Metricsfile = Pattern[/\A(\/[A-Za-z0-9._+-]+)*\/[A-Za-z0-9._+-]*\.prom\z/]
