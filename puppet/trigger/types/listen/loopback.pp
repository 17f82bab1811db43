# lint:ignore:140chars

# @summary A loopback address and a port to listen on, such as `127.0.0.1:8145` or `[::1]:8145`
type Trigger::Listen::Loopback = Pattern[/\A(?:localhost|127(?:\.(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)){3}|\[::1\]):(?:[1-9]\d{0,3}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d{2}|655[0-2]\d|6553[0-5])\z/]
# lint:endignore
