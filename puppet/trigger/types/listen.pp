# @summary An address and a port to listen on, such as `127.0.0.1:8145` or `[::1]:8145`
type Trigger::Listen = Pattern[/\A([A-Za-z0-9.-]+|\[[0-9a-fA-F:.]+\]):[0-9]{1,5}\z/]
