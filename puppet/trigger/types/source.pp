# @summary Where Puppet finds a file: `puppet:///…`, `https://…`, `http://…` or an absolute path
type Trigger::Source = Pattern[/\A(?:puppet:\/\/|https?:\/\/|\/)[^\s]+\z/]
