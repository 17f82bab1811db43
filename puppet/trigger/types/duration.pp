# @summary A length of time: a number and one of the units `s`, `m`, `h` and `d`, such as `90s` or `1h`, or a number of seconds
type Trigger::Duration = Variant[Integer[1, 999999999], Pattern[/\A[1-9][0-9]{0,8}[smhd]?\z/]]
