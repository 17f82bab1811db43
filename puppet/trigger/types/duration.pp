# @summary A length of time: a number and one of the units `s`, `m`, `h` and `d`, such as `90s` or `1h`
type Trigger::Duration = Pattern[/\A[1-9][0-9]{0,8}[smhd]\z/]
