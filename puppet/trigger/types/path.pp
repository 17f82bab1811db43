# @summary An absolute path of letters, digits and `.`, `_`, `+`, `-`, which a systemd unit takes as it is
type Trigger::Path = Pattern[/\A(\/[A-Za-z0-9._+-]+)+\z/]
